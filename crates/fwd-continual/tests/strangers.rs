//! The loop with learners and methods of other people: what they do wrong is said, and nothing goes on for ever.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

use fwd_continual::*;
use std::convert::Infallible;
use std::ops::ControlFlow;

/// One number that moves to the mean of what it sees; it may give up, or mix up its samples.
#[derive(Default)]
struct Mean {
    value: f32,
    gives_up: bool,
    order: Option<Vec<usize>>,
}

impl Learner for Mean {
    type Sample = f32;
    type Training = f32;
    type Note = ();

    fn kind(&self) -> &'static str {
        "mean"
    }

    fn identity(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn order(&self, _: &TaskAt<'_>, _: usize, n: usize) -> Vec<usize> {
        self.order.clone().unwrap_or_else(|| (0..n).collect())
    }

    fn begin_task(
        &mut self,
        _: &[f32],
        _: &TaskAt<'_>,
        _: &mut Reporter<'_, ()>,
    ) -> std::result::Result<Option<f32>, Failure> {
        Ok((!self.gives_up).then_some(self.value))
    }

    fn gradients(
        &self,
        _: &f32,
        _: &TaskAt<'_>,
        batch: &Batch<'_, f32>,
    ) -> std::result::Result<Gradients, Failure> {
        let error = batch.samples().map(|x| self.value - x).sum::<f32>() / batch.len() as f32;
        Ok(Gradients { loss: f64::from(error * error), parameters: vec![error], ..Gradients::default() })
    }

    fn step(
        &mut self,
        _: &mut f32,
        gradients: &Gradients,
        factor: f64,
    ) -> std::result::Result<StepReport, Failure> {
        self.value -= 0.25 * gradients.parameters[0];
        Ok(StepReport { grad_norm: 0.0, lr: factor, optimiser_seconds: 0.0 })
    }

    fn change<'t>(&'t self, before: &'t f32) -> Change<'t> {
        Change { first: 0, values: vec![self.value - before].into() }
    }

    fn end_task(&mut self, _: &f32, _: &[f32], _: &TaskAt<'_>) -> std::result::Result<(), Failure> {
        Ok(())
    }

    fn gradient_of(&self, sample: &f32) -> std::result::Result<Vec<f32>, Failure> {
        Ok(vec![self.value - sample])
    }

    fn save(&self, training: Option<&f32>, section: &mut Section) {
        section.set_info(&(self.value, training));
    }

    fn load(&mut self, section: &Section) -> std::result::Result<Option<f32>, SectionError> {
        let training;
        (self.value, training) = section.info()?;
        Ok(training)
    }
}

/// Asks for samples, announces how many, adds to the gradient.
struct Odd {
    announced: usize,
    brought: Vec<StoredSample>,
    added: f32,
}

impl Method for Odd {
    fn name(&self) -> &'static str {
        "odd"
    }

    fn about(&self) -> &'static str {
        "anything"
    }

    fn n_rehearsed(&self, _: &Plan) -> usize {
        self.announced
    }

    fn rehearsed(&self, _: &StepAt<'_>) -> Vec<StoredSample> {
        self.brought.clone()
    }

    fn adjust(&self, step: &mut StepView<'_>) -> std::result::Result<f64, Failure> {
        step.gradient[0] += self.added;
        Ok(0.0)
    }
}

fn sample(task: usize, sample: usize) -> StoredSample {
    StoredSample { task: TaskId::from_index(task), sample }
}

fn run(learner: Mean, method: impl Method + 'static) -> (Result<Status>, Stage) {
    let task = |name: &str, value: f32| Task { name: name.to_owned(), train: vec![value; 5] };
    let curriculum = Curriculum { pretraining: vec![], tasks: vec![task("a", 1.0), task("b", 3.0)] };
    let mut plan = Plan::default();
    (plan.batch_size, plan.epochs) = (2, 1);
    let mut trainer = Trainer::new(learner, Box::new(method), curriculum, plan).unwrap();
    let mut score = |_: &Mean, _: Moment, _: Column| Ok::<_, Infallible>(50.0);
    let ended = trainer.run(None, &mut score, &mut |_| ControlFlow::Continue(()));
    (ended, trainer.stage())
}

#[test]
fn a_learner_that_gives_up_stops_the_run_instead_of_being_asked_for_ever() {
    let (ended, stage) = run(Mean { gives_up: true, ..Mean::default() }, Plain);
    assert_eq!((ended.unwrap(), stage), (Status::Interrupted, Stage::Begin(TaskId::from_index(0))));
}

#[test]
fn what_a_stranger_returns_is_checked_before_it_is_used() {
    let odd =
        |announced, brought: &[StoredSample], added| Odd { announced, brought: brought.to_vec(), added };
    let refused = |learner, method| {
        let (ended, stage) = run(learner, method);
        assert!(matches!(stage, Stage::Train { step: 0, .. }), "{stage:?}");
        chain(&ended.unwrap_err())
    };
    for order in [vec![0, 1, 2, 3], vec![0, 1, 2, 3, 3], vec![0, 1, 2, 3, 5]] {
        let learner = Mean { order: Some(order), ..Mean::default() };
        assert!(refused(learner, odd(0, &[], 0.0)).contains("order of 5 samples"));
    }
    let lost = refused(Mean::default(), odd(1, &[sample(0, 5)], 0.0));
    assert_eq!(lost, "task `a`, step 1: the method asks for sample 5 of task 1, which does not exist");
    assert!(refused(Mean::default(), odd(1, &[sample(7, 0)], 0.0)).contains("sample 0 of task 8"));
    assert!(refused(Mean::default(), odd(1, &[], 0.0)).contains("brings 0 old samples, not 1"));
    let broken = refused(Mean::default(), odd(0, &[], f32::NAN));
    assert!(broken.starts_with("task `a`: training diverged at step 1; "), "{broken}");
    assert!(broken.ends_with(": the gradient is not a finite number"), "{broken}");
    let (ended, stage) = run(Mean::default(), odd(1, &[sample(0, 4)], 0.5));
    assert_eq!((ended.unwrap(), stage), (Status::Finished, Stage::Done));
}
