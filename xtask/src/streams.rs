//! `cargo xtask streams`: streams of tasks made from the embedded benchmarks, and methods on each, as they are or with other settings.
//!
//! Every seed learns a stream in its order and in the reverse order. Runs are ordinary run directories, as those of the comparison.

use crate::comparison::{compare, train, work_off};
use crate::shell::{built, command, root, run};
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A stream of tasks.
struct Stream {
    name: &'static str,
    /// The tasks in their order; none: the benchmark's own sequence.
    sequence: &'static [&'static str],
    /// Tasks that each of them is cut into, by its answers.
    parts: usize,
    /// Training samples of a task, at most.
    samples: Option<usize>,
    /// Of the benchmark without pictures, which a language model alone learns.
    is_text: bool,
}

const fn few(name: &'static str, samples: usize) -> Stream {
    Stream { samples: Some(samples), ..of(name, &[], 1) }
}

const fn of(name: &'static str, sequence: &'static [&'static str], parts: usize) -> Stream {
    Stream { name, sequence, parts, samples: None, is_text: false }
}

/// What the language model alone learns with: prompts behind the question, whose frozen keys and values are computed once, in steps that
/// are measured in the length of its embeddings.
const TEXT: [&str; 6] = [
    "pool.place=end",
    "training.lr_unit=embedding",
    "training.batch_size=8",
    "training.steps=24",
    "max_new_tokens=8",
    "retention_samples=2",
];

const CLASSES: [&str; 3] = ["art4apps", "posters", "scenes-count"];

const TEN: [&str; 10] = [
    "fluent-group",
    "art4apps",
    "flags",
    "posters",
    "scenes-count",
    "drawings",
    "flags-continent",
    "fluent-name",
    "scenes-find",
    "letters",
];

const STREAMS: [Stream; 10] = [
    of("five", &[], 1),
    of("ten", &TEN, 1),
    Stream { samples: Some(64), ..of("ten-64", &TEN, 1) },
    few("few-16", 16),
    few("few-32", 32),
    few("few-64", 64),
    // The same instructions, other answers.
    of("classes", &CLASSES, 2),
    Stream { samples: Some(64), ..of("classes-64", &CLASSES, 2) },
    of("long", &["fluent-group", "art4apps", "scenes-find", "posters", "letters"], 6),
    Stream { is_text: true, ..few("text", 64) },
];

/// A map alone, without prompts; its learning rate is one of three that were tried on validation.
const MAP_ALONE: &[&str] = &["pool.allocation={partitioned=0}", "map.form=full"];
const MAP_ALONE_FAST: &[&str] =
    &["pool.allocation={partitioned=0}", "map.form=full", "map.optimiser.lr=0.01"];
const FACTORS_ALONE: &[&str] =
    &["pool.allocation={partitioned=0}", "map.form=low-rank", "map.optimiser.lr=0.01"];

/// The subspaces of the tasks and of pre-training hold 99 instead of 95 % of their energy.
const MAP_ALONE_TIGHT: &[&str] = &[
    "pool.allocation={partitioned=0}",
    "map.form=full",
    "map.optimiser.lr=0.01",
    "subspace.task_energy=0.99",
    "subspace.pretrained_energy=0.99",
];

/// What is learnt, how prompts begin and how they are selected: a name, the library if it is not the model's own, and settings.
const VARIANTS: [Variant; 15] = [
    ("plain", None, &[]),
    ("library", None, &["pool.start=library"]),
    ("fallback", None, &["pool.start=library", "pool.fallback=nearest"]),
    ("own-words", Some(OWN_WORDS), &["pool.start=library"]),
    ("task", None, &["pool.inference=task"]),
    ("task-library", None, &["pool.inference=task", "pool.start=library"]),
    ("task-fallback", None, &["pool.inference=task", "pool.start=library", "pool.fallback=nearest"]),
    ("task-anchors", None, &["pool.inference=task", "pool.anchors.count=256"]),
    ("always", None, &["pool.rejection=never"]),
    ("map", None, MAP_ALONE),
    ("map-fast", None, MAP_ALONE_FAST),
    ("map-tight", None, MAP_ALONE_TIGHT),
    ("map-low-rank", None, FACTORS_ALONE),
    ("task-map", None, &["pool.inference=task", "map.form=full"]),
    ("task-library-map", None, &["pool.inference=task", "pool.start=library", "map.form=full"]),
];

/// A library that is tuned with the instructions of the tasks, as a control; the model's own is made with one instruction for all of them, so
/// that the prompts alone say what is wanted.
const OWN_WORDS: &str = "library-own-words";

#[derive(Debug, Args)]
pub(crate) struct StreamsArgs {
    /// Streams: five, ten, ten-64, few-16, few-32, few-64, classes, classes-64, long; text of a language model alone.
    #[arg(long, value_delimiter = ',', default_value = "five")]
    streams: Vec<String>,
    /// The methods that learn each stream.
    #[arg(long, value_delimiter = ',', default_value = "sequential,reuse,reuse-map")]
    methods: Vec<String>,
    /// How prompts begin and are selected: plain, library, fallback, own-words, task, task-library, task-fallback, task-anchors, always.
    /// A map instead of prompts: map, map-fast, map-tight, map-low-rank; beside them: task-map, task-library-map.
    #[arg(long, value_delimiter = ',', default_value = "plain")]
    variants: Vec<String>,
    /// Further pairs of a method and a variant, each METHOD+VARIANT.
    #[arg(long, value_delimiter = ',')]
    also: Vec<String>,
    /// Folder of the runs.
    #[arg(long, default_value = "runs/streams")]
    out: PathBuf,
    /// The language model that learns the streams of text; `fwd-prompt demo --text` fetches one to `smollm2`.
    #[arg(long, value_name = "DIR", default_value = "smollm2")]
    language_model: PathBuf,
    /// Number of seeds: 0, 1, …; each in both orders.
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// Runs at a time, each on one thread.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// How frozen products are computed.
    #[arg(long, default_value = "f32")]
    compute: String,
    /// What the names of the tables end in, behind the stream's: `-bf16` writes few-32-bf16.json.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    suffix: String,
    /// The split that is scored.
    #[arg(long, default_value = "test")]
    split: String,
}

pub(crate) fn streams(args: &StreamsArgs) -> Result<()> {
    ensure!(args.seeds > 0 && args.jobs > 0, "--seeds and --jobs must be at least 1");
    let known = |name: &String| STREAMS.iter().find(|stream| stream.name == name);
    let unknown = |name: &String| format!("there is no stream `{name}`");
    let streams: Vec<&Stream> =
        args.streams.iter().map(|name| known(name).with_context(|| unknown(name))).collect::<Result<_>>()?;
    let pairs = args.pairs()?;
    ensure!(
        !streams.iter().any(|stream| stream.is_text)
            || pairs.iter().all(|(_, (_, library, _))| library.is_none()),
        "the library of the variant own-words is the embedded model's: a stream of text cannot begin with it"
    );
    run(&mut command("cargo", &["build", "--release", "--locked", "--quiet", "--package", "fwd-cli"]))?;
    let here = Here { program: built("fwd-prompt"), out: root().join(&args.out), args, pairs };
    if here.pairs.iter().any(|(_, (_, library, _))| library.is_some()) {
        work_off(1, vec![(here.out.join(OWN_WORDS), here.own_words())])?;
    }
    streams.into_iter().try_for_each(|stream| here.stream(stream))
}

/// What all streams share.
struct Here<'a> {
    program: PathBuf,
    out: PathBuf,
    args: &'a StreamsArgs,
    /// What is run: methods and variants.
    pairs: Vec<(&'a str, &'static Variant)>,
}

