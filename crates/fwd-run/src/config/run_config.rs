//! The configuration of a run: a TOML file, then flags that win over it. An unknown key is an error with a suggestion.
//!
//! ```toml
//! method = "fwd"
//! seed = 1
//! tasks = ["flags", "posters"]    # without it the benchmark's own sequence
//! [pool]
//! allocation = { partitioned = 4 }
//! [training]
//! epochs = 3
//! [training.prompts]
//! lr = 0.02
//! [paths]
//! out = "runs/fwd-1"
//! ```

use super::options::MethodOptions;
use crate::choice::Choice;
use crate::device::DeviceKind;
use crate::files::read_to_string;
use crate::limits::TextLimits;
use crate::method::Method;
use crate::model::Template;
use anyhow::{Context, Result, anyhow, bail, ensure};
use fwd_adapters::LoraConfig;
use fwd_continual::MethodConfig;
use fwd_data::bench::Split;
use fwd_models::WeightDtype;
use fwd_ops::Compute;
use fwd_prompt::linalg::{AdamW, ProjectAt};
use fwd_prompt::{
    Allocation, Config, Fallback, Inference, MapConfig, MapForm, PoolConfig, Rejection, Rule, Start,
    SubspaceOptions, TrainingConfig,
};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Everything that a run is started with.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RunConfig {
    /// How the tasks are learnt.
    pub method: Method,
    /// The seed of every random stream.
    pub seed: u64,
    /// The tasks; none: the benchmark's sequence.
    pub tasks: Vec<String>,
    /// In which order they are learnt.
    pub order: Order,
    /// The split that is scored.
    pub split: Split,
    /// Where the model computes; the last digits of a result depend on it.
    pub device: DeviceKind,
    /// How the model's matrices are kept in memory.
    pub dtype: WeightDtype,
    /// How the model's frozen products are computed. Trained weights and all else are computed in f32.
    pub compute: Compute,
    /// How prompts are written; none: as it suits the model ([`ModelOptions`](crate::model::ModelOptions)). A run's manifest says
    /// `chat`, or leaves the key out, which means `plain`.
    #[serde(skip_serializing_if = "is_plain")]
    pub template: Option<Template>,
    /// What is asked of every record instead of its own instruction; none: its own. Prompts that are tuned so must carry what a task
    /// wants, because the text no longer says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
    /// Whether records that cannot be used are left out, instead of refused.
    pub skip_bad: bool,
    /// How long instructions and answers may be, and what becomes of longer ones.
    pub limits: TextLimits,
    /// Training samples of each task, at most, spread evenly over those that it has; none: all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub training_samples: Option<usize>,
    /// Samples of all pre-training tasks together, of which their subspace is made.
    pub pretraining_samples: usize,
    /// Samples of each pre-training task that are scored, to see what is left of it.
    pub retention_samples: usize,
    /// Longest answer in tokens.
    pub max_new_tokens: usize,
    /// Samples that are answered at a time.
    pub eval_batch: usize,
    /// The prompt pool: how many prompts, how long, who selects them.
    pub pool: PoolConfig,
    /// How many directions the subspace of a task has.
    pub subspace: SubspaceOptions,
    /// Where in the optimiser's step a rule is applied.
    pub project_at: ProjectAt,
    /// A map of the input embeddings that all tasks train beside their prompts.
    #[serde(skip_serializing_if = "MapConfig::is_none")]
    pub map: MapConfig,
    /// The training of one task.
    pub training: TrainingConfig,
    /// The weight of the pre-trained part of an update under the method `fwd-weighted`.
    pub alpha: f32,
    /// The options of the methods of [`fwd_continual`], each under its own name.
    #[serde(flatten)]
    pub options: MethodOptions,
    /// AdamW of the weights under the method `finetune`; epochs and batches are those of `training`.
    pub finetune: AdamW,
    /// The adapters of the methods that have them; epochs, batches, schedule and clipping are those of `training`.
    pub lora: LoraConfig,
    /// The state is saved every so many steps; it changes nothing in the result.
    #[serde(skip_serializing)]
    pub save_every: usize,
    /// Files and folders; what lies in them decides, not where they are.
    #[serde(skip_serializing)]
    pub paths: Paths,
}

/// Whether prompts are those of runs from before there were templates.
fn is_plain(template: &Option<Template>) -> bool {
    *template != Some(Template::Chat)
}

