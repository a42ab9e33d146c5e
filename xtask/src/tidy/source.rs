//! What the files of a crate say about its modules: which there are, what each defines, imports and mentions. Read as text; code under
//! `#[cfg(test)]` is left out, because tests may look at whatever they like.

use super::lexer::{Kind, Token, tokens};
use std::collections::{BTreeMap, BTreeSet};

/// The names from the root of the crate to a module; empty for the root.
pub(super) type ModulePath = Vec<String>;

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) file: String,
    pub(super) line: usize,
}

/// A name that a `use` brings into a module.
#[derive(Debug)]
pub(super) struct Import {
    pub(super) path: Vec<String>,
    /// `None` for `*`.
    pub(super) name: Option<String>,
    /// Whether it is visible outside of the module: `pub use`, `pub(crate) use`.
    pub(super) is_exported: bool,
    pub(super) at: Place,
}

/// A path in the code of a module, or a single name that looks like that of an item.
#[derive(Debug)]
pub(super) struct Mention {
    pub(super) path: Vec<String>,
    pub(super) at: Place,
}

/// A module, with a file of its own or inside of another module's file.
#[derive(Debug, Default)]
pub(super) struct Module {
    /// More than one where a `cfg_attr` chooses the file; none for a module inside of a file.
    pub(super) files: Vec<String>,
    pub(super) definitions: BTreeSet<String>,
    pub(super) imports: Vec<Import>,
    pub(super) mentions: Vec<Mention>,
}

/// The modules of a crate.
pub(super) type Modules = BTreeMap<ModulePath, Module>;

/// Reads the modules that are reached from `root_file`. `files` are text by name; a declared module without a file is skipped, since the
/// compiler reports it.
pub(super) fn modules(files: &BTreeMap<String, String>, root_file: &str) -> Modules {
    let mut all = Modules::new();
    let mut waiting = vec![(Vec::new(), root_file.to_owned(), folder(root_file).to_owned())];
    while let Some((path, file, children)) = waiting.pop() {
        let Some(text) = files.get(&file) else { continue };
        let tokens = tokens(text);
        let mut reader =
            Reader { tokens: &tokens, at: 0, file: &file, modules: &mut all, declared: Vec::new() };
        reader.modules.entry(path.clone()).or_default().files.push(file.clone());
        reader.module(&path);
        for declared in reader.declared {
            // Folders of modules inside of a file lie between that file's folder and the declared one's.
            let inside = declared.path[path.len()..declared.path.len() - 1].iter();
            let near = inside.fold(children.clone(), |folder, name| format!("{folder}{name}/"));
            let name = declared.path.last().map_or("", String::as_str);
            for file in [format!("{near}{name}.rs"), format!("{near}{name}/mod.rs")] {
                waiting.push((declared.path.clone(), file, format!("{near}{name}/")));
            }
            // A `cfg_attr` leaves the usual file to the other configuration.
            for attribute in declared.attributes {
                let file = format!("{}{attribute}", folder(&file));
                waiting.push((declared.path.clone(), file.clone(), folder(&file).to_owned()));
            }
        }
    }
    all
}

/// The folder of a file, with its closing slash.
fn folder(file: &str) -> &str {
    &file[..file.rfind('/').map_or(0, |at| at + 1)]
}

/// A `mod x;`, and the files that its `path` attributes name.
struct Declared {
    path: ModulePath,
    attributes: Vec<String>,
}

/// The attributes before an item.
#[derive(Default)]
struct Attributes {
    is_test: bool,
    paths: Vec<String>,
}

/// Goes through the tokens of one file.
struct Reader<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
    file: &'a str,
    modules: &'a mut Modules,
    declared: Vec<Declared>,
}

