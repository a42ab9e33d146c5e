//! The house rules that no lint knows: how a source file reads, which crate may use which, no circle of modules, and an introduction to
//! every crate.

mod circles;
mod crates;
mod files;
mod lexer;
mod source;

use crate::shell::{command, output, root};
use crate::workspace::Crate;
use anyhow::{Result, ensure};
use files::File;
use std::collections::BTreeMap;
use std::fs;

/// A rule and where it is broken, one place a line.
struct Rule {
    broken: String,
    remedy: &'static str,
    places: Vec<String>,
}

/// Checks the whole repository; the error lists every place where a rule is broken.
pub(crate) fn run() -> Result<()> {
    let listed = output(&mut command("git", &["ls-files", "--cached", "--others", "--exclude-standard"]))?;
    // A file that is deleted but not committed is still listed.
    let names: Vec<&str> = listed.lines().filter(|name| root().join(name).exists()).collect();
    let mut sources = BTreeMap::new();
    for &name in names.iter().filter(|name| name.ends_with(".rs")) {
        sources.insert(name.to_owned(), fs::read_to_string(root().join(name))?);
    }
    let rules = rules(&sources, &Crate::here()?, &names);
    ensure!(rules.is_empty(), "{}", told(&rules));
    Ok(())
}

/// The rules that are broken.
fn rules(sources: &BTreeMap<String, String>, crates: &[Crate], names: &[&str]) -> Vec<Rule> {
    let in_files = |check: fn(File) -> Vec<String>| {
        sources.iter().flat_map(|(name, text)| check(File { name, text })).collect()
    };
    let rule = |broken: &str, remedy, places| Rule { broken: broken.to_owned(), remedy, places };
    let root_files = crates.iter().flat_map(|package| package.root_files(&root()));
    let circles = root_files.flat_map(|file| circles::circles(sources, &file)).collect();
    let mut all = vec![
        rule(
            "Files that do not open with `//!`",
            "say in the first line what the file is, the equation, where it comes from",
            in_files(files::opening),
        ),
        rule(
            &format!("Files of more than {} lines", files::MAX_LINES),
            "split them along their subjects",
            in_files(files::length),
        ),
        rule(
            "Marks of unfinished work",
            "finish it, or file an issue and delete the mark",
            in_files(files::leftovers),
        ),
        rule(
            "Crates outside kernels/ that do not forbid unsafe code",
            "add `#![forbid(unsafe_code)]`",
            in_files(files::unsafe_code),
        ),
        rule(
            &format!("Documentation of at most {} characters", files::MAX_EMPTY_DOC),
            "give the thing a better name, or say its unit, shape, dtype or range",
            in_files(files::empty_docs),
        ),
        rule(
            "Crate arrows that do not point down",
            "move what both crates need into the lower one",
            crates::arrows(crates),
        ),
        rule("Circles of modules", "move what both sides need into a module of its own, below both", circles),
        rule(
            "Crates without an introduction",
            "write the README.md that crates.io shows, and a program in examples/ that runs",
            crates::introductions(crates, &root(), names),
        ),
    ];
    all.retain(|rule| !rule.places.is_empty());
    all
}

/// The broken rules, each with what to do and its places below.
fn told(rules: &[Rule]) -> String {
    let n_places: usize = rules.iter().map(|rule| rule.places.len()).sum();
    let mut text = format!("the house rules are broken in {n_places} places");
    for Rule { broken, remedy, places } in rules {
        text += &format!("\n\n{broken} ({}): {remedy}.", places.len());
        for place in places {
            text += &format!("\n  {place}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Rule, told};

    #[test]
    fn findings_are_grouped_by_rule() {
        let rule = |broken: &str, places: &[&str]| Rule {
            broken: broken.into(),
            remedy: "mend it",
            places: places.iter().map(|&place| place.into()).collect(),
        };
        assert_eq!(
            told(&[rule("Long files", &["a.rs", "b.rs"]), rule("Circles", &["a → b → a"])]),
            "the house rules are broken in 3 places\n\n\
             Long files (2): mend it.\n  a.rs\n  b.rs\n\n\
             Circles (1): mend it.\n  a → b → a"
        );
    }
}
