//! Two tasks on one linear map, each with another target: what one adapter for both forgets, and what an adapter for each task keeps.
//!
//! ```text
//! cargo run -p fwd-adapters --example regression
//! ```

#![allow(clippy::print_stdout)]

use fwd_adapters::{
    AdaptableModel, Factors, Lora, LoraConfig, LoraLearner, LossGradient, Module, Penalty, Sharing,
};
use fwd_continual::{Column, Curriculum, MethodConfig, Moment, Plan, Task, Trainer};
use fwd_linalg::AdamW;
use fwd_prompt::{Rule, SubspaceOptions};
use std::borrow::{Borrow, Cow};
use std::convert::Infallible;
use std::error::Error;
use std::ops::ControlFlow;

/// Width of inputs and outputs.
const D: usize = 4;

/// The identity, and what adapters add to it: `y = x + Σ s·B·(A·x)`, with the loss `‖y − target‖²/2`.
struct Identity;

/// An input, what it shall become, and which task it is of.
struct Sample {
    x: [f32; D],
    target: [f32; D],
    key: [f32; 2],
}

impl Identity {
    fn errors<L: Borrow<Lora>>(adapters: &[L], sample: &Sample) -> [f32; D] {
        let mut y = sample.x;
        let of_map = adapters.iter().filter_map(|adapter| adapter.borrow().factors("map"));
        for Factors { a, b, rank, scale, .. } in of_map {
            for r in 0..rank {
                let inner: f32 = a[r * D..].iter().zip(sample.x).map(|(a, x)| a * x).sum();
                y.iter_mut()
                    .zip(b.iter().skip(r).step_by(rank))
                    .for_each(|(y, b)| *y += scale as f32 * b * inner);
            }
        }
        std::array::from_fn(|i| y[i] - sample.target[i])
    }

    fn loss<L: Borrow<Lora>>(adapters: &[L], sample: &Sample) -> f64 {
        Self::errors(adapters, sample).iter().map(|e| f64::from(e * e) / 2.0).sum()
    }
}

impl AdaptableModel for Identity {
    type Sample = Sample;
    type Error = Infallible;

    fn sites(&self) -> Vec<Vec<Module>> {
        vec![vec![Module { name: "map".to_owned(), n_out: D, n_in: D }]]
    }

    fn adapter_gradient(&self, batch: &[&Sample], adapters: &[&Lora]) -> Result<LossGradient, Infallible> {
        let n = batch.len() as f32;
        let Some(Factors { a, b, rank, scale, .. }) =
            adapters.last().and_then(|adapter| adapter.factors("map"))
        else {
            return Ok(LossGradient { loss: 0.0, gradient: Vec::new() });
        };
        let (mut of_a, mut of_b) = (vec![0.0; rank * D], vec![0.0; D * rank]);
        for sample in batch {
            let errors = Self::errors(adapters, sample);
            for r in 0..rank {
                let inner: f32 = a[r * D..].iter().zip(sample.x).map(|(a, x)| a * x).sum();
                let outer: f32 = (0..D).map(|o| errors[o] * b[o * rank + r]).sum();
                for i in 0..D {
                    of_a[r * D + i] += scale as f32 * outer * sample.x[i] / n;
                    of_b[i * rank + r] += scale as f32 * errors[i] * inner / n;
                }
            }
        }
        let loss = batch.iter().map(|sample| Self::loss(adapters, sample)).sum::<f64>() / f64::from(n);
        Ok(LossGradient { loss, gradient: [of_a, of_b].concat() })
    }

    fn inputs(
        &self,
        sample: &Sample,
        _adapters: &[&Lora],
        see: &mut dyn FnMut(&[&str], &[f32]),
    ) -> Result<(), Infallible> {
        see(&["map"], &sample.x);
        Ok(())
    }

    fn weights(&self, see: &mut dyn FnMut(&str, &[f32])) -> Result<(), Infallible> {
        let identity: Vec<f32> = (0..D * D).map(|i| if i % (D + 1) == 0 { 1.0 } else { 0.0 }).collect();
        see("map", &identity);
        Ok(())
    }

    fn keys<'s>(&'s self, sample: &'s Sample) -> [Cow<'s, [f32]>; 2] {
        [sample.key[..].into(), (&[0.0][..]).into()]
    }
}

/// One task reverses its inputs, the other one turns their signs.
fn samples(task: usize) -> Vec<Sample> {
    let sample = |i: usize| {
        let x: [f32; D] = std::array::from_fn(|k| ((i * 5 + k * 3 + task) as f32).sin());
        let target = std::array::from_fn(|k| if task == 0 { x[D - 1 - k] } else { -x[k] });
        Sample { x, target, key: if task == 0 { [1.0, 0.1] } else { [0.1, 1.0] } }
    };
    (0..16).map(sample).collect()
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    println!("mean loss after both tasks, of the first and of the second");
    for sharing in [
        Sharing::One,
        Sharing::OnePerTask,
        Sharing::Hierarchical,
        Sharing::Summed(Penalty::Overlap),
        Sharing::Summed(Penalty::KeyElements),
        Sharing::Keep(SubspaceOptions { pretrained_energy: 0.2, ..SubspaceOptions::default() }),
        Sharing::Projected(Rule::Fwd, SubspaceOptions::default()),
    ] {
        let config = LoraConfig {
            rank: D,
            optimiser: AdamW { lr: 0.03, weight_decay: 0.0, ..AdamW::default() },
            ..LoraConfig::default()
        };
        let learner = LoraLearner::new(Identity, config, sharing, None, 0)?;
        let tasks = ["reverse", "turn"].iter().enumerate();
        let tasks = tasks.map(|(i, name)| Task { name: (*name).to_owned(), train: samples(i) }).collect();
        let curriculum = Curriculum { pretraining: Vec::new(), tasks };
        let mut plan = Plan::default();
        plan.epochs = 100;
        let mut trainer = Trainer::new(learner, MethodConfig::Plain.build(), curriculum, plan)?;
        let mut score = |_: &LoraLearner<Identity>, _: Moment, _: Column| Ok::<_, Infallible>(0.0);
        trainer.run(None, &mut score, &mut |_| ControlFlow::Continue(()))?;
        let learner = trainer.learner();
        let combinations: Vec<Vec<Cow<'_, Lora>>> = learner.combinations().collect();
        let mean = |task: usize| -> Result<f64, Box<dyn Error + Send + Sync>> {
            let mut sum = 0.0;
            for sample in samples(task) {
                let of = learner.combination_of(&sample).map_err(|failure| failure.source)?;
                sum += Identity::loss(&combinations[of], &sample);
            }
            Ok(sum / 16.0)
        };
        println!("{sharing:?}: {:.4}, {:.4}", mean(0)?, mean(1)?);
    }
    Ok(())
}
