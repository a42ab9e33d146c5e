//! A matrix of scores from a CSV file: one row a moment, one column a task.
//!
//! Commas separate the cells. A cell may stand in quotation marks, which are doubled inside of it (RFC 4180). The names of tasks in the
//! first line and the names of moments in the first column are optional:
//!
//! - The first line is a header if, the first cell aside, some cell has text and none is a number; if there is but one cell, it has
//!   to be text.
//! - The first column has names if a row begins with text, or, under a header, if the header begins with an empty cell or the rows,
//!   two at least, begin with 0, 1, 2 … or 1, 2, 3 …
//!
//! Cells at the end of a row may be empty or absent: tasks that were not scored yet. A gap before a score is an error.

use crate::error::{EvalError, Result};
use crate::lines::Lines;
use std::io::BufRead;

/// Bytes after which an open quotation mark counts as forgotten.
const MAX_OPEN: usize = 1 << 13;

/// The scores of a run: one row for each moment at which all tasks were scored, one column for each task.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreTable {
    /// The names of the columns; empty without a header.
    pub tasks: Vec<String>,
    /// The names of the rows; empty if they have none.
    pub moments: Vec<String>,
    /// The scores, each row up to its last one.
    pub rows: Vec<Vec<f64>>,
    file: String,
    /// The line of each row.
    lines: Vec<usize>,
    /// 1 if the first column has names, else 0.
    n_names: usize,
}

/// The moment of a table's first row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FirstRow {
    /// Before any training.
    BeforeTraining,
    /// After the first task.
    AfterFirstTask,
}

impl ScoreTable {
    /// Reads a table; `file` is the name for errors.
    ///
    /// # Errors
    /// [`EvalError::NotAScore`], [`EvalError::MissingScore`], [`EvalError::NoSuchColumn`], [`EvalError::Quotes`] with line and column,
    /// [`EvalError::EmptyTable`], and [`EvalError::Read`], [`EvalError::Encoding`], [`EvalError::LongLine`] with the line.
    ///
    /// # Examples
    /// ```
    /// use fwd_eval::{FirstRow, ScoreTable};
    /// let csv = "after,vqa,captions\nvqa,60,\ncaptions,50,70\n";
    /// let table = ScoreTable::read(csv.as_bytes(), "scores.csv")?;
    /// assert_eq!(table.tasks, ["vqa", "captions"]);
    /// assert_eq!(table.moments, ["vqa", "captions"]);
    /// assert_eq!(table.first_row(), FirstRow::AfterFirstTask);
    /// assert_eq!(table.matrix(table.first_row())?, [vec![], vec![60.0], vec![50.0, 70.0]]);
    /// # Ok::<(), fwd_eval::EvalError>(())
    /// ```
    pub fn read(reader: impl BufRead, file: &str) -> Result<Self> {
        let mut records = records(reader, file)?;
        let has_header = records.first().is_some_and(is_header);
        let header = if has_header { records.remove(0).cells } else { Vec::new() };
        let n_names = usize::from(has_names(&header, &records));
        let mut table = Self {
            tasks: header.into_iter().skip(n_names).collect(),
            moments: Vec::new(),
            rows: Vec::new(),
            file: file.to_owned(),
            lines: Vec::new(),
            n_names,
        };
        for record in records {
            table.push(record, has_header)?;
        }
        if table.n_tasks() == 0 || table.rows.iter().all(Vec::is_empty) {
            return Err(EvalError::EmptyTable { file: file.to_owned() });
        }
        Ok(table)
    }

    /// How many columns there are.
    pub fn n_tasks(&self) -> usize {
        self.rows.iter().map(Vec::len).max().unwrap_or_default().max(self.tasks.len())
    }

    /// The moment of the first row, judged by the shape: with one row more than columns it is before training. A table that is still
    /// growing, or that has a column for the data before the tasks, does not show its moment: pass it to [`Self::matrix`] yourself.
    pub fn first_row(&self) -> FirstRow {
        if self.rows.len() > self.n_tasks() { FirstRow::BeforeTraining } else { FirstRow::AfterFirstTask }
    }

