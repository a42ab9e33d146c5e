//! The cells of a table, out of any text that people keep one in: separated by commas, semicolons or tabs; aligned by blanks, as pandas
//! prints and `numpy.savetxt` writes; between bars, as Markdown; or in brackets, as NumPy prints and JSON writes.

use crate::error::{EvalError, Result};
use crate::lines::Lines;
use std::io::BufRead;

/// Bytes after which an open quotation mark counts as forgotten.
const MAX_OPEN: usize = 1 << 13;

/// The cells of a row, at least one, without blanks around them.
#[derive(Debug, PartialEq)]
pub(crate) struct Record {
    /// The line in which it begins.
    pub(crate) line: usize,
    pub(crate) cells: Vec<String>,
    /// Whether blanks stand before its first cell.
    pub(crate) is_indented: bool,
}

/// The rows of a text; lines without any cell are passed over.
pub(crate) fn records(reader: impl BufRead, file: &str) -> Result<Vec<Record>> {
    let mut lines = Lines::new(reader, file);
    let mut texts = Vec::new();
    while let Some(text) = lines.next_line()? {
        if !text.trim().is_empty() {
            texts.push((lines.number, text));
        }
    }
    let Some((_, first)) = texts.first_mut() else { return Ok(Vec::new()) };
    // `numpy.savetxt` puts a mark before its header.
    if let Some(rest) = first.trim_start().strip_prefix('#') {
        *first = rest.trim_start().to_owned();
    }
    if first.trim_start().starts_with('{') {
        return Err(EvalError::NotATable {
            file: file.to_owned(),
            line: 1,
            column: 1,
            what: "a JSON object is no matrix: give CSV, a list of rows, or the run directory".to_owned(),
        });
    }
    if is_in_brackets(&texts) {
        return in_brackets(&texts, file);
    }
    match separator(&texts) {
        Some(separator) => separated(texts, separator, file),
        None => Ok(aligned(&texts)),
    }
}

/// What separates cells; none: blanks.
fn separator(texts: &[(usize, String)]) -> Option<char> {
    let all = || texts.iter().flat_map(|(_, text)| unquoted(text));
    if texts.iter().all(|(_, text)| text.trim_start().starts_with('|')) {
        return Some('|');
    }
    if all().any(|c| c == ';') {
        return Some(';');
    }
    let is_decimal = |text: &str| {
        let chars: Vec<char> = text.chars().collect();
        let is_digit = |at: Option<usize>| at.and_then(|at| chars.get(at)).is_some_and(char::is_ascii_digit);
        chars
            .iter()
            .enumerate()
            .all(|(i, c)| *c != ',' || is_digit(i.checked_sub(1)) && is_digit(Some(i + 1)))
    };
    if all().any(|c| c == '\t') && texts.iter().all(|(_, text)| is_decimal(text)) {
        return Some('\t');
    }
    all().any(|c| c == ',').then_some(',')
}

/// The characters outside of quotation marks.
fn unquoted(text: &str) -> impl Iterator<Item = char> + '_ {
    let mut is_inside = false;
    text.chars().filter(move |c| {
        is_inside ^= *c == '"';
        !is_inside
    })
}

/// Rows whose cells a mark separates, in quotation marks or not (RFC 4180).
fn separated(texts: Vec<(usize, String)>, separator: char, file: &str) -> Result<Vec<Record>> {
    let mut texts = texts.into_iter().peekable();
    let mut records = Vec::new();
    while let Some((line, mut text)) = texts.next() {
        if separator == '|' {
            // A rule below the header of Markdown.
            if text.chars().all(|c| "|-: \t".contains(c)) && text.contains("--") {
                continue;
            }
            let inner = text.trim();
            let inner = inner.strip_prefix('|').unwrap_or(inner);
            text = inner.strip_suffix('|').unwrap_or(inner).to_owned();
        }
        let cells = loop {
            let Broken { column, open } = match cells(&text, separator) {
                Ok(cells) => break cells,
                Err(broken) => broken,
            };
            // A cell in quotation marks may go on in the next line.
            let next = if open && text.len() < MAX_OPEN { texts.next() } else { None };
            let Some((_, next)) = next else {
                return Err(EvalError::Quotes { file: file.to_owned(), line, column });
            };
            text.push('\n');
            text.push_str(&next);
        };
        if cells.iter().any(|cell| !cell.is_empty()) {
            records.push(Record { line, cells, is_indented: false });
        }
    }
    Ok(records)
}

