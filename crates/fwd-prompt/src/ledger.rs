//! The subspaces of all tasks, `B = [V_0 | V_1 | … | V_t]`, and what each projection rule makes of them.
//!
//! | rule | keeps | δ, c |
//! |---|---|---|
//! | `none` | everything: plain prompt tuning | δ = 1, c = 0 |
//! | `residual` | the complement of all older spaces, the pre-trained one included (PGP, GPM) | δ = 1, c = −1 on V_0 … V_{t−1} |
//! | `fwd` | that complement **and** the pre-trained subspace (Zheng et al. 2024) | δ = 1, c = −1 on V_1 … V_{t−1} |
//! | `fwd-strict` | only the pre-trained subspace and the task's own | δ = 0, c = 1 on V_0 and V_t |
//! | `fwd-weighted` | as `fwd`, the pre-trained part scaled by α | as `fwd`, c = α − 1 on V_0 |

use fwd_linalg::{Basis, Gram, LinalgError, Projection, SubspaceConfig, residual_subspace, shares_within};
use serde::{Deserialize, Serialize};

/// What of a prompt's update is kept.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Everything.
    None,
    /// The complement of all older subspaces, the pre-trained one included.
    Residual,
    /// The complement of the older tasks' subspaces, and the pre-trained subspace.
    #[default]
    Fwd,
    /// The pre-trained subspace and the task's own, nothing else.
    FwdStrict,
    /// As `Fwd`, with the pre-trained part scaled by α ≥ 0: `Π(g) = g − Σ_{0<s<t} g V_s V_sᵀ − (1 − α)·g V_0 V_0ᵀ`. α = 1 is `Fwd`,
    /// α = 0 is `Residual`. Applied to gradient and update, so an update that AdamW does not rescale is scaled by α². Written
    /// `{"fwd-weighted": 0.5}` in a file.
    FwdWeighted(f32),
}

impl Rule {
    /// δ: whether what lies outside of all subspaces is kept.
    fn keeps_rest(self) -> bool {
        self != Self::FwdStrict
    }

    /// c of the subspace of task `of` (0: the pre-trained one) while task `now` is learnt.
    fn coefficient(self, of: usize, now: usize) -> f32 {
        match (self, of) {
            (Self::None, _) => 0.0,
            (Self::Fwd, 0) => 0.0,
            (Self::FwdWeighted(alpha), 0) => alpha - 1.0,
            (Self::Residual | Self::Fwd | Self::FwdWeighted(_), _) if of < now => -1.0,
            (Self::FwdStrict, _) if of == 0 || of == now => 1.0,
            _ => 0.0,
        }
    }

    /// Whether the rule promises that task `now` changes nothing inside the subspace of the older task `of`.
    pub fn forbids(self, of: usize, now: usize) -> bool {
        of < now
            && match self {
                Self::None => false,
                Self::FwdStrict => of != 0,
                _ => self.coefficient(of, now) == -1.0,
            }
    }
}

/// The subspace of one task and what is known about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The task's name.
    pub task: String,
    /// `V_t (d, k_t)`.
    pub basis: Basis,
    /// N: rows of embeddings seen.
    pub n_rows: u64,
    /// Eigenvalues of the residual, largest first, in squares of the embeddings' unit.
    pub eigenvalues: Vec<f64>,
    /// `tr C`: the energy of all rows, in squares of the embeddings' unit.
    pub energy: f64,
    /// The share of the energy that older subspaces hold.
    pub captured_before: f64,
    /// The share that they hold together with this one.
    pub captured: f64,
}

impl Entry {
    /// The root mean square length of the embeddings, `√(tr C / N)`; 0 without any.
    pub fn rms_length(&self) -> f64 {
        (self.energy / self.n_rows.max(1) as f64).sqrt()
    }
}

/// How much of a change lies in the subspace of an older task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Interference {
    /// The older task.
    pub task: String,
    /// `‖ΔP V_s‖_F / ‖ΔP‖_F`, 0 for no change.
    pub leakage: f64,
    /// Whether the rule promises at most 1e-5.
    pub forbidden: bool,
}

