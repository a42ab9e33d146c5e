//! The house rules that no lint knows: each source file says what it is, stays readable in length, leaves nothing to do,
//! and `unsafe` lives in the kernel crate alone.

use crate::{command, output, root};
use anyhow::{Result, ensure};
use std::fs;

const MAX_LINES: usize = 800;

pub(crate) fn run() -> Result<()> {
    let listed =
        output(&mut command("git", &["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"]))?;
    let mut found = Vec::new();
    for name in listed.lines() {
        let Ok(text) = fs::read_to_string(root().join(name)) else { continue };
        found.extend(check(name, &text).into_iter().map(|what| format!("{name}: {what}")));
    }
    ensure!(found.is_empty(), "{} house rules are broken:\n{}", found.len(), found.join("\n"));
    Ok(())
}

/// What is wrong with one file.
fn check(name: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !text.starts_with("//!") {
        found.push("must open with `//!`: what it is, the equation, where it comes from".into());
    }
    let n_lines = text.lines().count();
    if n_lines > MAX_LINES {
        found.push(format!("{n_lines} lines, at most {MAX_LINES}"));
    }
    // Spelt in two parts, so that this file keeps its own rules.
    let marker = ["TO", "DO"].concat();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| line.contains(&marker)) {
        found.push(format!("line {}: {}", number + 1, line.trim()));
    }
    let is_crate_root =
        name.ends_with("src/lib.rs") || name.ends_with("src/main.rs") || name.contains("src/bin/");
    if is_crate_root && !name.starts_with("kernels/") && !text.contains("#![forbid(unsafe_code)]") {
        found.push("a crate outside kernels/ must forbid unsafe code".into());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn a_file_that_keeps_the_rules_passes() {
        assert!(check("crates/x/src/lib.rs", "//! What.\n#![forbid(unsafe_code)]\n").is_empty());
    }

    #[test]
    fn each_rule_is_found_broken() {
        assert!(check("crates/x/src/a.rs", "fn f() {}\n")[0].contains("must open with"));
        let long = format!("//! What.\n{}", "\n".repeat(900));
        assert!(check("crates/x/src/a.rs", &long)[0].contains("901 lines"));
        let left = format!("//! What.\n// {}: later\n", ["TO", "DO"].concat());
        assert!(check("crates/x/src/a.rs", &left)[0].starts_with("line 2"));
        assert!(check("crates/x/src/lib.rs", "//! What.\n")[0].contains("forbid unsafe"));
        assert!(check("kernels/src/lib.rs", "//! What.\n").is_empty());
    }
}
