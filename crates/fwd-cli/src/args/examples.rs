//! The examples that help shows.

pub(super) const DEMO_EXAMPLES: &str = "\
Examples:
  fwd-prompt demo --quick            does everything work? half a minute
  fwd-prompt demo                    the methods compared, a few minutes";

pub(super) const TRAIN_EXAMPLES: &str = "\
Examples:
  fwd-prompt train --method fwd --tasks flags,posters --steps 50
  fwd-prompt train --config run.toml --seed 1 --out runs/fwd-1
  fwd-prompt train --backbone instructblip-flan-t5-xl --bench cl_dataset --skip-bad --set limits.too_long=cut";

pub(super) const EVAL_EXAMPLES: &str = "\
Examples:
  fwd-prompt eval runs/fwd-1 --split val
  fwd-prompt eval runs/fwd-1 --task flags --predictions answers";

pub(super) const ASK_EXAMPLES: &str = "\
Examples:
  fwd-prompt ask --image photo.jpg \"what color is it\"
  fwd-prompt ask runs/fwd-1 --image flag.png \"which country has this flag\"
  fwd-prompt ask --backbone llava-1.5-7b-hf --dtype q4 --image photo.jpg --show-prompt \"what color is it\"";

pub(super) const SCORE_EXAMPLES: &str = "\
Examples:
  fwd-prompt score answers.jsonl --task textvqa --bench cl_dataset
  fwd-prompt score answers.jsonl --task flags --out scored.jsonl --peer-compat";

pub(super) const METRICS_EXAMPLES: &str = "\
Examples:
  fwd-prompt metrics matrix.csv
  fwd-prompt metrics runs/fwd-1
  fwd-prompt metrics results/CoIN/LLaVA --bench cl_dataset";

pub(super) const COMPARE_EXAMPLES: &str = "\
Examples:
  fwd-prompt compare runs/*-seed-*
  fwd-prompt compare runs/* --against sequential --format latex --out table.tex";

pub(super) const REPORT_EXAMPLES: &str = "\
Examples:
  fwd-prompt report runs/demo/* --out report";

pub(super) const CHECK_EXAMPLES: &str = "\
Examples:
  fwd-prompt data check cl_dataset
  fwd-prompt data check cl_dataset --backbone instructblip-flan-t5-xl --skip-bad";

pub(super) const CONVERT_EXAMPLES: &str = "\
Examples:
  fwd-prompt data convert cl_dataset packed --to packed
  fwd-prompt data convert packed cl_dataset --to coin --tasks flags,posters";
