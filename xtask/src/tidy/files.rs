//! Rules for one source file at a time: it says what it is, stays readable in length, leaves nothing to do, keeps away from `unsafe`,
//! and its documentation says something.

/// A file by its name in the repository.
#[derive(Debug, Clone, Copy)]
pub(super) struct File<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
}

pub(super) const MAX_LINES: usize = 600;

/// The longest doc comment, from its slashes on, that is too short to say anything.
pub(super) const MAX_EMPTY_DOC: usize = 14;

pub(super) fn opening(file: File) -> Vec<String> {
    let opens =
        file.text.starts_with("//!") || file.text.starts_with("#![doc = include_str!(\"../README.md\")]");
    if opens { Vec::new() } else { vec![format!("{}:1", file.name)] }
}

pub(super) fn length(file: File) -> Vec<String> {
    let n_lines = file.text.lines().count();
    if n_lines <= MAX_LINES { Vec::new() } else { vec![format!("{}: {n_lines} lines", file.name)] }
}

pub(super) fn leftovers(file: File) -> Vec<String> {
    // Spelt in two parts, so that this file keeps its own rules.
    let marker = ["TO", "DO"].concat();
    let lines = file.text.lines().enumerate().filter(|(_, line)| line.contains(&marker));
    lines.map(|(index, line)| format!("{}:{}: {}", file.name, index + 1, line.trim())).collect()
}

pub(super) fn unsafe_code(file: File) -> Vec<String> {
    let File { name, text } = file;
    let is_root = name.ends_with("src/lib.rs") || name.ends_with("src/main.rs") || name.contains("src/bin/");
    // One call of `fwd-files` maps a file; `fwd-simd` is made of vector instructions.
    let rule = if matches!(name, "crates/fwd-files/src/lib.rs" | "crates/fwd-simd/src/lib.rs") {
        "#![deny(unsafe_code)]"
    } else {
        "#![forbid(unsafe_code)]"
    };
    let may = name.starts_with("kernels/") || text.contains(rule);
    if is_root && !may { vec![name.to_owned()] } else { Vec::new() }
}

pub(super) fn empty_docs(file: File) -> Vec<String> {
    let is_doc = |line: &str| {
        let line = line.trim_start();
        line.starts_with("//!") || (line.starts_with("///") && !line.starts_with("////"))
    };
    let lines: Vec<&str> = file.text.lines().collect();
    let mut all = Vec::new();
    let mut start = 0;
    for block in lines.chunk_by(|a, b| is_doc(a) && is_doc(b)) {
        let is_short = |line: &&str| line.trim().chars().count() <= MAX_EMPTY_DOC;
        if is_doc(block[0]) && block.iter().all(is_short) {
            all.push(format!("{}:{}: {}", file.name, start + 1, block[0].trim()));
        }
        start += block.len();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::{File, empty_docs, leftovers, length, opening, unsafe_code};

    fn file<'a>(name: &'a str, text: &'a str) -> File<'a> {
        File { name, text }
    }

    /// What all rules find in one file.
    fn check(name: &str, text: &str) -> Vec<String> {
        let rules = [opening, length, leftovers, unsafe_code, empty_docs];
        rules.iter().flat_map(|rule| rule(file(name, text))).collect()
    }

    #[test]
    fn a_file_that_keeps_the_rules_passes() {
        assert!(check("crates/x/src/lib.rs", "//! What it is.\n#![forbid(unsafe_code)]\n").is_empty());
    }

    #[test]
    fn each_rule_is_found_broken() {
        assert_eq!(opening(file("crates/x/src/a.rs", "fn f() {}\n")), ["crates/x/src/a.rs:1"]);
        assert!(
            opening(file("crates/x/src/lib.rs", "#![doc = include_str!(\"../README.md\")]\n")).is_empty()
        );
        let lines = |n: usize| format!("//! What.\n{}", "\n".repeat(n - 1));
        assert_eq!(length(file("crates/x/src/a.rs", &lines(601))), ["crates/x/src/a.rs: 601 lines"]);
        assert!(length(file("crates/x/src/a.rs", &lines(600))).is_empty());
        let left = format!("//! What.\n// {}: later\n", ["TO", "DO"].concat());
        assert!(leftovers(file("crates/x/src/a.rs", &left))[0].starts_with("crates/x/src/a.rs:2: //"));
        assert_eq!(unsafe_code(file("crates/x/src/lib.rs", "//! What.\n")), ["crates/x/src/lib.rs"]);
        assert_eq!(unsafe_code(file("crates/x/src/bin/y.rs", "//! What.\n")), ["crates/x/src/bin/y.rs"]);
        assert!(unsafe_code(file("crates/x/src/a.rs", "//! What.\n")).is_empty());
        let denied = "//! What.\n#![deny(unsafe_code)]\n";
        assert_eq!(unsafe_code(file("crates/x/src/lib.rs", denied)), ["crates/x/src/lib.rs"]);
        assert!(unsafe_code(file("crates/fwd-files/src/lib.rs", denied)).is_empty());
        assert!(unsafe_code(file("kernels/src/lib.rs", "//! What.\n")).is_empty());
    }

    #[test]
    fn documentation_of_one_word_is_found() {
        let text = "//! What it is about.\n\nstruct S {\n    /// d.\n    d: usize,\n    /// Rows of a batch.\n    n: usize,\n}\n";
        assert_eq!(empty_docs(file("a.rs", text)), ["a.rs:4: /// d."]);
        // Fourteen characters, and fifteen.
        assert_eq!(empty_docs(file("a.rs", "/// 1234567890\n")).len(), 1);
        assert!(empty_docs(file("a.rs", "/// 12345678901\n")).is_empty());
    }

    #[test]
    fn a_short_line_of_a_longer_text_is_fine() {
        assert!(empty_docs(file("a.rs", "/// # Errors\n/// If the file is not there.\n")).is_empty());
        assert!(
            empty_docs(file("a.rs", "/// The mean of the rows, in f32.\n///\n/// Fast.\nfn f() {}\n"))
                .is_empty()
        );
        assert!(empty_docs(file("a.rs", "// a.\n//// b.\n")).is_empty());
    }
}