impl<'a> Reader<'a> {
    fn peek(&self, ahead: usize) -> Option<Token<'a>> {
        self.tokens.get(self.at + ahead).copied()
    }

    fn next_is(&self, ahead: usize, punct: &str) -> bool {
        self.peek(ahead).is_some_and(|token| token.is(punct))
    }

    fn next_is_ident(&self, ahead: usize) -> bool {
        self.peek(ahead).is_some_and(|token| token.is_ident())
    }

    fn place(&self, line: usize) -> Place {
        Place { file: self.file.to_owned(), line }
    }

    fn entry(&mut self, path: &[String]) -> &mut Module {
        self.modules.entry(path.to_vec()).or_default()
    }

    /// Reads the body of a module up to the brace that closes it, or to the end of the file.
    fn module(&mut self, path: &[String]) {
        let mut depth = 0;
        let mut is_exported = false;
        let mut attributes = Attributes::default();
        while let Some(token) = self.peek(0) {
            if token.is("#") {
                let next = self.attribute();
                attributes.is_test |= next.is_test;
                attributes.paths.extend(next.paths);
                continue;
            }
            if std::mem::take(&mut attributes.is_test) {
                self.skip_item();
                attributes = Attributes::default();
                continue;
            }
            if token.is_ident() && token.text == "pub" {
                is_exported = true;
                self.at += 1;
                if self.next_is(0, "(") {
                    self.skip_group();
                }
                continue;
            }
            let (item_exported, item_attributes) =
                (std::mem::take(&mut is_exported), std::mem::take(&mut attributes));
            match token.text {
                "{" if token.is("{") => depth += 1,
                "}" if token.is("}") => {
                    depth -= 1;
                    if depth < 0 {
                        self.at += 1;
                        return;
                    }
                }
                "mod" if token.is_ident() && self.next_is_ident(1) => {
                    self.declaration(path, item_attributes);
                    continue;
                }
                "use" if token.is_ident() && !self.next_is(1, "<") => {
                    self.at += 1;
                    self.tree(path, &[], item_exported);
                    continue;
                }
                _ if token.is_ident() => {
                    self.words(path, token, depth);
                    continue;
                }
                _ => {}
            }
            self.at += 1;
        }
    }

    /// `mod x;` or `mod x { … }`.
    fn declaration(&mut self, path: &[String], attributes: Attributes) {
        let name = self.peek(1).map_or("", |token| token.text).to_owned();
        let child: ModulePath = path.iter().cloned().chain([name]).collect();
        let is_inline = self.next_is(2, "{");
        self.at += 3;
        if is_inline {
            self.entry(&child);
            self.module(&child);
        } else {
            self.declared.push(Declared { path: child, attributes: attributes.paths });
        }
    }

    /// `#[…]` or `#![…]`.
    fn attribute(&mut self) -> Attributes {
        let start = self.at;
        self.at += if self.next_is(1, "!") { 2 } else { 1 };
        if !self.next_is(0, "[") {
            return Attributes::default();
        }
        self.skip_group();
        let words = &self.tokens[start..self.at];
        let has = |name: &str| words.iter().any(|token| token.is_ident() && token.text == name);
        // Code under `not(test)` or `any(test, …)` is part of the library; in `feature = "test"` the word is a string.
        let is_test = has("cfg") && has("test") && !has("not") && !has("any");
        let paths = words.windows(3).filter(|three| {
            three[0].is_ident() && three[0].text == "path" && three[1].is("=") && three[2].kind == Kind::Str
        });
        Attributes { is_test, paths: paths.map(|three| three[2].text.to_owned()).collect() }
    }

    /// Skips from an opening bracket to after the one that closes it.
    fn skip_group(&mut self) {
        let mut depth = 0;
        while let Some(token) = self.peek(0) {
            self.at += 1;
            match token.text {
                "(" | "[" | "{" if token.kind == Kind::Punct => depth += 1,
                ")" | "]" | "}" if token.kind == Kind::Punct => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// Skips an item: up to its semicolon or to the end of its braces.
    fn skip_item(&mut self) {
        while let Some(token) = self.peek(0) {
            match token.text {
                ";" if token.is(";") => {
                    self.at += 1;
                    return;
                }
                "{" if token.is("{") => return self.skip_group(),
                "(" | "[" if token.kind == Kind::Punct => self.skip_group(),
                // The item was the last of a group.
                ")" | "]" | "}" if token.kind == Kind::Punct => return,
                _ => self.at += 1,
            }
        }
    }

    /// A tree of `use` after `prefix`, up to its end.
    fn tree(&mut self, module: &[String], prefix: &[String], is_exported: bool) {
        let mut path = prefix.to_vec();
        let mut line = self.peek(0).map_or(0, |token| token.line);
        let mut is_group = false;
        while let Some(token) = self.peek(0) {
            if token.is(",") || token.is(";") || token.is("}") {
                break;
            }
            self.at += 1;
            if token.is("{") {
                is_group = true;
                while self.peek(0).is_some_and(|token| !token.is("}")) {
                    self.tree(module, &path, is_exported);
                    if self.next_is(0, ",") {
                        self.at += 1;
                    }
                    if self.next_is(0, ";") {
                        break;
                    }
                }
                self.at += 1;
            } else if token.is("*") {
                is_group = true;
                let at = self.place(token.line);
                self.entry(module).imports.push(Import { path: path.clone(), name: None, is_exported, at });
            } else if token.is_ident() && token.text == "as" {
                let name = self.peek(0).map(|token| token.text.to_owned());
                self.at += 1;
                self.import(module, path, name, is_exported, line);
                return;
            } else if token.is_ident() {
                line = token.line;
                // `a::{self}` is `a`.
                if token.text != "self" || path.is_empty() {
                    path.push(token.text.to_owned());
                }
            }
        }
        if !is_group && !path.is_empty() {
            let name = path.last().cloned();
            self.import(module, path, name, is_exported, line);
        }
    }

    fn import(
        &mut self,
        module: &[String],
        path: Vec<String>,
        name: Option<String>,
        is_exported: bool,
        line: usize,
    ) {
        let at = self.place(line);
        self.entry(module).imports.push(Import { path, name, is_exported, at });
    }

    /// What begins with a name in code: a definition, a path or a single name.
    fn words(&mut self, module: &[String], first: Token<'a>, depth: i32) {
        const KEYWORDS: [&str; 8] = ["fn", "struct", "enum", "union", "trait", "type", "const", "static"];
        let is_definition = KEYWORDS.contains(&first.text) && self.next_is_ident(1);
        let is_macro = first.text == "macro_rules" && self.next_is(1, "!") && self.next_is_ident(2);
        if is_definition || is_macro {
            self.at += if is_macro { 2 } else { 1 };
            let name = self.peek(0).map_or("", |token| token.text);
            // `const fn f`, `static mut X`: the name comes later.
            let is_name = !KEYWORDS.contains(&name) && !["mut", "unsafe", "async", "extern"].contains(&name);
            if is_name {
                self.at += 1;
                if depth == 0 {
                    self.entry(module).definitions.insert(name.to_owned());
                }
            }
            return;
        }
        let before = self.at.checked_sub(1).and_then(|at| self.tokens.get(at)).copied();
        let follows = |punct: &str| before.is_some_and(|token| token.is(punct));
        let mut path = vec![first.text.to_owned()];
        self.at += 1;
        while self.next_is(0, "::") && self.next_is_ident(1) {
            path.extend(self.peek(1).map(|token| token.text.to_owned()));
            self.at += 2;
        }
        // A path that goes on from a type or from the crates outside names no module of this crate.
        if follows("::") {
            return;
        }
        if path.len() == 1 {
            let is_type = first.text.starts_with(char::is_uppercase);
            let is_called = self.next_is(0, "(") || self.next_is(0, "!") || self.next_is(0, "::");
            if follows(".") || !(is_type || is_called) {
                return;
            }
        }
        let at = self.place(first.line);
        self.entry(module).mentions.push(Mention { path, at });
    }
}
