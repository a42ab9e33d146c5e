//! Which prompts samples select, and what each of the two keys has to do with it.
//!
//! The score is `s[j] = cos(q_img, k_img[j]) + cos(q_txt, k_txt[j])`. What both terms give to every prompt alike decides nothing, so
//! a key's part in the choice is measured by how far its term for the best prompt lies above its mean over the pool.

use super::findings::{Confusion, KeyShares, TaskSelection};
use anyhow::{Context, Result};
use fwd_prompt::{PromptPool, Queries};

/// What the samples of a task select. `groups[j]` is what prompt j belongs to: two prompts of one group are the same choice.
///
/// # Errors
/// Queries of another width than the keys.
pub(super) fn of_task(
    pool: &PromptPool,
    task: &str,
    queries: &[Queries<'_>],
    groups: &[usize],
) -> Result<TaskSelection> {
    let m = pool.len();
    let (mut selected, mut best, mut rejected, mut keys) = (vec![0; m], vec![0; m], 0, KeyShares::default());
    for queries in queries {
        let terms = pool.similarities(queries)?;
        let selection = pool.select_all_however_far(std::slice::from_ref(queries))?;
        let selection = selection.first().context("a sample without a selection")?;
        // Prompts of a library have the indices behind those of the pool.
        rejected += usize::from(pool.select(queries)?.prompts.first().is_none_or(|&j| j >= m));
        selection.prompts.iter().for_each(|&j| selected[j] += 1);
        let first = *selection.prompts.first().context("a pool without prompts")?;
        best[first] += 1;
        let mean = |term: usize| terms.iter().map(|t| t[term]).sum::<f64>() / m as f64;
        let [image, text] = terms[first];
        keys.image += image;
        keys.text += text;
        keys.image_margin += image - mean(0);
        keys.text_margin += text - mean(1);
        let is_same = |term: usize| {
            let alone = (0..m).reduce(|a, b| if terms[b][term] > terms[a][term] { b } else { a });
            f64::from(u8::from(alone.is_some_and(|j| groups[j] == groups[first])))
        };
        keys.image_alone += is_same(0);
        keys.text_alone += is_same(1);
    }
    let n = queries.len().max(1) as f64;
    let margin = keys.image_margin + keys.text_margin;
    let keys = KeyShares {
        image: keys.image / n,
        text: keys.text / n,
        image_margin: keys.image_margin / n,
        text_margin: keys.text_margin / n,
        image_share: (margin > 0.0).then(|| keys.image_margin / margin),
        image_alone: keys.image_alone / n,
        text_alone: keys.text_alone / n,
    };
    Ok(TaskSelection { task: task.to_owned(), n_samples: queries.len(), rejected, selected, best, keys })
}

/// Samples and selected prompts by owner; `names` are those of all tasks, pre-training first.
pub(super) fn confusion(selection: &[TaskSelection], owners: &[usize], names: &[String]) -> Confusion {
    let mut columns = owners.to_vec();
    columns.dedup();
    let by_owner = |counts: &[usize]| -> Vec<usize> {
        let of =
            |&owner: &usize| counts.iter().zip(owners).filter(|(_, o)| **o == owner).map(|(n, _)| n).sum();
        columns.iter().map(of).collect()
    };
    Confusion {
        rows: selection.iter().map(|row| row.task.clone()).collect(),
        best: selection.iter().map(|row| by_owner(&row.best)).collect(),
        selected: selection.iter().map(|row| by_owner(&row.selected)).collect(),
        columns: columns.iter().filter_map(|&t| names.get(t).cloned()).collect(),
    }
}

/// `Σ_j min(p_a[j], p_b[j])` of all pairs of rows.
pub(super) fn similarity(selection: &[TaskSelection]) -> Vec<Vec<f64>> {
    let shares = |row: &TaskSelection| -> Vec<f64> {
        let n: usize = row.selected.iter().sum();
        row.selected.iter().map(|&count| count as f64 / n.max(1) as f64).collect()
    };
    let shares: Vec<Vec<f64>> = selection.iter().map(shares).collect();
    let common = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a.min(*b)).sum();
    shares.iter().map(|a| shares.iter().map(|b| common(a, b)).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fwd_prompt::Dims;

    /// Two prompts of task 1 and one of task 2. Their image keys are alike, their text keys are not.
    fn pool() -> PromptPool {
        let mut pool = PromptPool::new(Dims { model: 1, image_query: 2, text_query: 2 }, 1, 2);
        for (image, text) in [([1.0, 0.0], [1.0, 0.0]), ([1.0, 0.1], [1.0, 0.2]), ([1.0, 0.0], [0.0, 1.0])] {
            pool.push(&image, &text, &[0.0]).unwrap();
        }
        pool
    }

    fn query(text: [f32; 2]) -> Queries<'static> {
        Queries { image: vec![2.0, 0.0].into(), text: text.to_vec().into() }
    }

    #[test]
    fn the_key_that_tells_prompts_apart_decides() {
        let (pool, owners) = (pool(), [1, 1, 2]);
        let first = of_task(&pool, "a", &[query([1.0, 0.0]), query([3.0, 0.0])], &owners).unwrap();
        assert_eq!(
            (first.n_samples, &first.best[..], &first.selected[..]),
            (2, &[2, 0, 0][..], &[2, 2, 0][..])
        );
        assert!((first.keys.image - 1.0).abs() < 1e-6 && (first.keys.text - 1.0).abs() < 1e-6);
        let second = (1.0f64 / (1.0 + 0.2f64.powi(2))).sqrt();
        assert!((first.keys.text_margin - (1.0 - (1.0 + second) / 3.0)).abs() < 1e-6, "{:?}", first.keys);
        assert!(first.keys.image_share.unwrap() < 0.01);
        assert_eq!((first.keys.image_alone, first.keys.text_alone), (1.0, 1.0));
        // The image key alone cannot tell the tasks apart: the first prompt comes first.
        let other = of_task(&pool, "b", &[query([0.0, 1.0])], &owners).unwrap();
        assert_eq!(
            (&other.best[..], other.keys.image_alone, other.keys.text_alone),
            (&[0, 0, 1][..], 0.0, 1.0)
        );

        let names = ["pre-training", "a", "b"].map(str::to_owned);
        let confusion = confusion(&[first.clone(), other.clone()], &owners, &names);
        assert_eq!(
            (confusion.rows, confusion.columns),
            (vec!["a".into(), "b".into()], vec!["a".into(), "b".into()])
        );
        assert_eq!(confusion.best, [[2, 0], [0, 1]]);
        assert_eq!(confusion.selected, [[4, 0], [1, 1]]);
        assert_eq!(similarity(&[first, other]), [[1.0, 0.5], [0.5, 1.0]]);
    }

    #[test]
    fn one_prompt_leaves_nothing_to_decide() {
        let mut pool = PromptPool::new(Dims { model: 1, image_query: 2, text_query: 2 }, 1, 2);
        pool.push(&[1.0, 0.0], &[1.0, 0.0], &[0.0]).unwrap();
        let selection = of_task(&pool, "a", &[query([1.0, 0.0])], &[1]).unwrap();
        assert_eq!((selection.keys.image_share, selection.best), (None, vec![1]));
    }
}