/// Its name, the library, and settings.
type Variant = (&'static str, Option<&'static str>, &'static [&'static str]);

impl StreamsArgs {
    /// Every method with every variant, and the further pairs.
    fn pairs(&self) -> Result<Vec<(&str, &'static Variant)>> {
        let known = |name: &str| {
            VARIANTS
                .iter()
                .find(|(known, ..)| *known == name)
                .with_context(|| format!("there is no variant `{name}`"))
        };
        let mut pairs = Vec::new();
        for method in &self.methods {
            for variant in &self.variants {
                pairs.push((method.as_str(), known(variant)?));
            }
        }
        for pair in &self.also {
            let (method, variant) =
                pair.split_once('+').with_context(|| format!("--also {pair}: expected METHOD+VARIANT"))?;
            pairs.push((method, known(variant)?));
        }
        Ok(pairs)
    }
}

impl Here<'_> {
    /// Tunes prompts on each pre-training task alone. No downstream task is read for it.
    fn own_words(&self) -> Command {
        let tasks = "caption,group,keywords,color,yes-no,attributes,words,counting";
        let mut command = train(&self.program, "independent", 0);
        command.args(["--tasks", tasks, "--set", "training_samples=400", "--split", "val"]);
        command.args(["--compute", &self.args.compute]).arg("--out").arg(self.out.join(OWN_WORDS));
        command.arg("--cache").arg(self.out.join("cache"));
        command.env_remove("RAYON_NUM_THREADS");
        command
    }

    /// The benchmark of a stream: the embedded one, or one that is made of it.
    fn bench(&self, stream: &Stream) -> Result<Option<PathBuf>> {
        if stream.is_text {
            return Ok(Some(root().join("assets/text")));
        }
        if stream.sequence.is_empty() {
            return Ok(None);
        }
        let dir = self.out.join(format!("bench-{}", stream.name));
        if !dir.join("benchmark.json").exists() {
            let mut convert = Command::new(&self.program);
            convert.args(["data", "convert"]).arg(root().join("assets/bench")).arg(&dir);
            convert.args(["--to", "packed", "--sequence", &stream.sequence.join(",")]);
            run(convert.args(["--parts", &stream.parts.to_string()]))?;
        }
        Ok(Some(dir))
    }

    fn stream(&self, stream: &Stream) -> Result<()> {
        let Self { program, args, .. } = self;
        let (out, bench) = (self.out.join(stream.name), self.bench(stream)?);
        let one = |name: String, method: &str, seed: u64, order: &str, more: &[&str]| {
            let mut command = train(program, method, seed);
            command.args(["--order", order, "--compute", &args.compute, "--split", &args.split]);
            command.arg("--out").arg(out.join(&name)).arg("--cache").arg(self.out.join("cache"));
            if let Some(bench) = &bench {
                command.arg("--bench").arg(bench);
            }
            if stream.is_text {
                command.arg("--backbone").arg(root().join(&args.language_model));
                command.args(TEXT.iter().flat_map(|setting| ["--set", setting]));
            }
            if let Some(samples) = stream.samples {
                command.args(["--set", &format!("training_samples={samples}")]);
            }
            command.args(more.iter().flat_map(|setting| ["--set", setting]));
            (name, command)
        };
        let alone = |seed: u64| format!("independent-{seed}");
        let of_alone = (0..args.seeds).map(|seed| one(alone(seed), "independent", seed, "given", &[]));
        self.work_off(&out, of_alone.collect())?;
        let (mut runs, mut commands) = (Vec::new(), Vec::new());
        for seed in 0..args.seeds {
            for order in ["given", "reversed"] {
                for (method, (variant, library, settings)) in &self.pairs {
                    let name = format!("{method}-{variant}-{seed}-{order}");
                    let (name, mut command) = one(name, method, seed, order, settings);
                    command.arg("--alone").arg(out.join(alone(seed)));
                    if let Some(library) = library {
                        command.arg("--library").arg(self.out.join(library));
                    }
                    runs.push(name.clone());
                    commands.push((name, command));
                }
            }
        }
        self.work_off(&out, commands)?;
        let folder = root().join("results/streams");
        let tables: [(&str, &[&str]); 8] = [
            ("json", &["--format", "json"]),
            ("txt", &[]),
            ("start.txt", &["--against", "pool.start=normal"]),
            ("fallback.txt", &["--against", "pool.fallback=nothing"]),
            ("inference.txt", &["--against", "pool.inference=prompts"]),
            ("rule.txt", &["--against", "method=sequential"]),
            ("own.txt", &["--against", "sequential"]),
            ("reuse.txt", &["--against", "reuse"]),
        ];
        // A table of differences needs runs that are alike in all but the one setting, or in all but the method.
        let differ_in = |setting: &str| {
            self.pairs.iter().any(|(method, (_, _, with))| {
                let rest: Vec<&&str> = with.iter().filter(|other| **other != setting).collect();
                let is_without = |(other, (_, _, settings)): &(&str, &Variant)| {
                    other == method && settings.iter().eq(rest.iter().copied())
                };
                with.contains(&setting) && self.pairs.iter().any(is_without)
            })
        };
        let differ_in_method = || {
            let is_partner = |variant: &str| {
                self.pairs.iter().any(|(method, (name, ..))| *method == "sequential" && *name == variant)
            };
            // The methods that reuse change more than the rule.
            let has_rule = |method: &str| method != "sequential" && !method.starts_with("reuse");
            self.pairs.iter().any(|(method, (name, ..))| has_rule(method) && is_partner(name))
        };
        // Methods as they are, whatever they change of the settings.
        let has_plain = |method: &str| {
            self.pairs.iter().any(|(known, (variant, ..))| *known == method && *variant == "plain")
        };
        let n_plain = self.pairs.iter().filter(|(_, (variant, ..))| *variant == "plain").count();
        let is_compared = |name: &str| match name {
            "own.txt" => has_plain("sequential") && n_plain > 1,
            "reuse.txt" => has_plain("reuse") && n_plain > 1,
            "rule.txt" => differ_in_method(),
            "fallback.txt" => differ_in("pool.fallback=nearest"),
            "start.txt" => differ_in("pool.start=library"),
            "inference.txt" => differ_in("pool.inference=task"),
            _ => true,
        };
        for (name, table) in tables.into_iter().filter(|(name, _)| is_compared(name)) {
            let arguments: Vec<&str> =
                std::iter::once("--pool-orders").chain(table.iter().copied()).collect();
            let is_shown =
                |run: &&String| !matches!(name, "own.txt" | "reuse.txt") || run.contains("-plain-");
            let runs: Vec<String> = runs.iter().filter(is_shown).cloned().collect();
            compare(
                program,
                &out,
                &runs,
                &arguments,
                &folder.join(format!("{}{}.{name}", stream.name, args.suffix)),
            )?;
        }
        Ok(())
    }

    fn work_off(&self, out: &Path, commands: Vec<(String, Command)>) -> Result<()> {
        work_off(self.args.jobs, commands.into_iter().map(|(name, run)| (out.join(name), run)).collect())
    }
}
