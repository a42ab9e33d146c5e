//! Runs of the continual loop on features on disk, with a model whose gradient costs nothing.

use super::rows::{OF_SAMPLE, RowFile};
use super::size::{Cost, RANK, Size};
use anyhow::{Context, Result, ensure};
use fwd_continual::{Column, Curriculum, Event, Moment, Task, TaskId};
use fwd_prompt::{
    Allocation, Config, Dims, Embeddings, FrozenModel, LossGradient, PoolConfig, PromptBatch, PromptLearner,
    PromptNote, Queries, SubspaceOptions, TrainingConfig, trainer,
};
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

/// A model whose samples lie on disk. A sample is its number in the file.
struct OnDisk {
    rows: RowFile,
    dim: usize,
}

impl FrozenModel for OnDisk {
    type Features = usize;
    type Error = io::Error;

    fn dims(&self) -> Dims {
        Dims { model: self.dim, image_query: self.dim, text_query: self.dim }
    }

    fn embeddings<'s>(&'s self, sample: &'s usize) -> io::Result<Embeddings<'s>> {
        Ok(Embeddings { image: self.rows.sample(*sample)?.into(), text: Vec::new().into() })
    }

    fn queries<'s>(&'s self, sample: &'s usize) -> io::Result<Queries<'s>> {
        let rows = self.rows.sample(*sample)?;
        let (image, text) = rows.split_at(self.dim * (OF_SAMPLE - 1));
        Ok(Queries { image: image[..self.dim].to_vec().into(), text: text.to_vec().into() })
    }

    fn loss_gradient(&self, _: &[&usize], prompts: &PromptBatch) -> io::Result<LossGradient> {
        Ok(LossGradient { loss: 1.0, gradient: prompts.values.iter().map(|x| 0.01 * x).collect() })
    }
}

fn config(size: &Size, steps: Option<usize>) -> Config {
    let per_task = (size.prompts / size.tasks).max(1);
    let allocation = Allocation::Partitioned(per_task);
    Config {
        pool: PoolConfig {
            allocation,
            prompt_len: size.tokens,
            top_k: per_task.min(PoolConfig::default().top_k),
            ..PoolConfig::default()
        },
        subspace: SubspaceOptions { max_rank: Some(RANK), ..SubspaceOptions::default() },
        training: TrainingConfig { epochs: 1, steps, ..TrainingConfig::default() },
        ..Config::default()
    }
}

/// A run of all tasks, of which the last one alone is saved: its first save writes what there is, and is not counted.
pub(super) fn saving(size: &Size) -> Result<Cost> {
    let model = OnDisk { rows: RowFile::new(size.samples, size.dim)?, dim: size.dim };
    let samples: Vec<usize> = (0..size.samples).collect();
    let tasks = (1..=size.tasks).map(|t| Task { name: format!("task {t}"), train: &samples[..] }).collect();
    let curriculum = Curriculum { pretraining: &[][..], tasks };
    let mut trainer = trainer(&model, curriculum, &config(size, Some(1)))?;
    let mut score = |_: &PromptLearner<&OnDisk>, _: Moment, _: Column| Ok::<f64, io::Error>(50.0);
    let (last, last_column) = (TaskId::from_index(size.tasks - 1), format!("task {}", size.tasks));
    let before = size.tasks - 1;
    let mut until_last = |event: &Event<PromptNote>| match event {
        Event::Scored { moment, task, .. } if moment.n_learnt() == before && *task == last_column => {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    };
    trainer.run(None, &mut score, &mut until_last)?;
    ensure!(trainer.stage() == fwd_continual::Stage::Begin(last), "the run stopped elsewhere");
    let dir = tempfile::tempdir()?;
    let mut once = |event: &Event<PromptNote>| match event {
        Event::Saved { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    trainer.run(Some(dir.path()), &mut score, &mut once)?;
    let (mut n_saves, written) = (0u32, bytes_written()?);
    let mut count = |event: &Event<PromptNote>| {
        n_saves += u32::from(matches!(event, Event::Saved { .. }));
        ControlFlow::Continue(())
    };
    let began = Instant::now();
    trainer.run(Some(dir.path()), &mut score, &mut count)?;
    let seconds = began.elapsed().as_secs_f64();
    ensure!(n_saves as usize >= size.tasks, "{n_saves} saves");
    let bytes =
        bytes_written()?.zip(written).map(|(after, before)| (after - before) as f64 / f64::from(n_saves));
    Ok(Cost { seconds: seconds / f64::from(n_saves), bytes, peak_mib: None })
}

/// One task from its first look at the samples to its end.
pub(super) fn task(size: &Size) -> Result<Cost> {
    let model = OnDisk { rows: RowFile::new(size.samples, size.dim)?, dim: size.dim };
    let samples: Vec<usize> = (0..size.samples).collect();
    let tasks = vec![Task { name: "a task".to_owned(), train: &samples[..] }];
    let curriculum = Curriculum { pretraining: &[][..], tasks };
    let mut trainer = trainer(&model, curriculum, &config(&Size { tasks: 1, ..*size }, None))?;
    let mut score = |_: &PromptLearner<&OnDisk>, _: Moment, _: Column| Ok::<f64, io::Error>(50.0);
    let began = Instant::now();
    trainer.run(None, &mut score, &mut |_| ControlFlow::Continue(()))?;
    Ok(Cost::of_time(began.elapsed().as_secs_f64()))
}

/// Bytes that this process has given to the system to be written, where the system counts them.
fn bytes_written() -> Result<Option<u64>> {
    let path = Path::new("/proc/self/io");
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: ")).context("no count of bytes")?;
    Ok(Some(line.trim().parse()?))
}