/// Files and folders of a run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Paths {
    /// The run directory, which is made.
    pub out: Option<PathBuf>,
    /// The model; none: the embedded one.
    pub backbone: Option<PathBuf>,
    /// The benchmark; none: the embedded one.
    pub bench: Option<PathBuf>,
    /// Frozen features; none: `.fwd-cache` beside the run directory.
    pub cache: Option<PathBuf>,
    /// A finished run of the method `independent`.
    pub alone: Option<PathBuf>,
    /// A run with prompts of its own for each task, with which new prompts may begin (`pool.start`).
    pub library: Option<PathBuf>,
}

/// In which order the tasks are learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// As they are given.
    #[default]
    Given,
    /// The last one first.
    Reversed,
    /// Drawn by the seed.
    Shuffled,
}

impl Choice for Order {
    fn all() -> Vec<(Self, &'static str, String)> {
        vec![
            (Self::Given, "given", "As they are given".to_owned()),
            (Self::Reversed, "reversed", "The last one first".to_owned()),
            (Self::Shuffled, "shuffled", "Drawn by the seed".to_owned()),
        ]
    }
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            method: Method::default(),
            seed: 0,
            tasks: Vec::new(),
            order: Order::default(),
            split: Split::Test,
            device: DeviceKind::default(),
            dtype: WeightDtype::default(),
            compute: Compute::default(),
            template: None,
            instruction: None,
            skip_bad: false,
            limits: TextLimits::default(),
            training_samples: None,
            pretraining_samples: 512,
            retention_samples: 25,
            max_new_tokens: 24,
            eval_batch: 32,
            pool: PoolConfig {
                allocation: Allocation::Partitioned(4),
                rejection: Rejection::BelowQuantile(0.0),
                ..PoolConfig::default()
            },
            subspace: SubspaceOptions::default(),
            project_at: ProjectAt::default(),
            map: MapConfig::default(),
            training: TrainingConfig {
                prompts: AdamW { lr: 0.2, ..AdamW::default() },
                ..TrainingConfig::default()
            },
            alpha: 0.5,
            options: MethodOptions::default(),
            finetune: AdamW { lr: 3e-4, ..AdamW::default() },
            lora: LoraConfig::default(),
            save_every: 50,
            paths: Paths::default(),
        }
    }
}

impl RunConfig {
    /// The defaults under a method. They are the same for all but `reuse` and `reuse-map`, which begin with a library, select by task, keep
    /// anchors and fall back on the library; `reuse-map` has a full map of the input.
    pub fn of(method: Method) -> Self {
        let mut config = Self { method, ..Self::default() };
        if method.reuses() {
            let pool = &mut config.pool;
            (pool.start, pool.inference, pool.fallback) =
                (Start::Library, Inference::Task, Fallback::Nearest);
            pool.anchors.count = 256;
        }
        if method == Method::ReuseMap {
            config.map.form = MapForm::Full;
        }
        config
    }

    /// A configuration file, if there is one, then assignments that win over it, each `KEY=VALUE` with a dotted key and a value as TOML
    /// writes it (`training.epochs=4`). Both lie over the defaults of the method that they name, or else of `fwd`. Values that cannot be are
    /// found by [`Self::check`].
    ///
    /// # Errors
    /// An unreadable file; an unknown key or a value of the wrong kind, with line, column and a suggestion.
    pub fn read(file: Option<&Path>, assignments: &[String]) -> Result<Self> {
        Self::read_with(file, assignments, |named, _| named.unwrap_or_default())
    }

