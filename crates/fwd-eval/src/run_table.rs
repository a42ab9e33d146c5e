//! `metrics.csv` of a run: `kind,after,name,value`, a line for each score, measure and size.

use crate::cell::Cell;
use crate::error::{EvalError, Result, shown};
use crate::grid::Record;

const HEADER: [&str; 4] = ["kind", "after", "name", "value"];

/// What the file says.
#[derive(Default)]
pub(crate) struct RunTable {
    pub(crate) tasks: Vec<String>,
    /// The scores after 0, 1, … tasks.
    pub(crate) rows: Vec<Vec<f64>>,
    /// The line of the first score of each row.
    pub(crate) lines: Vec<usize>,
    /// The measures that are there, by name.
    pub(crate) measures: Vec<(String, f64)>,
}

pub(crate) fn is_run_table(first: &Record) -> bool {
    first.cells == HEADER
}

/// Puts the scores into rows, one for each number of tasks learnt, and keeps the measures.
pub(crate) fn read_run_table(records: Vec<Record>, file: &str) -> Result<RunTable> {
    let mut table = RunTable::default();
    let mut last = (1, String::new());
    for Record { line, cells, .. } in records.into_iter().skip(1) {
        let error =
            |column: usize, what: String| EvalError::NotATable { file: file.to_owned(), line, column, what };
        let [kind, after, name, value] = cells.as_slice() else {
            return Err(error(cells.len().min(4) + 1, format!("the row has {} cells, not 4", cells.len())));
        };
        let number = match Cell::of(value) {
            Cell::Score(score) => Some(score.value),
            Cell::Missing if kind == "measure" => None,
            _ => {
                let found = value.clone();
                return Err(EvalError::NotAScore { file: file.to_owned(), line, column: 4, found });
            }
        };
        match (kind.as_str(), number) {
            ("score", Some(score)) => {
                table.put(line, (after, name), score).map_err(|(column, what)| error(column, what))?;
            }
            ("measure", Some(value)) => table.measures.push((name.clone(), value)),
            ("measure" | "size", _) => {}
            _ => {
                return Err(error(
                    1,
                    format!("`{}` is neither `score` nor `measure` nor `size`", shown(kind)),
                ));
            }
        }
        last = (line, kind.clone());
    }
    // The sizes end the file.
    if last.1 != "size" {
        let what = "the file ends before the sizes: it is cut".to_owned();
        return Err(EvalError::NotATable { file: file.to_owned(), line: last.0, column: 1, what });
    }
    Ok(table)
}

impl RunTable {
    /// Puts a score behind those of its moment; else the column and what is wrong with it.
    fn put(
        &mut self,
        line: usize,
        (after, name): (&str, &str),
        score: f64,
    ) -> std::result::Result<(), (usize, String)> {
        let n_rows = self.rows.len();
        // Row 0 is absent if nothing was scored before training.
        let follows = |row: &usize| *row + 1 == n_rows || *row == n_rows || n_rows == 0 && *row == 1;
        let Some(row) = after.parse::<usize>().ok().filter(follows) else {
            return Err((2, format!("`{}` is not the moment that follows", shown(after))));
        };
        self.rows.resize(n_rows.max(row + 1), Vec::new());
        self.lines.resize(self.rows.len(), line);
        let is_first = self.rows[..row].iter().all(Vec::is_empty);
        match self.tasks.get(self.rows[row].len()) {
            Some(task) if task == name => {}
            None if is_first && !self.tasks.iter().any(|task| task == name) => {
                self.tasks.push(name.to_owned())
            }
            expected => {
                let expected =
                    expected.map_or("no other task".to_owned(), |task| format!("`{}`", shown(task)));
                return Err((3, format!("`{}` stands where the first moment has {expected}", shown(name))));
            }
        }
        self.rows[row].push(score);
        Ok(())
    }
}
