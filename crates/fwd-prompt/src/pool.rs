//! The multimodal prompt pool: M entries `(k_img ∈ R^{d_v}, k_txt ∈ R^{d_t}, p ∈ R^{L_p×d})`, two keys and one value each
//! (Zheng et al. 2024; the pool with one key is Wang et al. 2022, L2P).
//!
//! ```text
//! s[j] = cos(q_img, k_img[j]) + cos(q_txt, k_txt[j])      the K best j, in descending score, are put in front of the sample
//! L    = L_LM − λ · mean_{j selected} s[j]                keys learn from the second term alone, prompts from the first
//! ```
//! Each sample selects for itself: what it gets does not depend on the batch it is in. Equal scores go to the lower index.

use crate::error::{PromptError, Result};
use crate::map::{InputMap, Reading, mapped};
use crate::model::{Dims, FrozenModel, Place, PromptBatch, Queries};
use fwd_linalg::{LinalgError, cosines};
use std::ops::Range;
use std::sync::Arc;

/// Samples that are scored at a time.
pub(crate) const BATCH: usize = 256;

/// A pool of prompts. It is empty before the first task and grows as tasks open their prompts.
///
/// # Examples
/// ```
/// use fwd_prompt::{Dims, PromptPool, Queries};
/// let mut pool = PromptPool::new(Dims { model: 2, image_query: 2, text_query: 1 }, 1, 1);
/// pool.push(&[1.0, 0.0], &[1.0], &[5.0, 5.0])?;
/// pool.push(&[0.0, 1.0], &[1.0], &[7.0, 7.0])?;
/// let query = Queries { image: vec![0.1, 2.0].into(), text: vec![3.0].into() };
/// let selection = pool.select(&query)?;
/// assert_eq!(selection.prompts, [1]);
/// assert!((selection.scores[0] - 1.9987).abs() < 1e-4);
/// assert_eq!(pool.gather(&[selection])?.values, [7.0, 7.0]);
/// # Ok::<(), fwd_prompt::PromptError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct PromptPool {
    dims: Dims,
    prompt_len: usize,
    top_k: usize,
    pub(crate) place: Place,
    pub(crate) image_keys: Vec<f32>,
    pub(crate) text_keys: Vec<f32>,
    pub(crate) prompts: Vec<f32>,
    /// For each prompt, the score from which on a sample is near enough to it to take prompts.
    pub(crate) thresholds: Vec<f32>,
    n_prompts: usize,
    guests: Option<Arc<Guests>>,
    /// Keys without prompts: a sample that is nearest to one of them takes none.
    anchors: Option<Arc<Self>>,
    /// What is done to a sample's embeddings before anything reads them.
    pub(crate) map: Option<InputMap>,
    /// The task that each prompt belongs to, if a sample takes prompts of one task only; those of a task stand together.
    tasks: Option<Vec<usize>>,
}

/// Prompts of other tasks, for samples that nothing in a pool is for. Their indices follow those of the pool.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Guests {
    pub(crate) pool: PromptPool,
    /// The tasks, and where the prompts of each stand.
    pub(crate) tasks: Vec<(String, Range<usize>)>,
    /// Whether a sample that is too far from all of these takes some as well.
    pub(crate) takes_all: bool,
}

impl Guests {
    /// The prompts of some tasks, of which a sample takes those of one.
    pub(crate) fn new(mut pool: PromptPool, tasks: Vec<(String, Range<usize>)>, takes_all: bool) -> Self {
        let owners = tasks.iter().enumerate().flat_map(|(t, (_, of))| of.clone().map(move |_| t));
        pool.select_by_task(&owners.collect::<Vec<_>>());
        Self { pool, tasks, takes_all }
    }

    /// For each sample, the prompts of the task that the best of all belongs to.
    fn select(&self, queries: &[Queries<'_>], first: usize) -> Result<Vec<Selection>> {
        let pool = &self.pool;
        let mut chosen =
            if self.takes_all { pool.select_all_however_far(queries) } else { pool.select_all(queries) }?;
        chosen.iter_mut().flat_map(|selection| &mut selection.prompts).for_each(|j| *j += first);
        Ok(chosen)
    }
}

/// The prompts of one sample.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Selection {
    /// Indices into the pool, best first; none in an empty pool, and for a sample that nothing in the pool is for. An index of
    /// [`PromptPool::len`] or more is that of a prompt of the library ([`Fallback`](crate::Fallback)).
    pub prompts: Vec<usize>,
    /// Their scores, in [−2, 2].
    pub scores: Vec<f32>,
}