/// The subspaces of all tasks so far: entry 0 belongs to pre-training (empty if there were no samples of it).
///
/// # Examples
/// ```
/// use fwd_linalg::{Gram, SubspaceConfig};
/// use fwd_prompt::{Rule, SubspaceLedger};
/// let mut ledger = SubspaceLedger::new(3);
/// let everything = SubspaceConfig { energy: 1.0, ..SubspaceConfig::default() };
/// for (task, axis) in [("pre-training", [1.0f32, 0.0, 0.0]), ("first", [0.0, 1.0, 0.0]), ("second", [0.0, 1.0, 1.0])] {
///     let mut gram = Gram::new(3);
///     gram.push(&axis)?;
///     ledger.add(task, &gram, &everything)?;
/// }
/// assert_eq!((ledger.rank(), ledger.capacity_left()), (3, 0));
/// assert!((ledger.entries()[2].captured_before - 0.5).abs() < 1e-6); // the y axis was the first task's
/// let mut gradient = [1.0, 1.0, 1.0];
/// ledger.projection(Rule::Fwd, 2).apply(&mut gradient)?; // x is pre-trained and free, y is taken
/// assert!(gradient.iter().zip([1.0, 0.0, 1.0]).all(|(g, e)| (g - e as f32).abs() < 1e-6));
/// # Ok::<(), fwd_linalg::LinalgError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct SubspaceLedger {
    dim: usize,
    entries: Vec<Entry>,
}

impl SubspaceLedger {
    /// No subspaces of R^`dim` yet.
    pub fn new(dim: usize) -> Self {
        Self { dim, entries: Vec::new() }
    }

    /// Takes entries back from a file.
    ///
    /// # Errors
    /// [`LinalgError::Shape`] if a basis has another width, or if they are not orthonormal together to 1e-5.
    pub fn from_entries(dim: usize, entries: Vec<Entry>) -> Result<Self, LinalgError> {
        let ledger = Self { dim, entries };
        let mut all = Basis::empty(dim);
        for entry in &ledger.entries {
            all.extend(&entry.basis)?;
        }
        Basis::from_orthonormal(dim, all.into_vectors())?;
        Ok(ledger)
    }

    /// Appends the subspace of a task: what its Gram matrix has beyond all entries so far, by
    /// [`residual_subspace`].
    ///
    /// # Errors
    /// As [`residual_subspace`]; nothing is appended then.
    pub fn add(&mut self, task: &str, gram: &Gram, config: &SubspaceConfig) -> Result<&Entry, LinalgError> {
        let residual = residual_subspace(gram, &self.basis(), config)?;
        let at = self.entries.len();
        self.entries.push(Entry {
            task: task.to_owned(),
            basis: residual.basis,
            n_rows: gram.n_rows(),
            eigenvalues: residual.eigenvalues,
            energy: residual.energy,
            captured_before: residual.captured_before,
            captured: residual.captured,
        });
        Ok(&self.entries[at])
    }

    /// Takes all entries but the first `n` off again.
    pub fn truncate(&mut self, n: usize) {
        self.entries.truncate(n);
    }

    /// d: the width of an embedding.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// All entries, pre-training first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// `k_0 + Σ k_t`.
    pub fn rank(&self) -> usize {
        self.entries.iter().map(|entry| entry.basis.len()).sum()
    }

    /// Directions that belong to no task yet, `d − rank`. At 0 no task gets a subspace any more.
    pub fn capacity_left(&self) -> usize {
        self.dim.saturating_sub(self.rank())
    }

    /// `B (d, rank)`: all subspaces side by side.
    pub fn basis(&self) -> Basis {
        let mut all = Basis::empty(self.dim);
        for entry in &self.entries {
            // `add` and `from_entries` let no other width in.
            let _ = all.extend(&entry.basis);
        }
        all
    }

    /// Π of a rule while task `now` is learnt (from 1; entry 0 is pre-training).
    ///
    /// Once the subspaces fill R^d, `I = Σ V_s V_sᵀ` and Π is written without its first term: what a rule forbids entirely is then
    /// exactly 0, and not the rounding error of a difference, which AdamW would blow up to full size.
    pub fn projection(&self, rule: Rule, now: usize) -> Projection {
        let is_full = self.capacity_left() == 0 && rule != Rule::None;
        let keeps_rest = rule.keeps_rest() && !is_full;
        let shift = if rule.keeps_rest() && is_full { 1.0 } else { 0.0 };
        let entries = self.entries.iter().enumerate();
        let pieces: Vec<_> = entries.map(|(of, e)| (&e.basis, rule.coefficient(of, now) + shift)).collect();
        match Projection::new(self.dim, keeps_rest, &pieces) {
            Ok(projection) => projection,
            Err(error) => unreachable!("all bases have the ledger's width: {error}"),
        }
    }

