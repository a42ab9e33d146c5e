//! Experience replay (Chaudhry et al. 2019): some samples of learnt tasks stay in a buffer and are learnt again along with new ones.

use super::{Hook, Memory};
use crate::config::Config;
use crate::error::{PromptError, Result};
use crate::state::{RunState, TaskInfo};
use crate::streams::{permutation, stream};
use rand::Rng;
use rand::seq::index;
use serde::{Deserialize, Serialize};

/// Experience replay: `round(batch_share · batch_size)` samples of every batch come from a buffer of old ones, so a batch stays as
/// large as without replay and an epoch takes more steps (set `training.steps` for equal budgets).
///
/// The buffer holds places in the [`Curriculum`](crate::Curriculum), whose samples are the caller's; it takes up a task when that is
/// learnt, and is empty during the first one. A step draws its old samples without repetition, all of them if there are fewer. An
/// old sample selects its prompts as at inference, among all of the pool; of these, the ones that the task may train learn from it.
///
/// # Source
/// Chaudhry et al. 2019, "On Tiny Episodic Memories in Continual Learning". There a batch of new samples is joined by as many old
/// ones; here the share is chosen and the batch does not grow.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplayConfig {
    /// Samples that the buffer holds at most, of all tasks together.
    pub size: usize,
    /// The share of old samples in a batch, in (0, 1).
    pub batch_share: f64,
    /// Which samples it holds.
    pub policy: BufferPolicy,
}

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

/// A sample of the caller's that is kept for rehearsal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredSample {
    /// The task, from 1.
    pub task: usize,
    /// The position in its training samples, from 0.
    pub sample: usize,
}

impl Default for ReplayConfig {
    fn default() -> Self {
        Self { size: 100, batch_share: 0.5, policy: BufferPolicy::default() }
    }
}

impl ReplayConfig {
    fn n_old(&self, batch_size: usize) -> usize {
        (self.batch_share * batch_size as f64).round() as usize
    }

    /// The buffer after task `now`, the last of `tasks`.
    fn update(
        &self,
        buffer: &[StoredSample],
        tasks: &[TaskInfo],
        now: usize,
        seed: u64,
    ) -> Vec<StoredSample> {
        let rng = &mut stream(seed, "replay buffer", [now as u64, 0]);
        let n = tasks[now].n_samples;
        if self.policy == BufferPolicy::Reservoir {
            let mut buffer = buffer.to_vec();
            let n_before: usize = tasks[1..now].iter().map(|task| task.n_samples).sum();
            for sample in 0..n {
                let new = StoredSample { task: now, sample };
                if buffer.len() < self.size {
                    buffer.push(new);
                } else if let Some(place) = buffer.get_mut(rng.random_range(0..=n_before + sample)) {
                    *place = new;
                }
            }
            return buffer;
        }
        let present: Vec<usize> = (1..=now).filter(|&t| tasks[t].n_samples > 0).collect();
        let mut kept = Vec::with_capacity(self.size);
        for (rank, &task) in present.iter().enumerate() {
            // Never grows as tasks are added, so what was dropped is not wanted back.
            let share = (self.size + present.len() - 1 - rank) / present.len();
            if task == now {
                let order = permutation(rng, n).into_iter().take(share);
                kept.extend(order.map(|sample| StoredSample { task, sample }));
            } else {
                kept.extend(buffer.iter().filter(|s| s.task == task).take(share));
            }
        }
        kept
    }
}

impl Hook for ReplayConfig {
    fn check(&self, config: &Config) -> Result<()> {
        let (share, batch) = (self.batch_share, config.training.batch_size);
        let n_old = self.n_old(batch);
        let what = if self.size == 0 {
            "method.replay.size is 0, must be at least 1".to_owned()
        } else if !(share > 0.0 && share < 1.0) {
            format!("method.replay.batch_share is {share}, must be above 0 and below 1")
        } else if n_old == 0 || n_old >= batch {
            format!(
                "method.replay.batch_share is {share}: a batch of {batch} would have {n_old} old samples, but must \
                 have at least one old and one new"
            )
        } else {
            return Ok(());
        };
        Err(PromptError::Config(what))
    }

    fn n_rehearsed(&self, run: &RunState) -> usize {
        self.n_old(run.config.training.batch_size).min(run.memory.buffer.len())
    }

    fn rehearsed(&self, run: &RunState, step: usize) -> Vec<StoredSample> {
        let buffer = &run.memory.buffer;
        let mut rng = stream(run.config.seed, "replay", [run.cursor.task as u64, step as u64]);
        let chosen = index::sample(&mut rng, buffer.len(), self.n_rehearsed(run));
        chosen.into_iter().map(|i| buffer[i]).collect()
    }

    fn remember(&self, run: &RunState, _fisher: &[f64]) -> Memory {
        let buffer = self.update(&run.memory.buffer, &run.tasks, run.cursor.task, run.config.seed);
        Memory { buffer, ..run.memory.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The buffer after each task.
    fn buffers(config: &ReplayConfig, sizes: &[usize], seed: u64) -> Vec<Vec<StoredSample>> {
        let info = |&n_samples: &usize| TaskInfo { name: String::new(), n_samples };
        let tasks: Vec<TaskInfo> = std::iter::once(&7).chain(sizes).map(info).collect();
        let mut found: Vec<Vec<StoredSample>> = vec![vec![]];
        for now in 1..tasks.len() {
            found.push(config.update(&found[now - 1], &tasks, now, seed));
        }
        found.split_off(1)
    }

    #[test]
    fn a_reservoir_holds_every_sample_with_the_same_chance() {
        let config = ReplayConfig { size: 10, ..ReplayConfig::default() };
        let mut counts = vec![0.0f64; 60];
        for seed in 0..2000 {
            let last = buffers(&config, &[5, 40, 15], seed).pop().unwrap();
            assert_eq!(last.len(), 10);
            last.iter().for_each(|s| counts[[0, 5, 45][s.task - 1] + s.sample] += 1.0);
        }
        // Binomial with p = 1/6: 333 times, standard deviation 17; the largest of 60 may be 4.5 of them away.
        assert!(counts.iter().all(|n| (n - 2000.0 / 6.0).abs() < 4.5 * 16.7), "{counts:?}");
    }

    #[test]
    fn equal_shares_shrink_and_keep_a_part_of_what_they_held() {
        let config = ReplayConfig { size: 7, policy: BufferPolicy::EqualShare, ..ReplayConfig::default() };
        let found = buffers(&config, &[20, 20, 0, 2, 20], 3);
        let share = |buffer: &[StoredSample]| -> Vec<usize> {
            (1..=5).map(|t| buffer.iter().filter(|s| s.task == t).count()).collect()
        };
        let shares: Vec<_> = found.iter().map(|buffer| share(buffer)).collect();
        assert_eq!(shares[..2], [[7, 0, 0, 0, 0], [4, 3, 0, 0, 0]]);
        assert_eq!(shares[2..], [[4, 3, 0, 0, 0], [3, 2, 0, 2, 0], [2, 2, 0, 2, 1]]);
        for pair in found.windows(2) {
            let now = pair[1].iter().map(|s| s.task).max().unwrap();
            assert!(pair[1].iter().all(|s| s.task == now || pair[0].contains(s)));
        }
        let mut unique = found[4].clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), 7);
    }
}
