//! A method of one's own: the parameters are pulled back, at every step, to where the last task left them, all equally strongly
//! (elastic weight consolidation with every importance 1). It takes part in a run like the methods of the crate.
//!
//! `cargo run -p fwd-continual --example own_method`

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)] // An example shows its result.

use fwd_continual::*;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::ops::ControlFlow;

/// The method. It owns its option and its memory: whether there is a task to hold on to yet.
struct Anchor {
    weight: f64,
    is_set: bool,
}

impl Method for Anchor {
    fn name(&self) -> &'static str {
        "anchor"
    }

    fn about(&self) -> &'static str {
        "a pull back to where the last task left the parameters"
    }

    fn options(&self) -> Value {
        json!({ "weight": self.weight })
    }

    fn check(&self, _plan: &Plan) -> std::result::Result<(), String> {
        let is_possible = self.weight >= 0.0 && self.weight.is_finite();
        if is_possible {
            Ok(())
        } else {
            Err(format!("anchor.weight is {}, must be at least 0", self.weight))
        }
    }

    /// `½·w·‖change‖²` and its gradient.
    fn adjust(&self, step: &mut StepView<'_>) -> std::result::Result<f64, Failure> {
        let weight = if self.is_set { self.weight } else { 0.0 };
        let mut penalty = 0.0;
        for (gradient, &change) in step.gradient.iter_mut().zip(&*(step.change)().values) {
            *gradient += (weight * f64::from(change)) as f32;
            penalty += 0.5 * weight * f64::from(change).powi(2);
        }
        Ok(penalty)
    }

    fn remember(&mut self, _task: &mut TaskView<'_>) -> std::result::Result<Option<()>, Failure> {
        self.is_set = true;
        Ok(Some(()))
    }

    fn save(&self, section: &mut Section) {
        section.set_info(&self.is_set);
    }

    fn load(&mut self, section: &Section, _tasks: &[TaskInfo]) -> std::result::Result<(), SectionError> {
        self.is_set = section.info()?;
        Ok(())
    }
}

/// A line `y = a·x + b` under squared error, by gradient descent.
#[derive(Clone)]
struct Line([f32; 2]);

impl Line {
    fn gradient(&self, (x, y): (f32, f32)) -> [f32; 2] {
        let error = self.0[0] * x + self.0[1] - y;
        [error * x, error]
    }
}

impl Learner for Line {
    type Sample = (f32, f32);
    /// The parameters before the task.
    type Training = [f32; 2];
    type Note = ();

    fn kind(&self) -> &'static str {
        "line"
    }

    fn identity(&self) -> Value {
        Value::Null
    }

    fn begin_task(
        &mut self,
        _samples: &[(f32, f32)],
        _task: &TaskAt<'_>,
        _report: &mut Reporter<'_, ()>,
    ) -> std::result::Result<Option<[f32; 2]>, Failure> {
        Ok(Some(self.0))
    }

    fn gradients(
        &self,
        _training: &[f32; 2],
        _task: &TaskAt<'_>,
        batch: &Batch<'_, (f32, f32)>,
    ) -> std::result::Result<Gradients, Failure> {
        let (mut sum, mut loss) = ([0.0; 2], 0.0);
        for &sample in batch.samples() {
            let gradient = self.gradient(sample);
            loss += 0.5 * f64::from(gradient[1]).powi(2) / batch.len() as f64;
            sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g / batch.len() as f32);
        }
        Ok(Gradients { loss, parameters: sum.to_vec(), ..Gradients::default() })
    }

    fn step(
        &mut self,
        _training: &mut [f32; 2],
        gradients: &Gradients,
        factor: f64,
    ) -> std::result::Result<StepReport, Failure> {
        let (lr, g) = (0.3 * factor, &gradients.parameters);
        self.0.iter_mut().zip(g).for_each(|(p, g)| *p -= lr as f32 * g);
        Ok(StepReport { grad_norm: f64::from(g[0].hypot(g[1])), lr, optimiser_seconds: 0.0 })
    }

    fn change<'t>(&'t self, before: &'t [f32; 2]) -> Change<'t> {
        Change { first: 0, values: vec![self.0[0] - before[0], self.0[1] - before[1]].into() }
    }

    fn end_task(
        &mut self,
        _training: &[f32; 2],
        _samples: &[(f32, f32)],
        _task: &TaskAt<'_>,
    ) -> std::result::Result<(), Failure> {
        Ok(())
    }

    fn gradient_of(&self, sample: &(f32, f32)) -> std::result::Result<Vec<f32>, Failure> {
        Ok(self.gradient(*sample).to_vec())
    }

    fn save(&self, training: Option<&[f32; 2]>, section: &mut Section) {
        section.set_info(&(self.0, training));
    }

    fn load(&mut self, section: &Section) -> std::result::Result<Option<[f32; 2]>, SectionError> {
        let training;
        (self.0, training) = section.info()?;
        Ok(training)
    }
}

/// Points of a line.
fn points(a: f32, b: f32) -> Vec<(f32, f32)> {
    (0..16).map(|i| i as f32 / 8.0 - 1.0).map(|x| (x, a * x + b)).collect()
}

fn main() -> Result<()> {
    let lines = [(1.0, 0.0), (-1.0, 0.5), (0.5, 1.0)];
    for weight in [0.0, 0.5] {
        let tasks = lines.iter().enumerate();
        let tasks = tasks.map(|(i, &(a, b))| Task { name: format!("line {}", i + 1), train: points(a, b) });
        let curriculum = Curriculum { pretraining: Vec::new(), tasks: tasks.collect() };
        let method = Box::new(Anchor { weight, is_set: false });
        let mut trainer = Trainer::new(Line([0.0; 2]), method, curriculum, Plan::default())?;
        let mut score = |line: &Line, _: Moment, column: Column| -> std::result::Result<f64, Infallible> {
            let Column::Task(task) = column else { return Ok(0.0) };
            let (a, b) = lines[task.index()];
            let samples = points(a, b);
            let errors = samples.iter().map(|&sample| f64::from(line.gradient(sample)[1]).powi(2));
            Ok(100.0 * (-errors.sum::<f64>() / samples.len() as f64).exp())
        };
        trainer.run(None, &mut score, &mut |_| ControlFlow::Continue(()))?;
        let scores = trainer.scores();
        let [average, forgetting] = [scores.average(3), scores.forgetting(3)].map(Option::unwrap_or_default);
        println!("anchor weight {weight}: average {average:.1}, forgetting {forgetting:.1}");
    }
    Ok(())
}