    /// The score matrix `R[i][j]` with row 0 before training, an empty one where the table has none, and row i after task i:
    /// the rows that `fwd-prompt`'s `ScoreMatrix` takes.
    ///
    /// # Errors
    /// [`EvalError::MissingScore`] with line and column if a row but the last lacks a score on or below the diagonal.
    pub fn matrix(&self, first: FirstRow) -> Result<Vec<Vec<f64>>> {
        let n_before = match first {
            FirstRow::BeforeTraining => 0,
            FirstRow::AfterFirstTask => 1,
        };
        let n_tasks = self.n_tasks();
        let complete = self.rows.len().saturating_sub(1);
        for (i, row) in self.rows.iter().enumerate().take(complete) {
            if row.len() < (i + n_before).min(n_tasks) {
                return Err(self.missing(self.lines[i], row.len()));
            }
        }
        let before = vec![Vec::new(); n_before];
        Ok(before.into_iter().chain(self.rows.iter().cloned()).collect())
    }

    /// Adds the scores of a line, and its name where rows have names.
    fn push(&mut self, record: Record, has_header: bool) -> Result<()> {
        let Record { line, cells } = record;
        let mut cells = cells.into_iter();
        self.moments.extend(cells.by_ref().take(self.n_names));
        let mut row = Vec::new();
        let mut gap = None;
        for (i, cell) in cells.enumerate() {
            let column = i + self.n_names + 1;
            let file = self.file.clone();
            if has_header && i >= self.tasks.len() {
                return Err(EvalError::NoSuchColumn { file, line, column });
            }
            if cell.is_empty() {
                gap = gap.or(Some(i));
                continue;
            }
            match (cell.parse::<f64>(), gap) {
                (Ok(score), None) if score.is_finite() => row.push(score),
                (Ok(score), Some(gap)) if score.is_finite() => return Err(self.missing(line, gap)),
                _ => return Err(EvalError::NotAScore { file, line, column, found: cell }),
            }
        }
        self.rows.push(row);
        self.lines.push(line);
        Ok(())
    }

    fn missing(&self, line: usize, task: usize) -> EvalError {
        EvalError::MissingScore { file: self.file.clone(), line, column: task + self.n_names + 1 }
    }
}

/// The cells of a line, at least one, without blanks around them.
struct Record {
    line: usize,
    cells: Vec<String>,
}

fn is_text(cell: &str) -> bool {
    !cell.is_empty() && cell.parse::<f64>().is_err()
}

fn is_header(record: &Record) -> bool {
    match record.cells.as_slice() {
        [only] => is_text(only),
        cells => {
            cells[1..].iter().all(|c| c.is_empty() || is_text(c)) && cells[1..].iter().any(|c| is_text(c))
        }
    }
}

/// Whether the first column has names.
fn has_names(header: &[String], records: &[Record]) -> bool {
    let first: Vec<&str> = records.iter().map(|record| record.cells[0].as_str()).collect();
    let counts_from = |start: usize| (start..).zip(&first).all(|(n, cell)| n.to_string() == *cell);
    let counts = first.len() > 1 && (counts_from(0) || counts_from(1));
    let under_header = header.len() > 1 && (header[0].is_empty() || counts);
    under_header || first.into_iter().any(is_text)
}

/// The records of a file; lines without any text are passed over.
fn records(reader: impl BufRead, file: &str) -> Result<Vec<Record>> {
    let mut lines = Lines::new(reader, file);
    let mut records = Vec::new();
    while let Some(mut text) = lines.next_line()? {
        let line = lines.number;
        let cells = loop {
            let Broken { column, open } = match cells(&text) {
                Ok(cells) => break cells,
                Err(broken) => broken,
            };
            // A cell in quotation marks may go on in the next line.
            let next = if open && text.len() < MAX_OPEN { lines.next_line()? } else { None };
            let Some(next) = next else {
                return Err(EvalError::Quotes { file: file.to_owned(), line, column });
            };
            text.push('\n');
            text.push_str(&next);
        };
        if cells.iter().any(|cell| !cell.is_empty()) {
            records.push(Record { line, cells });
        }
    }
    Ok(records)
}

/// A cell whose quotation marks are wrong: still open at the end, or not at the end of the cell.
struct Broken {
    column: usize,
    open: bool,
}