    /// As [`Self::read`], of a method that `choose` names, knowing that of the file and the assignments, if they name one, and their paths.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_with(
        file: Option<&Path>,
        assignments: &[String],
        choose: impl FnOnce(Option<Method>, &Paths) -> Method,
    ) -> Result<Self> {
        let (text, origin) = match file {
            Some(path) => (read_to_string(path)?, path.display().to_string()),
            None => (String::new(), "configuration".to_owned()),
        };
        Self::parse(&text, &origin)?;
        let mut table: toml::Table = toml::from_str(&text)?;
        for assignment in assignments {
            set(&mut table, assignment)?;
        }
        let refused = |error| explain(&error, "--set");
        let Self { method, paths, .. } = Self::over_defaults(table.clone()).map_err(refused)?;
        let chosen = choose(table.contains_key("method").then_some(method), &paths);
        table.insert("method".to_owned(), chosen.name().into());
        Self::over_defaults(table).map_err(refused)
    }

    /// The text of a configuration file; `origin` names it in errors.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        // Read as it stands first: its errors know line and column.
        let _: Self = toml::from_str(text).map_err(|error| explain(&error, origin))?;
        Self::over_defaults(toml::from_str(text)?).map_err(|error| explain(&error, origin))
    }

    /// A table laid over the defaults of its method, key by key: a section that is given in part keeps the rest of this program's defaults, not
    /// of the libraries'.
    fn over_defaults(table: toml::Table) -> Result<Self, toml::de::Error> {
        fn lay(base: &mut toml::Table, over: toml::Table) {
            for (key, value) in over {
                match (base.get_mut(&key), value) {
                    // An allocation is one of two, not both.
                    (Some(toml::Value::Table(base)), toml::Value::Table(over)) if key != "allocation" => {
                        lay(base, over);
                    }
                    (_, value) => drop(base.insert(key, value)),
                }
            }
        }
        let method = table.get("method").and_then(toml::Value::as_str).and_then(Method::named);
        let base = Self::of(method.unwrap_or_default());
        let mut base = toml::Table::try_from(base).map_err(serde::de::Error::custom)?;
        lay(&mut base, table);
        base.try_into()
    }

    /// The learning rate of what the method trains: prompts, adapters, or the weights of the bridge.
    pub fn learning_rate(&mut self) -> &mut f64 {
        match self.method {
            method if method.has_adapters() => &mut self.lora.optimiser.lr,
            Method::Finetune => &mut self.finetune.lr,
            _ => &mut self.training.prompts.lr,
        }
    }

    /// Refuses values that cannot be.
    ///
    /// # Errors
    /// That names the key, its value and what it may be.
    pub fn check(&self) -> Result<()> {
        ensure!(self.split != Split::Train, "split is `train`: score `val` or `test`");
        ensure!(
            !self.method.reuses() || self.pool.start != Start::Normal,
            "pool.start is normal, but the method {} begins prompts with those of a library: choose \"library\" or \"nearest\"",
            self.method
        );
        ensure!(
            self.method != Method::ReuseMap || !self.map.is_none(),
            "map.form is none, but the method reuse-map learns a map of the input: choose \"full\" or \"low-rank\""
        );
        for (key, value) in [
            ("training_samples", self.training_samples.unwrap_or(usize::MAX)),
            ("retention_samples", self.retention_samples),
            ("max_new_tokens", self.max_new_tokens),
            ("eval_batch", self.eval_batch),
        ] {
            ensure!(value > 0, "{key} is 0, must be at least 1");
        }
        ensure!(
            self.instruction.as_ref().is_none_or(|text| !text.trim().is_empty()),
            "instruction is empty: leave it out to ask what records say"
        );
        self.limits.check()?;
        ensure!(
            Method::named(self.method.name()) == Some(self.method),
            "there is no method {:?}",
            self.method
        );
        let mut config = self.trainer(Rule::FwdWeighted(self.alpha), self.pool.clone());
        for method in self.options.all() {
            method.build().check(&config.plan()).map_err(anyhow::Error::msg)?;
        }
        if let Some(name) = self.method.beside() {
            config.method = self.options.of(name).unwrap_or_default();
        }
        config.check()?;
        self.lora.check()?;
        Ok(())
    }

    /// The configuration of the trainer for a rule and a pool.
    pub(crate) fn trainer(&self, rule: Rule, pool: PoolConfig) -> Config {
        Config {
            seed: self.seed,
            pool,
            subspace: self.subspace,
            rule,
            project_at: self.project_at,
            map: self.map,
            training: self.training.clone(),
            method: MethodConfig::Plain,
            save_every: self.save_every,
        }
    }
}

/// A split by its name.
///
/// # Errors
/// If there is none of this name.
pub fn parse_split(name: &str) -> Result<Split> {
    serde_json::from_value(name.into()).with_context(|| format!("there is no split `{name}`"))
}

/// `a.b=value` in a table; a value that is no TOML is a text.
fn set(table: &mut toml::Table, assignment: &str) -> Result<()> {
    let Some((key, text)) = assignment.split_once('=') else {
        bail!("--set {assignment}: expected KEY=VALUE");
    };
    let parsed = toml::from_str::<toml::Table>(&format!("value = {text}")).ok();
    let value = parsed.and_then(|mut parsed| parsed.remove("value"));
    let value = value.unwrap_or_else(|| toml::Value::String(text.to_owned()));
    let mut parts: Vec<&str> = key.trim().split('.').collect();
    let last = parts.pop().unwrap_or_default();
    let mut at = table;
    for part in parts {
        let entry = at.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        at = entry.as_table_mut().ok_or_else(|| anyhow!("--set {assignment}: `{part}` is no table"))?;
    }
    at.insert(last.to_owned(), value);
    Ok(())
}

/// An error of the TOML reader, with a suggestion if a name is unknown.
fn explain(error: &toml::de::Error, origin: &str) -> anyhow::Error {
    let hint =
        suggestion(error.message()).map(|name| format!("\ndid you mean `{name}`?")).unwrap_or_default();
    anyhow!("{origin}: {}{hint}", error.to_string().trim_end())
}

