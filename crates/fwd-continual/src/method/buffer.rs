//! A buffer of samples of learnt tasks, of limited size.

use super::interface::TaskView;
use crate::curriculum::{StoredSample, TaskId};
use crate::streams::{permutation, stream};
use rand::Rng;
use rand::seq::index;
use serde::{Deserialize, Serialize};

/// Which samples a full buffer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BufferPolicy {
    /// Each of the N samples so far with the same chance, size/N: large tasks hold more places (Vitter 1985, algorithm R).
    #[default]
    Reservoir,
    /// Each of the t tasks so far has size/t places, the older ones one more if it does not divide; random samples fill them. A
    /// task with fewer samples leaves places empty, one without any has none.
    EqualShare,
}

/// `n` different ones of some samples, or all if they are fewer, in random order.
pub(super) fn drawn(rng: &mut impl Rng, from: &[StoredSample], n: usize) -> Vec<StoredSample> {
    index::sample(rng, from.len(), n.min(from.len())).into_iter().map(|i| from[i]).collect()
}

/// A buffer of at most `size` samples after the task of `view`, which has just been learnt.
pub(super) fn updated(
    (size, policy): (usize, BufferPolicy),
    buffer: &[StoredSample],
    view: &TaskView<'_>,
) -> Vec<StoredSample> {
    let (tasks, now) = (view.tasks, view.task);
    let rng = &mut stream(view.plan.seed, "replay buffer", [now.number() as u64, 0]);
    let n = tasks[now.index()].n_samples;
    if policy == BufferPolicy::Reservoir {
        let mut buffer = buffer.to_vec();
        let n_before: usize = tasks[..now.index()].iter().map(|task| task.n_samples).sum();
        for sample in 0..n {
            let new = StoredSample { task: now, sample };
            if buffer.len() < size {
                buffer.push(new);
            } else if let Some(place) = buffer.get_mut(rng.random_range(0..=n_before + sample)) {
                *place = new;
            }
        }
        return buffer;
    }
    let all = (0..=now.index()).map(TaskId::from_index);
    let present: Vec<TaskId> = all.filter(|task| tasks[task.index()].n_samples > 0).collect();
    let mut kept = Vec::with_capacity(size);
    for (rank, &task) in present.iter().enumerate() {
        // Never grows as tasks are added, so what was dropped is not wanted back.
        let share = (size + present.len() - 1 - rank) / present.len();
        if task == now {
            let order = permutation(rng, n).into_iter().take(share);
            kept.extend(order.map(|sample| StoredSample { task, sample }));
        } else {
            kept.extend(buffer.iter().filter(|s| s.task == task).take(share));
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curriculum::TaskInfo;
    use crate::method::EachGradient;
    use crate::plan::Plan;

    /// The buffer after each task.
    fn buffers(kind: (usize, BufferPolicy), sizes: &[usize], seed: u64) -> Vec<Vec<StoredSample>> {
        let info = |&n_samples: &usize| TaskInfo { name: String::new(), n_samples };
        let tasks: Vec<TaskInfo> = sizes.iter().map(info).collect();
        let mut buffers: Vec<Vec<StoredSample>> = vec![vec![]];
        for now in 0..tasks.len() {
            let (plan, task) = (&Plan { seed, ..Plan::default() }, TaskId::from_index(now));
            let gradients: EachGradient<'_> = &mut |_, _| Ok(Some(()));
            let view = TaskView { plan, task, tasks: &tasks, shares_parameters: true, gradients };
            buffers.push(updated(kind, &buffers[now], &view));
        }
        buffers.split_off(1)
    }

    #[test]
    fn a_reservoir_holds_every_sample_with_the_same_chance() {
        let mut counts = vec![0.0f64; 60];
        for seed in 0..2000 {
            let last = buffers((10, BufferPolicy::Reservoir), &[5, 40, 15], seed).pop().unwrap();
            assert_eq!(last.len(), 10);
            last.iter().for_each(|s| counts[[0, 5, 45][s.task.index()] + s.sample] += 1.0);
        }
        // Binomial with p = 1/6: 333 times, standard deviation 17; the largest of 60 may be 4.5 of them away.
        assert!(counts.iter().all(|n| (n - 2000.0 / 6.0).abs() < 4.5 * 16.7), "{counts:?}");
    }

    #[test]
    fn equal_shares_shrink_and_keep_a_part_of_what_they_held() {
        let kept = buffers((7, BufferPolicy::EqualShare), &[20, 20, 0, 2, 20], 3);
        let share = |buffer: &[StoredSample]| -> Vec<usize> {
            (1..=5).map(|t| buffer.iter().filter(|s| s.task.number() == t).count()).collect()
        };
        let shares: Vec<_> = kept.iter().map(|buffer| share(buffer)).collect();
        assert_eq!(shares[..2], [[7, 0, 0, 0, 0], [4, 3, 0, 0, 0]]);
        assert_eq!(shares[2..], [[4, 3, 0, 0, 0], [3, 2, 0, 2, 0], [2, 2, 0, 2, 1]]);
        for pair in kept.windows(2) {
            let now = pair[1].iter().map(|s| s.task).max().unwrap();
            assert!(pair[1].iter().all(|s| s.task == now || pair[0].contains(s)));
        }
        let mut unique = kept[4].clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), 7);
    }
}
