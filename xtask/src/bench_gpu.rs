//! `cargo xtask bench gpu`: what `run.sh` of the bundle measured, ours beside PyTorch's, as a table.

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;
use std::fmt::Write;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(crate) struct GpuArgs {
    /// The folder that `run.sh` left: `gpu.json`, and `torch.json` if PyTorch was there.
    results: PathBuf,
}

#[allow(clippy::print_stdout)]
pub(crate) fn gpu(args: &GpuArgs) -> Result<()> {
    let ours = read(&args.results.join("gpu.json"))?;
    let torch = read(&args.results.join("torch.json")).ok();
    print!("{}", table(&ours, torch.as_ref())?);
    Ok(())
}

fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))
}

/// One row a case, in our file's order: times, ratio, and the speed beside what PyTorch's copy of as many bytes reaches.
fn table(ours: &Value, torch: Option<&Value>) -> Result<String> {
    let ms = ours["ms"].as_object().context("gpu.json has no timings")?;
    let mut text = format!("{}\n", ours["device"].as_str().unwrap_or("an unnamed device"));
    if let Some(torch) = torch {
        writeln!(
            text,
            "PyTorch {} on {}",
            torch["torch"].as_str().unwrap_or("?"),
            torch["device"].as_str().unwrap_or("?")
        )?;
    }
    text.push_str("\n| work | ours, ms | PyTorch, ms | PyTorch / ours | speed | of a copy |\n|---|---|---|---|---|---|\n");
    let peer = |name: &str| torch.and_then(|torch| torch["ms"][name].as_f64());
    for (name, time) in ms {
        let mine = time.as_f64().with_context(|| format!("the time of {name} is no number"))?;
        let theirs = peer(name);
        let (bytes, flop) = (ours["work"][name]["bytes"].as_f64(), ours["work"][name]["flop"].as_f64());
        let (speed, share) = match (bytes, flop) {
            (Some(bytes), _) if bytes > 0.0 => {
                let rate = bytes / mine / 1e6;
                let share = copy_rate(torch, name)
                    .map_or(String::new(), |copy| format!("{:.0} %", 100.0 * rate / copy));
                (format!("{rate:.0} GB/s"), share)
            }
            (_, Some(flop)) if flop > 0.0 => (format!("{:.1} TFLOP/s", flop / mine / 1e9), String::new()),
            _ => (String::new(), String::new()),
        };
        let theirs_text = theirs.map_or(String::new(), |t| format!("{t:.4}"));
        let ratio = theirs.map_or(String::new(), |t| format!("{:.2}", t / mine));
        writeln!(text, "| {name} | {mine:.4} | {theirs_text} | {ratio} | {speed} | {share} |")?;
    }
    Ok(text)
}

/// GB/s of PyTorch's fastest copy in the type at the end of the name.
fn copy_rate(torch: Option<&Value>, name: &str) -> Option<f64> {
    let dtype = name.rsplit(' ').next()?;
    let size = if dtype == "f32" { 4.0 } else { 2.0 };
    let rates = torch?["ms"].as_object()?.iter().filter_map(|(copy, ms)| {
        let shape = copy.strip_prefix("copy ")?.strip_suffix(dtype)?.trim();
        let elements: f64 = shape.split('x').map(|n| n.parse::<f64>().unwrap_or(f64::NAN)).product();
        Some(2.0 * elements * size / ms.as_f64()? / 1e6)
    });
    rates.max_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::table;
    use serde_json::json;

    #[test]
    fn times_become_ratios_and_speeds() {
        let ours = json!({
            "device": "a GPU",
            "ms": { "projection 2x4x1 f32": 0.5, "rms_norm 1000x1000 f32": 0.01 },
            "work": { "projection 2x4x1 f32": { "bytes": 0, "flop": 1_000_000_000u64 }, "rms_norm 1000x1000 f32": { "bytes": 8_000_000, "flop": 0 } },
        });
        let torch = json!({ "torch": "2", "device": "a GPU", "ms": { "projection 2x4x1 f32": 1.0, "copy 1000x1000 f32": 0.008 } });
        let text = table(&ours, Some(&torch)).unwrap();
        assert!(
            text.contains("| projection 2x4x1 f32 | 0.5000 | 1.0000 | 2.00 | 2.0 TFLOP/s |  |"),
            "{text}"
        );
        assert!(text.contains("| rms_norm 1000x1000 f32 | 0.0100 |  |  | 800 GB/s | 80 % |"), "{text}");
        assert!(table(&ours, None).unwrap().contains("| 0.5000 |  |"));
    }
}
