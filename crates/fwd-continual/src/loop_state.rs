//! What the loop saves of itself: where it stands, its scores, and what it was told.
//!
//! Rows of scores that are full are tensors `scores.ROW` of their own, sealed; the row that grows is in the JSON with the rest.

use crate::curriculum::TaskInfo;
use crate::plan::Plan;
use crate::saved::{SavedState, Section, SectionError};
use crate::scores::ScoreMatrix;
use crate::stage::Stage;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the loop itself saves: where it stands and what it was told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoopState {
    /// What is done next.
    pub stage: Stage,
    /// The tasks by name and size, in the order in which they are learnt.
    pub tasks: Vec<TaskInfo>,
    /// Number of samples of pre-training.
    pub n_pretraining: usize,
    /// The scores so far.
    pub scores: ScoreMatrix,
    /// How the run goes through its samples.
    pub plan: Plan,
    /// Name and options of the method.
    pub method: (String, Value),
    /// Kind and identity of the learner.
    pub learner: (String, Value),
}

pub(crate) const LOOP: &str = "loop";
pub(crate) const LEARNER: &str = "learner";
pub(crate) const METHOD: &str = "method";

fn row_name(row: usize) -> String {
    format!("scores.{row}")
}

impl LoopState {
    /// What a saved state says of the loop.
    ///
    /// # Errors
    /// A missing or damaged section.
    pub fn of(state: &SavedState) -> std::result::Result<Self, SectionError> {
        let section = state.section(LOOP)?;
        let mut saved: Self = section.info()?;
        let full_rows = (0..).map(row_name).map_while(|name| Some((section.shape(&name)?, name)));
        let mut rows = full_rows
            .map(|(shape, name)| section.f64(&name, &[shape.iter().product()]))
            .collect::<std::result::Result<Vec<_>, _>>()?;
        rows.append(&mut saved.scores.rows);
        saved.scores.rows = rows;
        Ok(saved)
    }

    /// Writes the rows of scores that are full, which never change again, and returns the others.
    pub(crate) fn seal_rows(rows: &[Vec<f64>], n_columns: usize, section: &mut Section) -> Vec<Vec<f64>> {
        let n_full = rows.iter().take_while(|row| row.len() >= n_columns).count();
        for (i, row) in rows[..n_full].iter().enumerate() {
            let name = row_name(i);
            section.seal(&name, |section| section.put_f64(&name, &[row.len()], row));
        }
        rows[n_full..].to_vec()
    }

    /// What must be the same for a run to go on.
    pub(crate) fn identity(&self) -> Value {
        let named =
            |(name, options): &(String, Value)| serde_json::json!({ "name": name, "options": options });
        serde_json::json!({ "plan": self.plan, "method": named(&self.method), "learner": named(&self.learner) })
    }
}

impl SavedState {
    /// The section of the learner, if it is one of this kind.
    ///
    /// # Errors
    /// If the state is that of another kind of learner.
    pub fn learner(&self, kind: &str) -> std::result::Result<&Section, SectionError> {
        let (actual, _) = LoopState::of(self)?.learner;
        if actual != kind {
            return Err(SectionError(format!("the state is one of the learner `{actual}`, not `{kind}`")));
        }
        self.section(LEARNER)
    }
}
