//! Which prompts a sample has in front of it while its task is learnt, and which keys learn from it.

use crate::error::Result;
use crate::model::Queries;
use crate::pool::{PromptPool, Selection};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::ops::Range;

/// Which prompts a training sample of the current task is given. At inference every sample selects from the whole pool
/// ([`PromptPool::select`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrainingSelection {
    /// The K best of those that the task trains.
    #[default]
    OwnPrompts,
    /// Prompts of one's own for each task, guided by image and text, after ModalPrompt (Zeng et al. 2025, arXiv 2410.05849).
    ///
    /// A task owns one prompt with an image key and a text key, its prototypes, so the allocation must be
    /// [`Partitioned(1)`](crate::Allocation::Partitioned), with a `prompt_len` for the whole task. With
    /// `s[j] = cos(q_img, k_img[j]) + cos(q_txt, k_txt[j])` and K = `pool.top_k`, which here counts tasks:
    ///
    /// ```text
    /// training of task t   the prompt t and the K − 1 older ones with the largest s, which stay as they are
    /// L                    = L_LM + λ·mean_batch [(1 − cos(q_img, k_img[t])) + (1 − cos(q_txt, k_txt[t]))]
    /// inference            the K prompts with the largest s: [`PromptPool::select`]
    /// ```
    /// Prompts stand in descending s both times. λ is [`TrainingConfig::key_weight`](crate::TrainingConfig::key_weight); what is
    /// reported as key loss is `−λ·mean s[t]`, the same but for a constant. Each sample is guided by its own queries, never by its
    /// batch. The source computes the prototypes from the prompts by a small network into CLIP's space, one for both modalities; ours
    /// are trained vectors of their own, one a modality.
    ModalPrompt,
}

impl TrainingSelection {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The prompts of each of some samples of the current task.
    pub(crate) fn select(
        self,
        pool: &PromptPool,
        queries: &[Queries<'_>],
        trained: &Range<usize>,
    ) -> Result<Vec<Selection>> {
        match self {
            Self::OwnPrompts => pool.select_all_among(queries, trained.clone()),
            Self::ModalPrompt => ModalPrompt::select(pool, queries, trained),
        }
    }

    /// The prompts whose keys are drawn to the samples that selected them.
    pub(crate) fn keyed<'s>(
        self,
        selections: &'s [Selection],
        trained: &Range<usize>,
    ) -> Cow<'s, [Selection]> {
        match self {
            Self::OwnPrompts => Cow::Borrowed(selections),
            Self::ModalPrompt => Cow::Owned(ModalPrompt::keyed(selections, trained)),
        }
    }
}

/// The task's prompt and those of the most similar older tasks.
struct ModalPrompt;

impl ModalPrompt {
    /// All of the task's own prompts, and the best of the older ones up to K, in descending score.
    fn select(pool: &PromptPool, queries: &[Queries<'_>], trained: &Range<usize>) -> Result<Vec<Selection>> {
        let own = pool.select_all_among(queries, trained.clone())?;
        let older = pool.select_all_among(queries, 0..trained.start)?;
        Ok(own.into_iter().zip(older).map(|(own, older)| Self::merged(pool.top_k(), own, older)).collect())
    }

    fn merged(top_k: usize, own: Selection, older: Selection) -> Selection {
        let n_older = top_k.saturating_sub(own.prompts.len());
        let pairs = |s: Selection| s.prompts.into_iter().zip(s.scores);
        let mut all: Vec<(usize, f32)> = pairs(older).take(n_older).chain(pairs(own)).collect();
        // Stable and in the order of indices for equal scores, as at inference.
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let (prompts, scores) = all.into_iter().unzip();
        Selection { prompts, scores }
    }

    /// The task's own prompt only: it alone is drawn to the task's queries.
    fn keyed(selections: &[Selection], trained: &Range<usize>) -> Vec<Selection> {
        let own = |selection: &Selection| {
            let pairs = selection.prompts.iter().copied().zip(selection.scores.iter().copied());
            let (prompts, scores) = pairs.filter(|(j, _)| trained.contains(j)).unzip();
            Selection { prompts, scores }
        };
        selections.iter().map(own).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Dims;

    /// Four tasks with keys along the axes: the image key of task j is axis j, its text key is axis 3 − j.
    fn pool(top_k: usize) -> PromptPool {
        let mut pool = PromptPool::new(Dims { model: 1, image_query: 4, text_query: 4 }, 2, top_k);
        let axis = |j: usize| -> Vec<f32> { (0..4).map(|i| f32::from(u8::from(i == j))).collect() };
        (0..4).for_each(|j| pool.push(&axis(j), &axis(3 - j), &[j as f32; 2]).unwrap());
        pool
    }

    fn select(pool: &PromptPool, queries: &Queries<'_>, trained: Range<usize>) -> Selection {
        ModalPrompt::select(pool, std::slice::from_ref(queries), &trained).unwrap().remove(0)
    }

    #[test]
    fn both_modalities_guide_the_selection_and_the_own_prompt_is_always_there() {
        let pool = pool(2);
        let queries = |image: [f32; 4], text: [f32; 4]| Queries {
            image: image.to_vec().into(),
            text: text.to_vec().into(),
        };
        let chosen = |q: &Queries<'_>| select(&pool, q, 3..4).prompts;
        // Task 3 is learnt. The image points to task 0 and a little to 1, the text more strongly to 1 than to 0.
        let both = queries([0.8, 0.6, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]);
        assert_eq!(chosen(&both), [1, 3]);
        assert_eq!(chosen(&queries([0.8, 0.6, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0])), [0, 3]);
        assert_eq!(chosen(&queries([0.0, 0.1, 0.0, 1.0], [1.0, 0.0, 0.1, 0.0])), [3, 1]);
        // At inference the best two, whichever task they are of.
        assert_eq!(pool.select(&both).unwrap().prompts, [1, 0]);
        // The first task has no older ones, and with K = 1 there is no transfer.
        assert_eq!(select(&pool, &both, 0..1).prompts, [0]);
        let alone = self::pool(1);
        assert_eq!(select(&alone, &both, 3..4).prompts, [3]);
    }

    #[test]
    fn only_the_own_key_learns_and_with_the_whole_weight() {
        let pool = pool(3);
        let query = Queries { image: vec![0.5, 0.4, 0.3, 0.2].into(), text: vec![0.1, 0.2, 0.3, 0.4].into() };
        let chosen = [select(&pool, &query, 2..3)];
        assert_eq!(chosen[0].prompts.len(), 3);
        let keyed = ModalPrompt::keyed(&chosen, &(2..3));
        assert_eq!(keyed[0].prompts, [2]);
        let (loss, image, text) = pool.key_loss(std::slice::from_ref(&query), &keyed, 0.5, 2..3);
        assert!((loss + 0.5 * f64::from(keyed[0].scores[0])).abs() < 1e-6);
        assert!(loss != 0.0 && image.iter().any(|g| *g != 0.0) && text.iter().any(|g| *g != 0.0));
    }
}