    /// How much of a change made while task `now` was learnt lies in each older subspace.
    ///
    /// # Shapes
    /// `change (n, d)` row-major: prompts after − prompts before.
    ///
    /// # Errors
    /// [`LinalgError::Shape`] if the length is no multiple of d.
    pub fn interference(
        &self,
        rule: Rule,
        now: usize,
        change: &[f32],
    ) -> Result<Vec<Interference>, LinalgError> {
        let older = &self.entries[..now.min(self.entries.len())];
        let bases: Vec<&Basis> = older.iter().map(|entry| &entry.basis).collect();
        let shares = shares_within(change, self.dim, &bases)?;
        let found = older.iter().zip(shares).enumerate().map(|(of, (entry, leakage))| Interference {
            task: entry.task.clone(),
            leakage,
            forbidden: rule.forbids(of, now),
        });
        Ok(found.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four tasks, each of which owns one axis of R^5; the fifth belongs to none.
    fn axes() -> SubspaceLedger {
        let mut ledger = SubspaceLedger::new(5);
        for axis in 0..4 {
            let mut gram = Gram::new(5);
            gram.push(&(0..5).map(|i| f32::from(u8::from(i == axis))).collect::<Vec<_>>()).unwrap();
            ledger.add(&format!("task {axis}"), &gram, &SubspaceConfig::default()).unwrap();
        }
        ledger
    }

    #[test]
    fn every_rule_keeps_what_its_row_of_the_table_says() {
        let ledger = axes();
        for (rule, now, kept) in [
            (Rule::None, 3, [1.0, 1.0, 1.0, 1.0, 1.0]),
            (Rule::Residual, 3, [0.0, 0.0, 0.0, 1.0, 1.0]),
            (Rule::Residual, 1, [0.0, 1.0, 1.0, 1.0, 1.0]),
            (Rule::Fwd, 3, [1.0, 0.0, 0.0, 1.0, 1.0]),
            (Rule::Fwd, 1, [1.0; 5]),
            (Rule::FwdStrict, 3, [1.0, 0.0, 0.0, 1.0, 0.0]),
            (Rule::FwdStrict, 2, [1.0, 0.0, 1.0, 0.0, 0.0]),
            (Rule::FwdWeighted(0.25), 2, [0.25, 0.0, 1.0, 1.0, 1.0]),
        ] {
            let mut gradient = [1.0f32; 5];
            ledger.projection(rule, now).apply(&mut gradient).unwrap();
            assert!(
                gradient.iter().zip(kept).all(|(g, k)| (g - k).abs() < 1e-6),
                "{rule:?} {now}: {gradient:?}"
            );
            for (of, _) in ledger.entries().iter().enumerate().take(now) {
                assert_eq!(rule.forbids(of, now), kept[of] == 0.0, "{rule:?} {now} {of}");
            }
        }
    }

    #[test]
    fn a_full_space_leaves_exactly_nothing_of_what_is_forbidden() {
        let mut ledger = axes();
        let mut gram = Gram::new(5);
        gram.push(&[0.1f32, 0.2, 0.3, 0.4, 0.5]).unwrap();
        ledger.add("last", &gram, &SubspaceConfig { energy: 1.0, ..SubspaceConfig::default() }).unwrap();
        assert_eq!(ledger.capacity_left(), 0);
        assert!(ledger.projection(Rule::Residual, 5).is_zero());
        let mut gradient = [1.0f32, 2.0, 3.0, 4.0, 5.0];
        ledger.projection(Rule::Fwd, 5).apply(&mut gradient).unwrap();
        assert!(
            (gradient[0].abs() - 1.0).abs() < 1e-6 && gradient[1..].iter().all(|x| *x == 0.0),
            "{gradient:?}"
        );
        ledger.projection(Rule::None, 5).apply(&mut gradient).unwrap();
        assert!((gradient[0].abs() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn interference_is_the_share_inside_each_older_subspace() {
        let shares = axes().interference(Rule::Fwd, 2, &[3.0, 0.0, 0.0, 0.0, 4.0]).unwrap();
        assert_eq!(shares.len(), 2);
        assert!((shares[0].leakage - 0.6).abs() < 1e-6 && !shares[0].forbidden);
        assert!(shares[1].leakage < 1e-6 && shares[1].forbidden);
        assert!(axes().interference(Rule::Fwd, 2, &[0.0; 5]).unwrap().iter().all(|x| x.leakage == 0.0));
    }
}
