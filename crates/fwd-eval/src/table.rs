//! A matrix of scores from a file: one row a moment, one column a task.
//!
//! The forms that are read are those of commas, semicolons and tabs (quotation marks after RFC 4180), of blanks (`numpy.savetxt`, a
//! printed `DataFrame`), of Markdown, of brackets (NumPy's and JSON's lists), and `metrics.csv` of a run. Names of tasks in the first
//! row and of moments in the first column are optional:
//!
//! - The first row is a header if it has text behind its first cell and none of its cells is a number or nearly one (`9O`, `1e`), or if
//!   it is the one that pandas gives columns without names: an empty cell, then 0, 1, 2 …
//! - The first column has names if all of its cells are text, or if the header begins with an empty cell or one that says so (`after`,
//!   `step`, `task` …), or has one cell less than the rows.
//!
//! All other cells are numbers, or marks of what is missing (empty, `NA`, `nan`, `None`, `-`), which may lie above the diagonal alone.
//! Rows have the same number of cells, or row i the first i. A percent sign is left out, for scores are points of 100; a decimal comma
//! is read where no decimal point is. What fits nowhere is an error with line and column.

use crate::cell::{Cell, Score};
use crate::error::{EvalError, Result, shown};
use crate::grid::{Record, records};
use crate::run_table::{RunTable, is_run_table, read_run_table};
use std::io::BufRead;

/// What the first cell of a header says if the first column has the names of moments.
const CORNERS: [&str; 27] = [
    "after",
    "after task",
    "after_task",
    "step",
    "steps",
    "stage",
    "task",
    "tasks",
    "task_id",
    "moment",
    "time",
    "t",
    "session",
    "experience",
    "exp",
    "index",
    "id",
    "idx",
    "row",
    "epoch",
    "learnt",
    "learned",
    "trained on",
    "i",
    "n",
    "#",
    "unnamed: 0",
];

/// Names of columns and rows that are no tasks and no moments.
const SUMMARIES: [&str; 13] = [
    "avg",
    "avg.",
    "average",
    "mean",
    "overall",
    "total",
    "sum",
    "std",
    "forgetting",
    "bwt",
    "fwt",
    "max",
    "min",
];

/// Names of a moment before any task.
const BEFORE: [&str; 8] =
    ["before", "before training", "zero-shot", "zero_shot", "zeroshot", "zero shot", "nothing", "initial"];

/// The name of a last column that is what was known before the tasks.
const PRETRAINING: [&str; 2] = ["pre-training", "pretraining"];

