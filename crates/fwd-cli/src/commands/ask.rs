//! `ask`: an image, a question, the answer; or what the language model is given.

use super::session;
use crate::args::{AskArgs, Common};
use crate::{output, progress};
use anyhow::{Context, Result, ensure};
use fwd_data::{Alpha, ImageLimits, Orientation, RgbImage, blank_image};
use fwd_prompt::{PromptPool, Selection};
use fwd_run::assets;
use fwd_run::model::{Backbone, ModelTokenizers, ShownPrompt};
use fwd_run::run::{SavedRun, answer_with_adapters};
use serde::Serialize;
use std::path::Path;
use std::process::ExitCode;

/// A photograph of one's own is shown as a viewer of images would show it; those of data sets are read as they are stored.
const UPRIGHT: Orientation = Orientation::Upright;

/// An answer as JSON.
#[derive(Serialize)]
struct Reply {
    answer: String,
    /// The places of the prompts in front, best first.
    prompts: Vec<usize>,
    /// The score of each of them.
    similarities: Vec<f32>,
}

/// The command `ask`.
///
/// # Errors
/// An image that cannot be read or is too large, prompts of another model, a question that is too long for the model.
pub(super) fn command(args: &AskArgs, common: &Common) -> Result<ExitCode> {
    let (run, question) = match &args.second {
        None => (None, &args.first),
        Some(question) => (Some(Path::new(&args.first)), question),
    };
    ensure!(!question.trim().is_empty(), "the question is empty");
    ensure!(args.max_new_tokens > 0, "--max-new-tokens is 0, must be at least 1");
    // The image first: it fails at once, the model takes time.
    let image = args.image.as_deref().map(read_image).transpose()?;
    let run = run.map(SavedRun::read).transpose()?;
    let dir = match (&args.backbone, &run) {
        (Some(dir), _) => dir.clone(),
        (None, Some(run)) => run.manifest().backbone_dir()?,
        (None, None) => assets::backbone()?,
    };
    let (image, origin) = match image {
        Some(image) => image,
        None => {
            let reads_images = ModelTokenizers::open(&dir, None)?.reader().reads_images();
            ensure!(
                !reads_images,
                "{} answers questions about an image: name it with --image FILE",
                dir.display()
            );
            (blank_image()?, "no image".to_owned())
        }
    };
    let options = session::model_options(args.model, run.as_ref());
    let backbone = Backbone::open(&dir, options, &args.device.open()?)?;
    for remark in &backbone.remarks {
        progress::note(remark);
    }
    let pool = match &run {
        Some(run) => {
            run.check_backbone(&backbone.hash, &dir)?;
            run.pool(&*backbone.model, args.task.as_deref())?
        }
        None => PromptPool::new(backbone.model.prompt_dims(), 1, 1),
    };
    let sample = backbone
        .features(&image, &origin, UPRIGHT, question)
        .context("the model cannot read the question")?;
    if let Some(what) = backbone.bridge_cut(question)? {
        progress::note(&what);
    }
    if args.show_prompt {
        let shown = backbone.shown_prompt(question, &sample, &pool)?;
        return show(&shown, common);
    }
    if let Some(run) = run.filter(|run| run.manifest().run.config.method.has_adapters()) {
        let answer = answer_with_adapters(&run, &backbone, &sample, args.max_new_tokens)?;
        return reply(Reply { answer, prompts: Vec::new(), similarities: Vec::new() }, common);
    }
    let answers = backbone.answer(&[&sample], &pool, args.max_new_tokens)?;
    let answer = answers.into_iter().next().context("the model returned no answer")?;
    if !pool.is_empty() && answer.selection.prompts.is_empty() {
        tracing::warn!("nothing that was learnt is for this question; the model answers without prompts");
    }
    let Selection { prompts, scores } = answer.selection;
    reply(Reply { answer: answer.text, prompts, similarities: scores }, common)
}

/// Prints an answer.
fn reply(reply: Reply, common: &Common) -> Result<ExitCode> {
    if common.json {
        output::print_json(&reply)?;
    } else {
        output::print(&output::one_line(&reply.answer))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// An image that can be decoded, and what it is called in errors.
fn read_image(path: &Path) -> Result<(Vec<u8>, String)> {
    let (origin, limits) = (path.display().to_string(), ImageLimits::default());
    let image = fwd_files::read(path, limits.max_file).with_context(|| origin.clone())?;
    RgbImage::decode_with(&image, &origin, limits, Alpha::default(), UPRIGHT)?;
    Ok((image, origin))
}

/// Prints what the language model is given.
fn show(shown: &ShownPrompt, common: &Common) -> Result<ExitCode> {
    if common.json {
        output::print_json(shown)?;
    } else {
        output::print(&format!("{shown}\n\n{} tokens", shown.n_tokens))?;
    }
    Ok(ExitCode::SUCCESS)
}