/// A cell whose quotation marks are wrong: still open at the end, or not at the end of the cell.
struct Broken {
    column: usize,
    open: bool,
}

fn cells(text: &str, separator: char) -> std::result::Result<Vec<String>, Broken> {
    let mut cells = Vec::new();
    let mut rest = Some(text);
    while let Some(text) = rest {
        let column = cells.len() + 1;
        let start = text.trim_start_matches(|c: char| c.is_whitespace() && c != separator);
        let (cell, after) = match start.strip_prefix('"') {
            None => match text.split_once(separator) {
                Some((cell, after)) => (cell.trim().to_owned(), Some(after)),
                None => (text.trim().to_owned(), None),
            },
            Some(quoted) => {
                let (cell, after) = unquote(quoted).ok_or(Broken { column, open: true })?;
                let after = after.trim_start_matches(|c: char| c.is_whitespace() && c != separator);
                match after.strip_prefix(separator) {
                    None if !after.is_empty() => return Err(Broken { column, open: false }),
                    after => (cell, after),
                }
            }
        };
        cells.push(cell);
        rest = after;
    }
    Ok(cells)
}

/// The text up to the closing quotation mark, and what follows it.
fn unquote(mut rest: &str) -> Option<(String, &str)> {
    let mut cell = String::new();
    loop {
        let (before, after) = rest.split_once('"')?;
        cell.push_str(before);
        match after.strip_prefix('"') {
            Some(after) => {
                cell.push('"');
                rest = after;
            }
            None => return Some((cell, after)),
        }
    }
}

/// Rows that blanks align. Two blanks or more separate cells where that gives a table, for names may have single ones.
fn aligned(texts: &[(usize, String)]) -> Vec<Record> {
    let is_rule =
        |text: &str| text.trim().chars().count() > 2 && text.trim().chars().all(|c| "─-=".contains(c));
    let split = |text: &str, apart: &str| -> Vec<String> {
        let cells = text.trim().split(apart).filter(|cell| !cell.is_empty());
        cells.map(|cell| cell.trim().trim_matches('"').to_owned()).collect()
    };
    let mut rows: Vec<&(usize, String)> = texts.iter().collect();
    if rows.get(1).is_some_and(|(_, text)| is_rule(text)) {
        rows.remove(1);
    }
    let wide = |text: &str| split(&text.replace('\t', "  "), "  ");
    // pandas gives the name of the index a line of its own.
    if rows.len() > 2 && wide(&rows[1].1).len() == 1 && rows[2..].iter().all(|(_, text)| wide(text).len() > 1)
    {
        rows.remove(1);
    }
    let narrow = |text: &str| -> Vec<String> {
        text.split_whitespace().map(|cell| cell.trim_matches('"').to_owned()).collect()
    };
    let n_wide: Vec<usize> = rows.iter().map(|(_, text)| wide(text).len()).collect();
    let is_wide = match n_wide.split_first() {
        Some((first, others)) => {
            let most = others.iter().max().copied().unwrap_or_default();
            others.iter().all(|n| *n > 1) && (*first == most || *first + 1 == most)
        }
        None => false,
    };
    let record = |(line, text): &(usize, String)| Record {
        line: *line,
        cells: if is_wide { wide(text) } else { narrow(text) },
        is_indented: text.starts_with(char::is_whitespace),
    };
    rows.into_iter().map(record).collect()
}

/// Whether the text is a list in brackets: `[[…`, `array([[…`, `scores = [[…`.
fn is_in_brackets(texts: &[(usize, String)]) -> bool {
    let first = texts.first().map(|(_, text)| text.as_str()).unwrap_or_default();
    let Some((before, _)) = first.split_once('[') else { return false };
    let is_name = before.chars().all(|c| c.is_alphanumeric() || "_.=( ".contains(c));
    before.trim().is_empty() || is_name && before.contains(['(', '='])
}

/// The rows of a list of lists, or the one of a list.
fn in_brackets(texts: &[(usize, String)], file: &str) -> Result<Vec<Record>> {
    let mut list = List { file, rows: Vec::new(), depth: 0, row: Row::default() };
    let mut is_over = false;
    for (i, (line, text)) in texts.iter().enumerate() {
        let text = if i == 0 { &text[text.find('[').unwrap_or(0)..] } else { text.as_str() };
        let mut chars = text.chars();
        while let Some(c) = chars.next().filter(|_| !is_over) {
            list.take(c, *line)?;
            is_over = list.depth == 0;
        }
        list.end_cell();
        // What NumPy and others write behind: `, dtype=float32)`.
        let rest: String = chars.collect();
        if is_over && rest.contains(['[', ']', '{']) {
            return Err(list.error(*line, "something follows the end of the list"));
        }
    }
    match texts.last() {
        Some((line, _)) if !is_over => Err(list.error(*line, "the list is not closed: the file is cut")),
        _ => Ok(list.rows),
    }
}

