//! The model that commands share: how it is opened, and where it is.

use super::one_of::one_of;
use fwd_run::model::Template;
use fwd_run::run::ModelChanges;
use fwd_run::{Compute, WeightDtype};
use std::path::PathBuf;

/// How a model is opened.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct ModelArgs {
    /// How the model's matrices are kept in memory; without it as in the run or the configuration, else f32.
    #[arg(long, value_parser = one_of::<WeightDtype>())]
    pub(crate) dtype: Option<WeightDtype>,
    /// How the model's frozen products are computed; without it as in the run or the configuration, else in f32.
    #[arg(long, value_parser = one_of::<Compute>())]
    pub(crate) compute: Option<Compute>,
    /// How prompts are written; without it as in the run or the configuration, else as the model's chat template does if it has one and was trained with it.
    #[arg(long, value_parser = one_of::<Template>())]
    pub(crate) template: Option<Template>,
}

impl From<ModelArgs> for ModelChanges {
    fn from(args: ModelArgs) -> Self {
        let ModelArgs { dtype, compute, template } = args;
        Self { dtype, compute, template }
    }
}

/// Where a finished run's model, benchmark and features are, if not where it says.
#[derive(Debug, clap::Args)]
pub(crate) struct Places {
    /// Model directory, if it is no longer where the run found it.
    #[arg(long, value_name = "DIR")]
    pub(crate) backbone: Option<PathBuf>,
    /// Benchmark directory, if it is no longer where the run found it.
    #[arg(long, value_name = "DIR")]
    pub(crate) bench: Option<PathBuf>,
    /// Where frozen features are kept; without it `.fwd-cache` beside the run directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}
