//! The score matrix `R[i][j]`, task j after learning task i, and the measures of continual learning.
//!
//! Rows are moments: row 0 before any training, row i after task i. Columns are tasks from 1, written j below; a last column may
//! hold the pre-training data. All scores are in the task's own metric, 0–100.

use serde::{Deserialize, Serialize};

/// Scores of all tasks at all moments so far.
///
/// # Examples
/// ```
/// use fwd_continual::ScoreMatrix;
/// let rows = [[10.0, 20.0], [60.0, 24.0], [50.0, 70.0]];
/// let scores = ScoreMatrix { n_tasks: 2, rows: rows.map(Vec::from).to_vec() };
/// assert_eq!(scores.average(2), Some(60.0));
/// assert_eq!(scores.forgetting(2), Some(10.0));         // task 1 was at 60
/// assert_eq!(scores.backward_transfer(2), Some(-10.0));
/// assert_eq!(scores.forward_transfer(), Some(4.0));     // task 2 rose from 20 to 24 before it was learnt
/// assert_eq!(scores.mean_average(), Some(60.0));
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreMatrix {
    /// T: how many columns are tasks; a column more holds the pre-training data.
    pub n_tasks: usize,
    /// One row a moment; the last may still be growing.
    pub rows: Vec<Vec<f64>>,
}

impl ScoreMatrix {
    /// `R[i][j]`, j from 1.
    pub fn get(&self, i: usize, j: usize) -> Option<f64> {
        self.rows.get(i)?.get(j.checked_sub(1)?).copied()
    }

    /// The mean over scores that must all exist, of at least one.
    fn mean(terms: impl Iterator<Item = Option<f64>>) -> Option<f64> {
        let terms: Option<Vec<f64>> = terms.collect();
        terms.filter(|terms| !terms.is_empty()).map(|terms| terms.iter().sum::<f64>() / terms.len() as f64)
    }

    /// `A_t = mean_{j≤t} R[t][j]`; `A_T` is called Last. None as long as a score is missing, as for all measures here.
    pub fn average(&self, t: usize) -> Option<f64> {
        Self::mean((1..=t.min(self.n_tasks)).map(|j| self.get(t, j)))
    }

    /// `Avg = mean_{t≤T} A_t`.
    pub fn mean_average(&self) -> Option<f64> {
        Self::mean((1..=self.n_tasks).map(|t| self.average(t)))
    }

    /// `F_t = mean_{j<t} (max_{j≤l<t} R[l][j] − R[t][j])`; none for t < 2.
    pub fn forgetting(&self, t: usize) -> Option<f64> {
        Self::mean((1..t).map(|j| {
            let best = (j..t)
                .map(|l| self.get(l, j))
                .collect::<Option<Vec<f64>>>()?
                .into_iter()
                .fold(f64::MIN, f64::max);
            Some(best - self.get(t, j)?)
        }))
    }

    /// `BWT_t = mean_{j<t} (R[t][j] − R[j][j])`; none for t < 2.
    pub fn backward_transfer(&self, t: usize) -> Option<f64> {
        Self::mean((1..t).map(|j| Some(self.get(t, j)? - self.get(j, j)?)))
    }

    /// `FWT = mean_{2≤j≤T} (R[j−1][j] − R[0][j])`: what older tasks did for a task before it was learnt.
    pub fn forward_transfer(&self) -> Option<f64> {
        Self::mean((2..=self.n_tasks).map(|j| Some(self.get(j - 1, j)? - self.get(0, j)?)))
    }

    /// `FWT* = mean_j (R[j][j] − b_j)`, `alone[j−1] = b_j`: the score of a model that learnt task j alone.
    pub fn plasticity(&self, alone: &[f64]) -> Option<f64> {
        Self::mean((1..=self.n_tasks).map(|j| Some(self.get(j, j)? - alone.get(j - 1)?)))
    }

    /// `R[t][pre] − R[0][pre]`: what is left of the pre-training tasks.
    pub fn retention(&self, t: usize) -> Option<f64> {
        Some(self.get(t, self.n_tasks + 1)? - self.get(0, self.n_tasks + 1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_tasks_by_hand() {
        let rows = [[10., 20., 30., 90.], [80., 25., 30., 88.], [85., 70., 20., 91.], [65., 60., 50., 84.]];
        let scores = ScoreMatrix { n_tasks: 3, rows: rows.map(Vec::from).to_vec() };
        assert_eq!(scores.average(2), Some(77.5));
        assert_eq!(scores.forgetting(3), Some(15.0)); // (85 − 65 + 70 − 60) / 2
        assert_eq!(scores.backward_transfer(3), Some(-12.5)); // (65 − 80 + 60 − 70) / 2
        assert_eq!(scores.forward_transfer(), Some(-2.5)); // (25 − 20 + 20 − 30) / 2
        assert_eq!(scores.plasticity(&[80.0, 60.0, 50.0]), Some(10.0 / 3.0));
        assert_eq!(scores.retention(3), Some(-6.0));
        assert_eq!(scores.forgetting(1), None);
        let growing = ScoreMatrix { n_tasks: 3, rows: scores.rows[..2].to_vec() };
        assert_eq!(
            (growing.average(1), growing.average(2), growing.mean_average()),
            (Some(80.0), None, None)
        );
        assert_eq!(growing.plasticity(&[]), None);
    }
}