/// A list in brackets while it is read.
struct List<'a> {
    file: &'a str,
    rows: Vec<Record>,
    depth: usize,
    row: Row,
}

/// The row that is being read.
#[derive(Default)]
struct Row {
    line: usize,
    cells: Vec<String>,
    cell: String,
    /// Whether a comma has passed since the last cell.
    is_after_comma: bool,
}

impl List<'_> {
    fn take(&mut self, c: char, line: usize) -> Result<()> {
        match c {
            '[' if self.depth == 2 => {
                return Err(self.error(line, "the list has three levels: give one matrix"));
            }
            '[' => {
                self.end_cell();
                if !self.row.cells.is_empty() {
                    return Err(self.error(line, "a row begins within a row"));
                }
                self.depth += 1;
                self.row = Row { line, ..Row::default() };
            }
            ']' => {
                self.end_cell();
                let row = std::mem::take(&mut self.row);
                if !row.cells.is_empty() {
                    if self.depth == 1 && !self.rows.is_empty() {
                        return Err(self.error(line, "a score stands outside of the rows"));
                    }
                    self.rows.push(Record { line: row.line, cells: row.cells, is_indented: false });
                }
                self.depth -= 1;
            }
            '{' => {
                return Err(self.error(line, "a list of objects is no matrix: give a list of rows, or CSV"));
            }
            ',' => {
                let is_empty =
                    self.row.cell.is_empty() && (self.row.is_after_comma || self.row.cells.is_empty());
                if is_empty && (self.depth == 2 || self.rows.is_empty()) {
                    self.row.cells.push(String::new());
                }
                self.end_cell();
                self.row.is_after_comma = true;
            }
            c if c.is_whitespace() => self.end_cell(),
            c => self.row.cell.push(c),
        }
        Ok(())
    }

    fn end_cell(&mut self) {
        if !self.row.cell.is_empty() {
            let cell = std::mem::take(&mut self.row.cell);
            self.row.cells.push(cell.trim_matches(['"', '\'']).to_owned());
            self.row.is_after_comma = false;
        }
    }

    fn error(&self, line: usize, what: &str) -> EvalError {
        let column = self.row.cells.len() + 1;
        EvalError::NotATable { file: self.file.to_owned(), line, column, what: what.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Vec<String>> {
        records(text.as_bytes(), "s").unwrap().into_iter().map(|record| record.cells).collect()
    }

    #[test]
    fn one_table_in_every_form() {
        for text in [
            "1,2.5\n3,4",
            "1;2.5\n3;4\n",
            "1\t2.5\r\n3\t4\r\n",
            "1 2.5\n3 4",
            "   1  2.5\n   3  4.\n",
            "| 1 | 2.5 |\n|---|---:|\n| 3 | 4 |",
            "[[1, 2.5], [3, 4]]",
            "[[1.  2.5]\n [3.  4. ]]",
            "array([[1. , 2.5],\n       [3. , 4. ]], dtype=float32)",
            "scores = [\n  [1, 2.5],\n  [3, 4],\n]\n",
            "\"1\",\"2.5\"\n\"3\",\"4\"",
        ] {
            let numbers: Vec<Vec<f64>> =
                read(text).iter().map(|row| row.iter().map(|cell| cell.parse().unwrap()).collect()).collect();
            assert_eq!(numbers, [[1.0, 2.5], [3.0, 4.0]], "{text}");
        }
    }

    #[test]
    fn brackets_that_are_no_matrix_are_errors() {
        let message = |text: &str| records(text.as_bytes(), "s").unwrap_err().to_string();
        assert_eq!(message("[[1, 2],\n [3"), "s, line 2, column 2: the list is not closed: the file is cut");
        assert!(message("[[[1]]]").contains("three levels"));
        assert!(message("[[1], 2]").contains("outside of the rows"));
        assert!(message("[{\"a\": 1}]").contains("list of objects"));
        assert!(message("{\"a\": {\"0\": 1}}").contains("JSON object"));
        assert!(message("[[1]] [[2]]").contains("follows the end"));
        assert_eq!(read("[[1, , 2], [3, 4,]]"), [vec!["1", "", "2"], vec!["3", "4"]]);
    }
}