/// The scores of a run: one row for each moment at which all tasks were scored, one column for each task.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ScoreTable {
    /// The names of the columns; empty without a header.
    pub tasks: Vec<String>,
    /// The names of the rows; empty if they have none.
    pub moments: Vec<String>,
    /// The scores, each row up to its last one; NaN where one is missing before that.
    pub rows: Vec<Vec<f64>>,
    /// The measures that the file states beside the scores, by name, as `metrics.csv` of a run does.
    pub stated: Vec<(String, f64)>,
    file: String,
    /// The line of each row.
    lines: Vec<usize>,
    /// The moment of the first row, if the file says so.
    first: Option<FirstRow>,
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
    /// [`EvalError::NotAScore`], [`EvalError::NoSuchColumn`], [`EvalError::NotATable`], [`EvalError::Quotes`] with line and column,
    /// [`EvalError::EmptyTable`], and [`EvalError::Read`], [`EvalError::Encoding`], [`EvalError::LongLine`] with the line.
    ///
    /// # Examples
    /// ```
    /// use fwd_eval::{FirstRow, ScoreTable};
    /// let csv = "after,vqa,captions\nvqa,60,\ncaptions,50,70\n";
    /// let table = ScoreTable::read(csv.as_bytes(), "scores.csv")?;
    /// assert_eq!(table.tasks, ["vqa", "captions"]);
    /// assert_eq!(table.moments, ["vqa", "captions"]);
    /// assert_eq!(table.first_row(2), FirstRow::AfterFirstTask);
    /// assert_eq!(table.matrix(table.first_row(2), 2)?, [vec![], vec![60.0], vec![50.0, 70.0]]);
    /// # Ok::<(), fwd_eval::EvalError>(())
    /// ```
    pub fn read(reader: impl BufRead, file: &str) -> Result<Self> {
        let records = records(reader, file)?;
        let table = Self { file: file.to_owned(), ..Self::default() };
        let table = match records.first() {
            Some(first) if is_run_table(first) => {
                let RunTable { tasks, rows, lines, measures } = read_run_table(records, file)?;
                let first = Some(FirstRow::BeforeTraining);
                Self { tasks, rows, lines, stated: measures, first, ..table }
            }
            _ => table.fill(records)?,
        };
        if table.n_columns() == 0 || table.rows.iter().all(Vec::is_empty) {
            return Err(EvalError::EmptyTable { file: file.to_owned() });
        }
        Ok(table)
    }

    /// How many columns there are, that of pre-training included.
    pub fn n_columns(&self) -> usize {
        self.rows.iter().map(Vec::len).max().unwrap_or_default().max(self.tasks.len())
    }

    /// Whether the last column is called `pre-training`: what was known before the tasks, and no task.
    pub fn names_pretraining(&self) -> bool {
        self.tasks.last().is_some_and(|name| is_one_of(name, &PRETRAINING))
    }

    /// The moment of the first row of a table of `n_tasks` tasks, judged by its name or the shape: with one row more than tasks it is
    /// before training. A table that is still growing does not show its moment: pass it to [`Self::matrix`] yourself.
    pub fn first_row(&self, n_tasks: usize) -> FirstRow {
        let is_named = self.moments.first().is_some_and(|name| is_one_of(name, &BEFORE));
        let is_before = is_named || self.rows.len() > n_tasks;
        self.first.unwrap_or(if is_before { FirstRow::BeforeTraining } else { FirstRow::AfterFirstTask })
    }

    /// The score matrix `R[i][j]` of `n_tasks` tasks, with row 0 before training, an empty one where the table has none, and row i after
    /// task i: the rows that `fwd-prompt`'s `ScoreMatrix` takes. Scores that are missing are NaN.
    ///
    /// # Errors
    /// [`EvalError::MissingScore`] with line and column if a row lacks a score on or below the diagonal, [`EvalError::NotATable`] if
    /// there are more rows than moments.
    pub fn matrix(&self, first: FirstRow, n_tasks: usize) -> Result<Vec<Vec<f64>>> {
        let n_before = match first {
            FirstRow::BeforeTraining => 0,
            FirstRow::AfterFirstTask => 1,
        };
        for (i, row) in self.rows.iter().enumerate() {
            let moment = i + n_before;
            if moment > n_tasks {
                let what = format!("{n_tasks} tasks have no moment {moment}: a row too many");
                return Err(self.not_a_table(self.lines[i], 1, what));
            }
            // What a run left out as a whole is no gap.
            let missing = (0..moment).find(|&j| row.get(j).is_none_or(|score| score.is_nan()));
            if let Some(task) = missing.filter(|_| !(self.first.is_some() && row.is_empty())) {
                let column = task + self.n_names + 1;
                return Err(EvalError::MissingScore { file: self.file.clone(), line: self.lines[i], column });
            }
        }
        let before = vec![Vec::new(); n_before];
        Ok(before.into_iter().chain(self.rows.iter().cloned()).collect())
    }

    /// Takes the rows of a matrix.
    fn fill(mut self, mut records: Vec<Record>) -> Result<Self> {
        for Record { line, cells, .. } in &records {
            if let Some(i) = cells.iter().position(|cell| matches!(cell.as_str(), "..." | "…" | "\\")) {
                let what = "the table was cut when it was printed: save it as CSV".to_owned();
                return Err(self.not_a_table(*line, i + 1, what));
            }
        }
        let has_header = has_header(&records);
        let (line, header) = if has_header {
            let mut header = records.remove(0);
            if is_one_short(&header, &records) {
                header.cells.insert(0, String::new());
            }
            (header.line, header.cells)
        } else {
            (0, Vec::new())
        };
        self.n_names = usize::from(self.has_names(&header, &records)?);
        self.tasks = header.into_iter().skip(self.n_names).collect();
        while self.tasks.last().is_some_and(String::is_empty) {
            self.tasks.pop();
        }
        if let Some(place) = self.tasks.iter().position(|name| Cell::of(name) == Cell::Missing) {
            let what = "this column has no name, and others have".to_owned();
            return Err(self.not_a_table(line, place + self.n_names + 1, what));
        }
        let mut rows = Vec::new();
        for Record { line, mut cells, .. } in records {
            let scores = cells.split_off(self.n_names.min(cells.len()));
            self.moments.extend(cells);
            self.lines.push(line);
            rows.push(scores);
        }
        self.check_names(line)?;
        self.check_shape(&rows)?;
        let rows: Vec<Vec<Option<Score>>> =
            rows.iter().enumerate().map(|(i, cells)| self.scores(i, cells)).collect::<Result<_>>()?;
        self.check_spelling(&rows)?;
        self.rows = rows.into_iter().map(up_to_the_last).collect();
        Ok(self)
    }

    /// The scores of a row.
    fn scores(&self, row: usize, cells: &[String]) -> Result<Vec<Option<Score>>> {
        let (line, file) = (self.lines[row], || self.file.clone());
        let mut scores = Vec::new();
        for (i, cell) in cells.iter().enumerate() {
            let column = i + self.n_names + 1;
            scores.push(match Cell::of(cell) {
                Cell::Score(score) => Some(score),
                Cell::Missing => None,
                Cell::Text | Cell::NearlyScore => {
                    return Err(EvalError::NotAScore { file: file(), line, column, found: cell.clone() });
                }
            });
        }
        Ok(scores)
    }

    /// Whether the first column has names.
    fn has_names(&self, header: &[String], records: &[Record]) -> Result<bool> {
        let first: Vec<&str> = records.iter().map(|record| record.cells[0].as_str()).collect();
        if header.len() > 1 && (header[0].is_empty() || is_one_of(&header[0], &CORNERS)) {
            return Ok(true);
        }
        // A row may be without a name; one that has a number is none of names.
        let are_names = |cell: &&str| Cell::is_text(cell) || cell.is_empty();
        if first.iter().any(|cell| Cell::is_text(cell)) && first.iter().all(are_names) {
            return Ok(true);
        }
        if header.len() > 1 && first.len() > 1 && (counts_from(0, &first) || counts_from(1, &first)) {
            let what = format!(
                "are these scores of `{}` or numbers of rows? Call the column `step`, or write scores with a decimal point",
                shown(&header[0])
            );
            return Err(self.not_a_table(records[0].line, 1, what));
        }
        Ok(false)
    }

    /// Refuses names that are no tasks or moments, and moments in another order than the tasks.
    fn check_names(&self, header_line: usize) -> Result<()> {
        let is_after = |name: &String| name.to_lowercase().starts_with("after ");
        let offset = self.n_names + 1;
        for (i, name) in self.tasks.iter().enumerate() {
            let what = if is_one_of(name, &SUMMARIES) {
                format!("the column `{name}` is no task: leave it out")
            } else if is_after(name)
                && self.tasks.iter().all(|name| is_after(name) || is_one_of(name, &BEFORE))
            {
                "the columns are moments: transpose the table, one row a moment and one column a task"
                    .to_owned()
            } else {
                continue;
            };
            return Err(self.not_a_table(header_line, i + offset, what));
        }
        if let Some(i) = self.moments.iter().position(|name| is_one_of(name, &SUMMARIES)) {
            let name = &self.moments[i];
            let what = format!("the row `{name}` is no moment: leave it out");
            return Err(self.not_a_table(self.lines[i], 1, what));
        }
        let place = |name: &String| {
            let plain = name.to_lowercase();
            let plain = plain.strip_prefix("after ").unwrap_or(&plain);
            self.tasks.iter().position(|task| task.to_lowercase() == plain)
        };
        let places: Vec<(usize, usize)> =
            self.moments.iter().enumerate().filter_map(|(i, name)| Some((i, place(name)?))).collect();
        match places.windows(2).find(|pair| pair[0].1 >= pair[1].1) {
            Some(pair) => {
                let what = format!(
                    "the row `{}` comes after `{}`, their columns come the other way round: tasks stand in the order in which they were learnt",
                    shown(&self.moments[pair[1].0]),
                    shown(&self.moments[pair[0].0])
                );
                Err(self.not_a_table(self.lines[pair[1].0], 1, what))
            }
            None => Ok(()),
        }
    }

    /// Refuses rows that are neither of one length nor a triangle.
    fn check_shape(&self, rows: &[Vec<String>]) -> Result<()> {
        let used =
            |cells: &[String]| cells.iter().rposition(|cell| !cell.is_empty()).map_or(0, |last| last + 1);
        let n_named = if self.tasks.is_empty() { usize::MAX } else { self.tasks.len() };
        if let Some(row) = rows.iter().position(|cells| used(cells) > n_named) {
            let (file, column) = (self.file.clone(), n_named + self.n_names + 1);
            return Err(EvalError::NoSuchColumn { file, line: self.lines[row], column });
        }
        let widest = rows.iter().map(|cells| used(cells)).max().unwrap_or_default();
        let width = widest.max(self.tasks.len());
        let is_short = |cells: &[String]| cells.len() < width;
        // Row i has the first i, or, behind a row before training, the row after it.
        let fits = |n_before: usize| {
            let full = rows.iter().take(n_before).all(|cells| !is_short(cells));
            let mut others = rows.iter().skip(n_before).enumerate();
            full && others.all(|(i, cells)| used(cells) == width.min(i + 1))
        };
        let short = rows.iter().position(|cells| is_short(cells));
        let Some(row) = short.filter(|_| !(fits(0) || fits(1))) else { return Ok(()) };
        let what = match rows.iter().position(|cells| used(cells) == width) {
            Some(long) => format!("the row ends here, that of line {} has {width} scores", self.lines[long]),
            None => format!("the row ends here, the header names {width} columns"),
        };
        Err(self.not_a_table(self.lines[row], rows[row].len() + self.n_names + 1, what))
    }

    /// Refuses numbers that mean another thing beside the others: shares beside percentages, decimal commas beside points.
    fn check_spelling(&self, rows: &[Vec<Option<Score>>]) -> Result<()> {
        let all = || {
            let cells = rows
                .iter()
                .enumerate()
                .flat_map(|(i, row)| row.iter().enumerate().map(move |(j, cell)| (i, j, cell)));
            cells.filter_map(|(i, j, cell)| cell.map(|score| (i, j, score)))
        };
        let error = |(i, j): (usize, usize), what: &str| {
            Err(self.not_a_table(self.lines[i], j + self.n_names + 1, what.to_owned()))
        };
        let marks = || all().filter(|(.., score)| score.decimal.is_some());
        if let Some((.., first)) = marks().next()
            && let Some((i, j, _)) = marks().find(|(.., score)| score.decimal != first.decimal)
        {
            return error((i, j), "one table has either decimal points or decimal commas");
        }
        let plain = || all().filter(|(.., score)| !score.is_percent && score.value != 0.0);
        if all().any(|(.., score)| score.is_percent)
            && plain().all(|(.., score)| score.value.abs() <= 1.0)
            && let Some((i, j, _)) = plain().next()
        {
            return error(
                (i, j),
                "is this a share of 1 or percent? Others have a percent sign: give all one",
            );
        }
        Ok(())
    }

    fn not_a_table(&self, line: usize, column: usize, what: String) -> EvalError {
        EvalError::NotATable { file: self.file.clone(), line, column, what }
    }
}