impl PromptPool {
    /// No prompts yet; each will have `prompt_len` tokens, and a sample takes `top_k` of them (fewer while there are fewer).
    pub fn new(dims: Dims, prompt_len: usize, top_k: usize) -> Self {
        let (image_keys, text_keys, prompts, thresholds) = Default::default();
        let (n_prompts, guests, anchors, map, tasks) = (0, None, None, None, None);
        Self {
            dims,
            prompt_len,
            top_k,
            place: Place::default(),
            image_keys,
            text_keys,
            prompts,
            thresholds,
            n_prompts,
            guests,
            anchors,
            map,
            tasks,
        }
    }

    /// Appends a prompt with its keys. Its rejection threshold starts at −∞: every sample may select it ([`Self::select`]).
    ///
    /// # Shapes
    /// `image_key (d_v)`, `text_key (d_t)`, `prompt (L_p, d)`.
    ///
    /// # Errors
    /// [`PromptError::Shape`] if a length is wrong.
    pub fn push(&mut self, image_key: &[f32], text_key: &[f32], prompt: &[f32]) -> Result<()> {
        let actual = [image_key.len(), text_key.len(), prompt.len()];
        let expected = [self.dims.image_query, self.dims.text_query, self.prompt_size()];
        if actual != expected {
            let what =
                format!("image key, text key and prompt have {actual:?} elements, expected {expected:?}");
            return Err(PromptError::Shape { op: "PromptPool::push", what });
        }
        self.image_keys.extend_from_slice(image_key);
        self.text_keys.extend_from_slice(text_key);
        self.prompts.extend_from_slice(prompt);
        self.thresholds.push(f32::NEG_INFINITY);
        self.n_prompts += 1;
        Ok(())
    }

    /// A pool of the same sizes and place without prompts.
    pub(crate) fn emptied(&self) -> Self {
        Self { place: self.place, ..Self::new(self.dims, self.prompt_len, self.top_k) }
    }

    /// Appends the prompts of another pool of the same widths.
    pub(crate) fn append(&mut self, other: Self) {
        self.image_keys.extend(other.image_keys);
        self.text_keys.extend(other.text_keys);
        self.prompts.extend(other.prompts);
        self.thresholds.extend(other.thresholds);
        self.n_prompts += other.n_prompts;
    }

    /// Prompts for samples that nothing in this pool is for; they have the same widths and the same length.
    pub(crate) fn set_guests(&mut self, guests: Option<Arc<Guests>>) {
        self.guests = guests;
    }

    pub(crate) fn guests(&self) -> Option<&Guests> {
        self.guests.as_deref()
    }

    /// Keys without prompts: a sample that is nearest to one of them takes nothing of this pool.
    pub(crate) fn set_anchors(&mut self, anchors: Option<Self>) {
        self.anchors = anchors.map(Arc::new);
    }

    /// The keys of samples of pre-training ([`Anchors`](crate::Anchors)), as a pool whose prompts have no tokens.
    pub fn anchors(&self) -> Option<&Self> {
        self.anchors.as_deref()
    }

    /// From now on a sample takes the prompts of one task only, `tasks[j]` being that of prompt j ([`Inference::Task`](crate::Inference)).
    pub(crate) fn select_by_task(&mut self, tasks: &[usize]) {
        self.tasks = Some(tasks.to_vec());
    }

    /// The widths of keys and prompts.
    pub fn dims(&self) -> Dims {
        self.dims
    }

    /// Number M of prompts.
    pub fn len(&self) -> usize {
        self.n_prompts
    }

    /// Whether no task has opened a prompt yet.
    pub fn is_empty(&self) -> bool {
        self.n_prompts == 0
    }

    /// L_p: tokens of one prompt.
    pub fn prompt_len(&self) -> usize {
        self.prompt_len
    }

    /// K: prompts of a sample.
    pub fn top_k(&self) -> usize {
        self.top_k
    }

    /// Where a sample reads its prompts.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The prompt tokens, `(M·L_p, d)` row-major.
    pub fn prompts(&self) -> &[f32] {
        &self.prompts
    }

    /// Trained numbers: prompts, keys and the map.
    pub fn n_parameters(&self) -> usize {
        let of_map = self.map.as_ref().map_or(0, InputMap::n_parameters);
        self.prompts.len() + self.image_keys.len() + self.text_keys.len() + of_map
    }