fn cells(text: &str) -> std::result::Result<Vec<String>, Broken> {
    let mut cells = Vec::new();
    let mut rest = Some(text);
    while let Some(text) = rest {
        let column = cells.len() + 1;
        let (cell, after) = match text.trim_start().strip_prefix('"') {
            None => match text.split_once(',') {
                Some((cell, after)) => (cell.trim().to_owned(), Some(after)),
                None => (text.trim().to_owned(), None),
            },
            Some(quoted) => {
                let (cell, after) = unquote(quoted).ok_or(Broken { column, open: true })?;
                let after = after.trim_start();
                match after.strip_prefix(',') {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ScoreTable> {
        ScoreTable::read(text.as_bytes(), "s.csv")
    }

    fn message(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn names_are_optional() {
        let rows = [vec![1.0], vec![2.0, 3.5]];
        for text in ["1,\n2,3.5", "1\r\n2,3.5\r\n", "\u{feff}1,\n\n2, 3.5 ,\n,\n", "\"1\"\n\"2\",3.5"] {
            let table = read(text).unwrap();
            assert_eq!(
                (table.rows.as_slice(), table.tasks.len(), table.moments.len()),
                (&rows[..], 0, 0),
                "{text}"
            );
        }
        for text in [
            ",a,b\n7,1\n9,2,3.5",
            "step,a,b\n1,1\n2,2,3.5",
            "step,a,b\n0,1\n1,2,3.5",
            "x,a,b\np,1,\nq,2,3.5\n",
        ] {
            let table = read(text).unwrap();
            assert_eq!((table.rows.as_slice(), table.moments.len()), (&rows[..], 2), "{text}");
            assert_eq!(table.tasks, ["a", "b"]);
        }
        assert_eq!(read("a,b\n1\n4,3.5").unwrap().tasks, ["a", "b"]);
        let table = read("t1,1\nt2,2,3.5").unwrap();
        assert_eq!((table.tasks.len(), table.moments), (0, vec!["t1".to_owned(), "t2".to_owned()]));
    }

    #[test]
    fn quotation_marks_are_kept_apart() {
        let table = read("\"a, or \"\"b\"\"\nc\" ,d\n1,2\n").unwrap();
        assert_eq!(table.tasks, ["a, or \"b\"\nc", "d"]);
        assert_eq!(table.lines, [3]);
        let error = |line, column| EvalError::Quotes { file: "s.csv".into(), line, column };
        assert_eq!(read("1,2\n3,\"4\n"), Err(error(2, 2)));
        assert_eq!(read("1,2\n\"3\"4,5\n"), Err(error(2, 1)));
    }

    #[test]
    fn errors_name_line_and_column() {
        assert_eq!(message("x,a,b\np,1,2\nq,1,5O\n"), "s.csv, line 3, column 3: `5O` is no score");
        assert_eq!(message("1,nan\n"), "s.csv, line 1, column 2: `nan` is no score");
        assert_eq!(message("1,inf\n"), "s.csv, line 1, column 2: `inf` is no score");
        assert_eq!(message("5O,1\n2,3\n1,x"), "s.csv, line 3, column 2: `x` is no score");
        assert_eq!(
            message("a,b\n1,2\n\n1,2,3\n"),
            "s.csv, line 4, column 3: the header names no such column"
        );
        assert_eq!(message("1,2,3\n1,,3\n"), "s.csv, line 2, column 2: a score is missing");
        for text in ["", "\n,\n", "a,b\n", "a,b\n,\n"] {
            assert_eq!(message(text), "s.csv: there are no scores");
        }
    }

    #[test]
    fn matrices_start_before_training() {
        let square = read("60,\n50,70").unwrap();
        assert_eq!(square.first_row(), FirstRow::AfterFirstTask);
        assert_eq!(square.matrix(FirstRow::AfterFirstTask).unwrap(), [vec![], vec![60.0], vec![50.0, 70.0]]);
        let tall = read("10,20\n60,24\n50,70").unwrap();
        assert_eq!(tall.first_row(), FirstRow::BeforeTraining);
        assert_eq!(tall.matrix(FirstRow::BeforeTraining).unwrap()[0], [10.0, 20.0]);
        // The last row may still be growing, another one may not.
        let growing = read("x,a,b,c\nt1,60\nt2,50\nt3,\n").unwrap();
        let error = EvalError::MissingScore { file: "s.csv".into(), line: 3, column: 3 };
        assert_eq!(growing.matrix(FirstRow::AfterFirstTask), Err(error));
        assert!(read("x,a,b,c\nt1,60\nt2,50\n").unwrap().matrix(FirstRow::AfterFirstTask).is_ok());
    }
}