/// The known name that an unknown one is nearest to, from serde's message: "unknown field `a`, expected one of `b`, `c`".
fn suggestion(message: &str) -> Option<&str> {
    if !message.starts_with("unknown ") {
        return None;
    }
    let mut names = message.split('`').skip(1).step_by(2);
    let unknown = names.next()?;
    // The one measure knows common beginnings, the other exchanged letters.
    let similarity = |name: &str| {
        strsim::jaro_winkler(unknown, name).max(strsim::normalized_damerau_levenshtein(unknown, name))
    };
    let scored = names.map(|name| (similarity(name), name));
    scored.filter(|(score, _)| *score > 0.65).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        RunConfig::parse(text, "run.toml").unwrap_err().to_string()
    }

    #[test]
    fn unknown_keys_and_values_come_with_line_and_suggestion() {
        let text = message("seed = 1\ntrainning = 3\n");
        assert!(text.contains("run.toml") && text.contains("line 2"), "{text}");
        assert!(text.contains("did you mean `training`?"), "{text}");
        assert!(message("[training]\nepoch = 3").contains("did you mean `epochs`?"));
        assert!(message("[training.prompts]\nlearning_rate = 3").contains("unknown field"));
        assert!(message("method = \"fdw\"").contains("did you mean `fwd`?"));
        let text = message("seed = 1\ncompute = \"bf17\"\n");
        assert!(
            text.contains("line 2") && text.contains("compute = ") && text.contains("did you mean `bf16`?"),
            "{text}"
        );
        assert!(["`f32`", "`bf16`", "`int8`"].iter().all(|name| text.contains(name)), "{text}");
        assert!(!message("[paths]\nzzz = 1").contains("did you mean"));
        assert!(message("seed = \"one\"").contains("line 1"));
    }

    #[test]
    fn a_file_and_assignments_reach_every_level() {
        let text =
            "method = \"l2p\"\n[pool]\nallocation = { partitioned = 6 }\n[training.prompts]\nlr = 0.5\n";
        let config = RunConfig::parse(text, "x").unwrap();
        let default = RunConfig::default();
        assert_eq!(config.pool, PoolConfig { allocation: Allocation::Partitioned(6), ..default.pool });
        assert_eq!(config.training.prompts, AdamW { lr: 0.5, ..default.training.prompts });
        assert_eq!(RunConfig::parse("[training]\nepochs = 2", "x").unwrap().training.prompts.lr, 0.2);
        assert_eq!(config.method, Method::L2p);
        assert_eq!(config.pool.allocation, Allocation::Partitioned(6));
        assert_eq!(config.training.prompts.lr, 0.5);
        let mut table = toml::Table::new();
        for assignment in
            ["pool.prompt_len=8", "order=reversed", "training.steps=3", "pool.allocation={shared=9}"]
        {
            set(&mut table, assignment).unwrap();
        }
        let config: RunConfig = table.try_into().unwrap();
        assert_eq!((config.pool.prompt_len, config.order), (8, Order::Reversed));
        assert_eq!((config.training.steps, config.pool.allocation), (Some(3), Allocation::Shared(9)));
        assert!(set(&mut toml::Table::new(), "seed").is_err());
    }

    #[test]
    fn impossible_values_are_named() {
        let mut config = RunConfig::default();
        config.check().unwrap();
        config.pool.top_k = 0;
        assert!(config.check().unwrap_err().to_string().contains("pool.top_k"));
        let config = RunConfig { split: Split::Train, ..RunConfig::default() };
        assert!(config.check().unwrap_err().to_string().contains("split"));
    }

    #[test]
    fn a_file_lies_over_the_defaults_of_its_method() {
        assert_eq!(RunConfig::parse("seed = 0", "x").unwrap(), RunConfig::default());
        assert_eq!(RunConfig::parse("method = \"reuse\"", "x").unwrap(), RunConfig::of(Method::Reuse));
        let said = ["method=reuse-map", "pool.anchors.count=3", "pool.fallback=nothing"].map(str::to_owned);
        let config = RunConfig::read(None, &said).unwrap();
        let mut expected = RunConfig::of(Method::ReuseMap);
        (expected.pool.anchors.count, expected.pool.fallback) = (3, Fallback::Nothing);
        assert_eq!(config, expected);
        // Who chooses knows what was named.
        let choose = |named: Option<Method>, _: &Paths| named.unwrap_or(Method::Reuse);
        assert_eq!(RunConfig::read_with(None, &[], choose).unwrap(), RunConfig::of(Method::Reuse));
        assert_eq!(RunConfig::read_with(None, &said[..1], choose).unwrap().method, Method::ReuseMap);
    }
}