    /// The map that every sample's embeddings go through before the model reads them, if one is learnt.
    pub fn map(&self) -> Option<&InputMap> {
        self.map.as_ref()
    }

    /// A sample as the model is to read it behind these prompts.
    ///
    /// # Errors
    /// With a map: [`PromptError::Embeddings`] if the model cannot embed the sample, [`PromptError::Config`] if it takes no embeddings but
    /// its own.
    pub fn read<'s, M: FrozenModel + ?Sized>(
        &self,
        model: &M,
        sample: &'s M::Features,
    ) -> Result<Reading<'s, M::Features>> {
        match &self.map {
            Some(map) => Ok(Reading::Mapped(mapped(map, model, sample)?)),
            None => Ok(Reading::Own(sample)),
        }
    }

    /// Elements of one prompt.
    pub(crate) fn prompt_size(&self) -> usize {
        self.prompt_len * self.dims.model
    }

    /// The selection at inference: the K best prompts of the whole pool, or none if the sample is further from every prompt than
    /// the samples that it was trained on ([`Rejection`](crate::Rejection)), or nearer to a sample of pre-training
    /// ([`Anchors`](crate::Anchors)); then it may take prompts of a library instead ([`Fallback`](crate::Fallback)).
    ///
    /// # Errors
    /// [`PromptError::Shape`] if a query has another width than the keys.
    pub fn select(&self, queries: &Queries<'_>) -> Result<Selection> {
        Ok(self.select_all(std::slice::from_ref(queries))?.pop().unwrap_or_default())
    }

    /// [`Self::select`] of many samples: one product of queries and keys. What a sample gets does not depend on the others.
    ///
    /// # Errors
    /// As [`Self::select`].
    pub fn select_all(&self, queries: &[Queries<'_>]) -> Result<Vec<Selection>> {
        let mut selections = self.each_scored(queries, 0..self.n_prompts, |scores| {
            let is_near = scores.iter().zip(&self.thresholds).any(|(score, threshold)| score >= threshold);
            if is_near { self.chosen(scores) } else { Selection::default() }
        })?;
        let anchors = self.anchors().map(|anchors| anchors.select_all_however_far(queries)).transpose()?;
        let nearest = |i: usize| anchors.as_ref().and_then(|of| of[i].scores.first().copied());
        for (i, selection) in selections.iter_mut().enumerate() {
            if selection.scores.first().copied() < nearest(i) {
                *selection = Selection::default();
            }
        }
        if let Some(guests) = &self.guests {
            // All anchors have the same bound.
            let bound = self.anchors().and_then(|anchors| anchors.thresholds.first().copied());
            let is_known = |i: usize| nearest(i).is_some() && nearest(i) >= bound;
            let of_guests = |i: &usize| selections[*i].prompts.is_empty() && !is_known(*i);
            let rejected: Vec<usize> = (0..queries.len()).filter(of_guests).collect();
            let their: Vec<Queries<'_>> = rejected.iter().map(|&i| queries[i].clone()).collect();
            for (i, selection) in rejected.into_iter().zip(guests.select(&their, self.n_prompts)?) {
                selections[i] = selection;
            }
        }
        Ok(selections)
    }

    /// What [`Self::select`] gives to samples of which none is too far, and none nearer to an anchor.
    ///
    /// # Errors
    /// As [`Self::select`].
    pub fn select_all_however_far(&self, queries: &[Queries<'_>]) -> Result<Vec<Selection>> {
        self.each_scored(queries, 0..self.n_prompts, |scores| self.chosen(scores))
    }

    /// The selection of a sample that has these scores of the whole pool.
    fn chosen(&self, scores: &[f32]) -> Selection {
        let best = (0..scores.len()).reduce(|a, b| if scores[b] > scores[a] { b } else { a });
        let (Some(tasks), Some(best)) = (&self.tasks, best) else { return self.best(scores, 0) };
        let is_other = |task: &usize| *task != tasks[best];
        let start = tasks[..best].iter().rposition(is_other).map_or(0, |last| last + 1);
        let end = tasks[best..].iter().position(is_other).map_or(tasks.len(), |n| best + n);
        self.best(&scores[start..end], start)
    }

    /// The K best prompts of a part of the pool, however far the sample is.
    ///
    /// # Errors
    /// As [`Self::select`].
    pub fn select_among(&self, queries: &Queries<'_>, among: Range<usize>) -> Result<Selection> {
        let all = self.select_all_among(std::slice::from_ref(queries), among)?;
        Ok(all.into_iter().next().unwrap_or_default())
    }

    /// [`Self::select_among`] of many samples: one product of queries and keys.
    ///
    /// # Errors
    /// As [`Self::select`].
    pub fn select_all_among(&self, queries: &[Queries<'_>], among: Range<usize>) -> Result<Vec<Selection>> {
        let first = among.start;
        self.each_scored(queries, among, |scores| self.best(scores, first))
    }

    /// What `of` makes of each sample's scores of a part of the pool. No more than [`BATCH`] samples are scored at a time.
    fn each_scored<T>(
        &self,
        queries: &[Queries<'_>],
        among: Range<usize>,
        mut of: impl FnMut(&[f32]) -> T,
    ) -> Result<Vec<T>> {
        let mut out = Vec::with_capacity(queries.len());
        for batch in queries.chunks(BATCH) {
            let [image, text] = self.terms(batch, among.clone())?;
            let sums: Vec<f32> = image.iter().zip(&text).map(|(image, text)| (image + text) as f32).collect();
            match among.len() {
                0 => out.extend(batch.iter().map(|_| of(&[]))),
                m => out.extend(sums.chunks_exact(m).map(&mut of)),
            }
        }
        Ok(out)
    }

    /// The K best of the prompts from `first` on, which have these scores.
    fn best(&self, scores: &[f32], first: usize) -> Selection {
        let by = |a: &usize, b: &usize| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b));
        let mut order: Vec<usize> = (0..scores.len()).collect();
        if self.top_k < order.len() {
            order.select_nth_unstable_by(self.top_k, by);
            order.truncate(self.top_k);
        }
        order.sort_unstable_by(by);
        let scores = order.iter().map(|&j| scores[j]).collect();
        Selection { prompts: order.into_iter().map(|j| first + j).collect(), scores }
    }

    /// The two terms of the score of every prompt j, `[cos(q_img, k_img[j]), cos(q_txt, k_txt[j])]`.
    ///
    /// # Errors
    /// As [`Self::select`].
    pub fn similarities(&self, queries: &Queries<'_>) -> Result<Vec<[f64; 2]>> {
        let [image, text] = self.terms(std::slice::from_ref(queries), 0..self.n_prompts)?;
        Ok(image.into_iter().zip(text).map(|(image, text)| [image, text]).collect())
    }

    fn check(&self, queries: &Queries<'_>, among: &Range<usize>) -> Result<()> {
        let actual = (queries.image.len(), queries.text.len());
        let expected = (self.dims.image_query, self.dims.text_query);
        if actual != expected || among.end > self.n_prompts {
            let what = format!(
                "queries of {actual:?} elements, expected {expected:?}; prompts {among:?} of {}",
                self.n_prompts
            );
            return Err(PromptError::Shape { op: "PromptPool::select", what });
        }
        Ok(())
    }

    /// The two terms of the scores, `(samples, prompts)` each.
    fn terms(&self, queries: &[Queries<'_>], among: Range<usize>) -> Result<[Vec<f64>; 2]> {
        queries.iter().try_for_each(|queries| self.check(queries, &among))?;
        let shape = (queries.len(), among.len());
        let of = |queries: Vec<f32>, keys: &[f32], dim: usize| {
            let keys = &keys[among.start * dim..among.end * dim];
            let unfit = |e: LinalgError| PromptError::Shape { op: "PromptPool::select", what: e.to_string() };
            cosines(&queries, keys, shape, dim).map_err(unfit)
        };
        let image = queries.iter().flat_map(|queries| &*queries.image).copied().collect();
        let text = queries.iter().flat_map(|queries| &*queries.text).copied().collect();
        Ok([
            of(image, &self.image_keys, self.dims.image_query)?,
            of(text, &self.text_keys, self.dims.text_query)?,
        ])
    }

    /// The prompt tokens of a batch of selections, which may differ in length.
    ///
    /// # Errors
    /// [`PromptError::Shape`] if one names a prompt that does not exist.
    pub fn gather(&self, selections: &[Selection]) -> Result<PromptBatch> {
        self.gather_with(selections, &[], 0)
    }

    /// [`Self::gather`] of prompts that have moved: `change` belongs to the prompts from `first` on.
    pub(crate) fn gather_with(
        &self,
        selections: &[Selection],
        change: &[f32],
        first: usize,
    ) -> Result<PromptBatch> {
        let (size, dim) = (self.prompt_size(), self.dims.model);
        let n: usize = selections.iter().map(|s| s.prompts.len()).sum();
        let mut values = Vec::with_capacity(n * size);
        let mut lengths = Vec::with_capacity(selections.len());
        for selection in selections {
            lengths.push(selection.prompts.len() * self.prompt_len);
            for &j in &selection.prompts {
                let guests = self.guests.as_ref().map(|guests| &guests.pool);
                if let Some(guests) =
                    guests.filter(|g| (self.n_prompts..self.n_prompts + g.len()).contains(&j))
                {
                    values.extend_from_slice(slot(&guests.prompts, j - self.n_prompts, size));
                    continue;
                }
                if j >= self.n_prompts {
                    let what = format!("prompt {j} of {}", self.n_prompts);
                    return Err(PromptError::Shape { op: "PromptPool::gather", what });
                }
                let start = values.len();
                values.extend_from_slice(slot(&self.prompts, j, size));
                if j >= first && (j - first + 1) * size <= change.len() {
                    for (value, change) in values[start..].iter_mut().zip(slot(change, j - first, size)) {
                        *value += change;
                    }
                }
            }
        }
        Ok(PromptBatch { values, lengths, dim, place: self.place })
    }
}

/// Piece `i` of vectors of one length.
pub(crate) fn slot(vectors: &[f32], i: usize, len: usize) -> &[f32] {
    &vectors[i * len..(i + 1) * len]
}

#[cfg(test)]
mod tests {
    use super::*;
    use fwd_continual::{normal, stream};

    fn pool(n: usize, top_k: usize) -> PromptPool {
        let mut rng = stream(1, "test", [0, 0]);
        let mut pool = PromptPool::new(Dims { model: 3, image_query: 5, text_query: 4 }, 2, top_k);
        for _ in 0..n {
            let (image, text, prompt) =
                (normal(&mut rng, 5, 1.0), normal(&mut rng, 4, 1.0), normal(&mut rng, 6, 1.0));
            pool.push(&image, &text, &prompt).unwrap();
        }
        pool
    }

    fn queries(n: usize) -> Vec<Queries<'static>> {
        let mut rng = stream(2, "test", [0, 0]);
        let mut query =
            || Queries { image: normal(&mut rng, 5, 1.0).into(), text: normal(&mut rng, 4, 1.0).into() };
        (0..n).map(|_| query()).collect()
    }

    #[test]
    fn the_best_come_first_and_ties_go_to_the_lower_index() {
        let mut pool = pool(6, 4);
        let first = pool.clone();
        for j in 0..6 {
            pool.push(
                slot(&first.image_keys, j, 5),
                slot(&first.text_keys, j, 4),
                slot(&first.prompts, j, 6),
            )
            .unwrap();
        }
        for query in queries(20) {
            let selection = pool.select(&query).unwrap();
            assert!(selection.scores.windows(2).all(|w| w[0] >= w[1]));
            // Each prompt stands twice in this pool, so the four best are two pairs.
            assert_eq!(
                (selection.prompts[0] + 6, selection.prompts[2] + 6),
                (selection.prompts[1], selection.prompts[3])
            );
            let terms = pool.similarities(&query).unwrap();
            let sums = selection.prompts.iter().map(|&j| (terms[j][0] + terms[j][1]) as f32);
            assert!(sums.eq(selection.scores.iter().copied()));
            let part = pool.select_among(&query, 6..12).unwrap();
            assert_eq!(part.prompts[0], selection.prompts[1]);
        }
    }

    #[test]
    fn a_sample_takes_the_prompts_of_one_task() {
        let whole = pool(9, 3);
        let mut by_task = whole.clone();
        // One task with fewer prompts than a sample takes, one with more.
        let tasks = [1, 1, 3, 3, 3, 3, 4, 4, 4];
        by_task.select_by_task(&tasks);
        let (mut n_mixed, mut seen) = (0, [0; 5]);
        for query in queries(40) {
            let all = whole.select(&query).unwrap();
            let own = by_task.select(&query).unwrap();
            let task = tasks[all.prompts[0]];
            seen[task] += 1;
            n_mixed += usize::from(all.prompts.iter().any(|&j| tasks[j] != task));
            let terms = whole.similarities(&query).unwrap();
            let mut expected: Vec<usize> = (0..9).filter(|&j| tasks[j] == task).collect();
            expected.sort_by(|&a, &b| {
                let score = |j: usize| (terms[j][0] + terms[j][1]) as f32;
                score(b).total_cmp(&score(a))
            });
            expected.truncate(3);
            assert_eq!((own.prompts[0], &own.prompts), (all.prompts[0], &expected));
            assert_eq!(by_task.select_all_however_far(&[query]).unwrap(), [own]);
        }
        assert!(n_mixed > 10 && seen[1] > 0 && seen[3] > 0 && seen[4] > 0, "{n_mixed} {seen:?}");
        by_task.select_by_task(&[2; 9]);
        let query = &queries(1)[0];
        assert_eq!(by_task.select(query).unwrap(), whole.select(query).unwrap());
    }

    #[test]
    fn a_sample_below_all_thresholds_takes_nothing() {
        let mut pool = pool(4, 2);
        for query in queries(20) {
            let all = pool.select_among(&query, 0..4).unwrap();
            let second = all.prompts[1];
            // The best prompt is too far, but the second is not: the selection is what it would be.
            pool.thresholds = vec![3.0; 4];
            pool.thresholds[second] = all.scores[1];
            assert_eq!(pool.select(&query).unwrap(), all);
            pool.thresholds[second] = all.scores[1] + 1e-6;
            assert_eq!(pool.select(&query).unwrap(), Selection::default());
            assert_eq!(pool.select_among(&query, 0..4).unwrap(), all);
            // Samples with and without prompts are gathered in one call.
            let ragged = pool.gather(&[Selection::default(), all.clone()]).unwrap();
            assert_eq!((ragged.lengths, ragged.values), (vec![0, 4], pool.gather(&[all]).unwrap().values));
        }
    }

    #[test]
    fn the_key_gradient_is_that_of_finite_differences() {
        let (pool, queries) = (pool(5, 2), queries(7));
        let select = |pool: &PromptPool, fixed: &[Selection]| -> Vec<Selection> {
            let score = |query: &Queries<'_>, j: usize| {
                let [image, text] = pool.similarities(query).unwrap()[j];
                (image + text) as f32
            };
            fixed
                .iter()
                .zip(&queries)
                .map(|(s, q)| Selection {
                    scores: s.prompts.iter().map(|&j| score(q, j)).collect(),
                    ..s.clone()
                })
                .collect()
        };
        let chosen: Vec<Selection> = queries.iter().map(|q| pool.select(q).unwrap()).collect();
        let (_, image, text) = pool.key_loss(&queries, &chosen, 0.7, 1..4);
        assert_eq!((image.len(), text.len()), (3 * 5, 3 * 4));
        let loss = |pool: &PromptPool| pool.key_loss(&queries, &select(pool, &chosen), 0.7, 1..4).0;
        let h = 1e-2;
        let mut largest = 0f64;
        for i in 0..27 {
            let nudged = |h: f32| {
                let mut pool = pool.clone();
                if i < 15 {
                    pool.image_keys[5 + i] += h
                } else {
                    pool.text_keys[4 + i - 15] += h
                }
                loss(&pool)
            };
            let expected = (nudged(h) - nudged(-h)) / f64::from(2.0 * h);
            let actual = f64::from(if i < 15 { image[i] } else { text[i - 15] });
            assert!((actual - expected).abs() < 2e-4, "{i}: {actual} {expected}");
            largest = largest.max(expected.abs());
        }
        assert!(largest > 1e-2);
    }

    #[test]
    fn missing_modalities_and_empty_pools() {
        let mut pool = PromptPool::new(Dims { model: 1, image_query: 0, text_query: 2 }, 1, 2);
        let query = Queries { image: vec![].into(), text: vec![1.0, 0.0].into() };
        let nothing = pool.gather(&[pool.select(&query).unwrap()]).unwrap();
        assert_eq!((nothing.uniform_length(), nothing.values.len(), nothing.lengths.len()), (Some(0), 0, 1));
        pool.push(&[], &[0.0, 0.0], &[3.0]).unwrap(); // a key without a direction scores 0
        assert_eq!(pool.select(&query).unwrap().scores, [0.0]);
        assert!(pool.push(&[1.0], &[1.0, 1.0], &[1.0]).is_err());
        assert!(pool.select(&Queries { image: vec![].into(), text: vec![1.0].into() }).is_err());
        assert!(pool.similarities(&Queries { image: vec![].into(), text: vec![1.0].into() }).is_err());
        assert!(pool.gather(&[Selection { prompts: vec![4], scores: vec![0.0] }]).is_err());
    }
}
