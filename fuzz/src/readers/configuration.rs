//! The files that say what to do: the configuration of a run, and the recipe of a pre-training.

use crate::folder::Folder;
use crate::reader::{Reader, Seed};
use anyhow::{Context, Result};
use fwd_run::RunConfig;
use fwd_run::pretraining::Recipe;
use std::path::Path;

/// The configuration that the program's README shows, and the embedded model's recipe.
pub(crate) fn configuration(folder: &Path) -> Result<Reader> {
    const RECIPE: &str = "recipe.toml";
    let readme = std::fs::read_to_string(crate::reader::root().join("crates/fwd-cli/README.md"))?;
    let shown = readme.split_once("```toml\n").and_then(|(_, rest)| rest.split_once("```"));
    let (text, _) = shown.context("a configuration in the README")?;
    let seeds = vec![Seed::new("run.toml", text), Seed::copy(RECIPE, "assets/mini/recipe.toml")?];
    let mut folder = Folder::new(folder, &seeds)?;
    Ok(Reader::new(seeds, move |input| {
        let path = folder.damage(input)?;
        if input.file == RECIPE {
            Recipe::read(&path)?;
            return Ok(());
        }
        RunConfig::read(Some(&path), &[])?.check()?;
        // As `--set` has it: each line is an assignment.
        let text = String::from_utf8_lossy(&input.bytes);
        let assignments: Vec<String> =
            text.lines().filter(|line| line.contains('=')).map(str::to_owned).collect();
        let _ = RunConfig::read(None, &assignments).map(|config| config.check());
        Ok(())
    }))
}