/// Values up to the last that is there.
fn up_to_the_last(row: Vec<Option<Score>>) -> Vec<f64> {
    let n = row.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
    row.into_iter().take(n).map(|score| score.map_or(f64::NAN, |score| score.value)).collect()
}

fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.contains(&name.trim().to_lowercase().as_str())
}

fn counts_from(start: usize, cells: &[&str]) -> bool {
    (start..).zip(cells).all(|(n, cell)| n.to_string() == *cell)
}

fn texts(cells: &[String]) -> Vec<&str> {
    cells.iter().map(String::as_str).collect()
}

/// Whether the first row names the columns.
fn has_header(records: &[Record]) -> bool {
    let Some((first, others)) = records.split_first() else { return false };
    let cells = texts(&first.cells);
    let are_names = |cells: &[&str]| {
        let is_name = |cell: &&str| matches!(Cell::of(cell), Cell::Text | Cell::Missing);
        cells.iter().all(is_name) && cells.iter().any(|cell| Cell::is_text(cell))
    };
    let is_default = match cells.as_slice() {
        // As pandas writes and prints columns without names.
        ["", numbers @ ..] => !numbers.is_empty() && counts_from(0, numbers),
        numbers => first.is_indented && is_one_short(first, others) && counts_from(0, numbers),
    };
    let is_named = match cells.as_slice() {
        [only] => are_names(&[only]),
        [corner, names @ ..] => are_names(names) && matches!(Cell::of(corner), Cell::Text | Cell::Missing),
        [] => false,
    };
    is_default || is_named
}

/// Whether all rows have one cell more than the first, the name or number of the row.
fn is_one_short(first: &Record, others: &[Record]) -> bool {
    let names: Vec<&str> = others.iter().map(|record| record.cells[0].as_str()).collect();
    let are_names = names.iter().all(|name| Cell::is_text(name));
    let are_numbers = counts_from(0, &names) || counts_from(1, &names);
    !others.is_empty()
        && others.iter().all(|record| record.cells.len() == first.cells.len() + 1)
        && (are_names || are_numbers)
}

#[cfg(test)]
mod tests;
