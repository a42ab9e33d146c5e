//! The memory that a configuration asks for, found out before anything is computed.

use crate::config::RunConfig;
use anyhow::{Result, ensure};
use fwd_prompt::{Allocation, Dims, MapForm};

/// The memory that the system could still give to this process, in bytes; none where it does not say.
pub(crate) fn available() -> Option<u64> {
    let text = fwd_files::read_to_string("/proc/meminfo".as_ref(), 1 << 16).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// Bytes of a number that is trained in f32: itself, its value before the task, its gradient, two moments of the optimiser, and the copy
/// that the model computes with.
const BYTES_OF_TRAINED: u64 = 6 * 4;

/// The memory that training so many weights takes at least, in bytes.
pub(crate) fn of_training(n_parameters: usize) -> u64 {
    (n_parameters as u64).saturating_mul(BYTES_OF_TRAINED)
}

/// Refuses to train more weights than memory holds.
///
/// # Errors
/// That names both figures.
pub(crate) fn check_training(n_parameters: usize, available: Option<u64>) -> Result<()> {
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let (needed, available) = (of_training(n_parameters), available.unwrap_or(u64::MAX));
    ensure!(
        needed <= available,
        "training {n_parameters} weights or more in f32 needs at least {:.1} GiB of memory, {:.1} GiB are free; tune prompts instead \
         (--method fwd)",
        gib(needed),
        gib(available)
    );
    Ok(())
}

impl RunConfig {
    /// Refuses sizes of the pool that need more memory than there is, in bytes: what is counted is the least that is needed, so that a
    /// configuration that passes may still be too large.
    ///
    /// # Errors
    /// That names the keys, the sizes and the figures.
    pub fn check_memory(&self, dims: Dims, available: Option<u64>) -> Result<()> {
        let Some(available) = available else { return Ok(()) };
        let wide = |n: usize| n as u128;
        let pool = &self.pool;
        let (key, n_prompts) = match pool.allocation {
            Allocation::Partitioned(n) => ("partitioned", wide(n) * wide(self.tasks.len().max(1))),
            Allocation::Shared(n) => ("shared", wide(n)),
        };
        let floats =
            wide(pool.prompt_len) * wide(dims.model) + wide(dims.image_query) + wide(dims.text_query);
        // A value, its change, and two moments of the optimiser.
        let of_pool = n_prompts * floats * 4 * 4;
        let in_front = wide(pool.top_k).min(n_prompts) * wide(pool.prompt_len);
        // The input of the language model with its gradient, and the attention scores of one head of one layer.
        let of_batch =
            wide(self.training.batch_size) * (in_front * wide(dims.model) * 2 + in_front * in_front) * 4;
        // A map, its change, its gradient, two moments, and the copy that samples go through.
        let (of_map, rank) = match self.map.form {
            MapForm::None => (0, 0),
            MapForm::Full => (wide(dims.model) * wide(dims.model), 0),
            MapForm::LowRank => (2 * wide(self.map.rank) * wide(dims.model), self.map.rank),
        };
        let gib = |bytes: u128| bytes as f64 / f64::from(1 << 30);
        for (what, bytes) in [
            (
                format!(
                    "{n_prompts} prompts (pool.allocation = {{ {key} = … }}) of pool.prompt_len = {}",
                    pool.prompt_len
                ),
                of_pool,
            ),
            (
                format!("a map (map.form, map.rank = {rank}) of embeddings of {} elements", dims.model),
                of_map * 6 * 4,
            ),
            (
                format!(
                    "training.batch_size = {} samples with {in_front} prompt tokens each (pool.top_k times pool.prompt_len)",
                    self.training.batch_size
                ),
                of_batch,
            ),
        ] {
            ensure!(
                bytes <= u128::from(available),
                "{what} need at least {:.1} GiB of memory, {:.1} GiB are free; make them smaller",
                gib(bytes),
                gib(u128::from(available))
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fwd_prompt::PoolConfig;

    const DIMS: Dims = Dims { model: 192, image_query: 192, text_query: 192 };

    #[test]
    fn sizes_beyond_memory_are_named_with_the_figure() {
        let check = |pool: PoolConfig| {
            let config = RunConfig { pool, ..RunConfig::default() };
            config.check_memory(DIMS, Some(8 << 30)).map_err(|error| error.to_string())
        };
        let default = RunConfig::default().pool;
        check(default.clone()).unwrap();
        let error = check(PoolConfig { prompt_len: 1 << 40, ..default.clone() }).unwrap_err();
        assert!(error.contains("pool.prompt_len = 1099511627776") && error.contains("8.0 GiB"), "{error}");
        let error =
            check(PoolConfig { allocation: Allocation::Shared(usize::MAX), ..default.clone() }).unwrap_err();
        assert!(error.contains("shared"), "{error}");
        // A pool that fits may be too much for a batch.
        let error = check(PoolConfig { prompt_len: 100_000, ..default }).unwrap_err();
        assert!(error.contains("training.batch_size"), "{error}");
        let mut config = RunConfig::default();
        (config.map.form, config.map.rank) = (MapForm::LowRank, usize::MAX);
        let error = config.check_memory(DIMS, Some(8 << 30)).unwrap_err().to_string();
        assert!(error.contains("map.rank = 18446744073709551615"), "{error}");
        config.map.form = MapForm::Full;
        config.check_memory(DIMS, Some(8 << 30)).unwrap();
    }

    #[test]
    fn weights_that_cannot_be_trained_are_named_with_the_figure() {
        check_training(1 << 20, Some(24 << 20)).unwrap();
        check_training(usize::MAX, None).unwrap();
        let error = check_training(7 << 30, Some(100 << 30)).unwrap_err().to_string();
        assert!(error.contains("168.0 GiB") && error.contains("100.0 GiB are free"), "{error}");
    }

    #[test]
    fn the_system_says_how_much_is_left() {
        if cfg!(target_os = "linux") {
            assert!(available().unwrap() > 1 << 20);
        }
    }
}
