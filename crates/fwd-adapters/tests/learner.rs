//! Adapters of a linear regression through the whole loop: what is trained, what stays, who answers, and that a killed run ends in the same
//! bytes.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

use fwd_adapters::{
    AdaptableModel, Factors, Lora, LoraConfig, LoraLearner, LossGradient, Module, Penalty, Sharing,
};
use fwd_continual::{
    Column, Curriculum, Event, Learner, Method, MethodConfig, Moment, Plan, SavedState, Stage, Status, Task,
    Trainer,
};
use fwd_linalg::AdamW;
use fwd_prompt::{Rule, SubspaceOptions};
use std::borrow::{Borrow, Cow};
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::path::Path;

const N_IN: usize = 6;
const N_OUT: usize = 4;

/// `y = (W + Σ s·B·A)·x` with the loss `‖y − target‖²/2`.
#[derive(Debug)]
struct Regression {
    weight: Vec<f32>,
}

#[derive(Debug, Clone)]
struct Sample {
    x: Vec<f32>,
    target: Vec<f32>,
    key: Vec<f32>,
}

impl Regression {
    fn new() -> Self {
        Self { weight: (0..N_IN * N_OUT).map(|i| (i as f32 * 0.7).sin()).collect() }
    }

    fn errors<L: Borrow<Lora>>(&self, adapters: &[L], sample: &Sample) -> Vec<f64> {
        let dot = |row: &[f32]| -> f64 {
            row.iter().zip(&sample.x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum()
        };
        let mut y: Vec<f64> = self.weight.chunks_exact(N_IN).map(dot).collect();
        for adapter in adapters {
            let Factors { a, b, rank, scale, router } = adapter.borrow().factors("map").unwrap();
            let gates = gates(router, rank, sample);
            for (o, y) in y.iter_mut().enumerate() {
                let inner = |r: usize| gates[r] * f64::from(b[o * rank + r]) * dot(&a[r * N_IN..][..N_IN]);
                *y += scale * (0..rank).map(inner).sum::<f64>();
            }
        }
        y.iter().zip(&sample.target).map(|(y, &target)| y - f64::from(target)).collect()
    }

    fn loss<L: Borrow<Lora>>(&self, adapters: &[L], sample: &Sample) -> f64 {
        self.errors(adapters, sample).iter().map(|e| e * e / 2.0).sum()
    }
}

/// For each of `rank` columns the gate of its expert; 1 without experts.
fn gates(router: &[f32], rank: usize, sample: &Sample) -> Vec<f64> {
    let logit =
        |row: &[f32]| row.iter().zip(&sample.x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>();
    let parts: Vec<f64> = router.chunks_exact(N_IN).map(|row| logit(row).exp()).collect();
    let sum: f64 = parts.iter().sum();
    if parts.is_empty() {
        return vec![1.0; rank];
    }
    (0..rank).map(|r| parts[r * parts.len() / rank] / sum).collect()
}

impl AdaptableModel for Regression {
    type Sample = Sample;
    type Error = Infallible;

    fn sites(&self) -> Vec<Vec<Module>> {
        vec![vec![Module { name: "map".into(), n_out: N_OUT, n_in: N_IN }]]
    }

    fn adapter_gradient(&self, batch: &[&Sample], adapters: &[&Lora]) -> Result<LossGradient, Infallible> {
        let Factors { a, b, rank, scale, router } = adapters.last().unwrap().factors("map").unwrap();
        let (mut of_a, mut of_b) = (vec![0f64; rank * N_IN], vec![0f64; N_OUT * rank]);
        let mut of_router = vec![0f64; router.len()];
        let (n, n_experts) = (batch.len() as f64, router.len() / N_IN);
        let mut loss = 0.0;
        for sample in batch {
            let errors = self.errors(adapters, sample);
            let gates = gates(router, rank, sample);
            loss += self.loss(adapters, sample) / n;
            // Of each expert the gradient of its gate, times the gate.
            let mut of_gates = vec![0f64; n_experts];
            for r in 0..rank {
                let inner: f64 = (0..N_IN).map(|i| f64::from(a[r * N_IN + i]) * f64::from(sample.x[i])).sum();
                let outer: f64 = errors.iter().enumerate().map(|(o, e)| e * f64::from(b[o * rank + r])).sum();
                for (i, x) in sample.x.iter().enumerate() {
                    of_a[r * N_IN + i] += scale * gates[r] * outer * f64::from(*x) / n;
                }
                for (o, e) in errors.iter().enumerate() {
                    of_b[o * rank + r] += scale * gates[r] * e * inner / n;
                }
                if n_experts > 0 {
                    of_gates[r * n_experts / rank] += scale * gates[r] * outer * inner / n;
                }
            }
            let all: f64 = of_gates.iter().sum();
            for (e, row) in of_router.chunks_exact_mut(N_IN).enumerate() {
                let of_logit = of_gates[e] - gates[e * rank / n_experts] * all;
                row.iter_mut().zip(&sample.x).for_each(|(to, x)| *to += of_logit * f64::from(*x));
            }
        }
        let gradient = of_a.into_iter().chain(of_b).chain(of_router).map(|g| g as f32).collect();
        Ok(LossGradient { loss, gradient })
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
        see("map", &self.weight);
        Ok(())
    }

    fn keys<'s>(&'s self, sample: &'s Sample) -> [Cow<'s, [f32]>; 2] {
        [sample.key[..].into(), (&[0.0][..]).into()]
    }
}

/// Two tasks whose targets are those of different maps, and whose keys differ.
fn tasks() -> Vec<Task<Vec<Sample>>> {
    let sample = |task: usize, i: usize| {
        let x: Vec<f32> = (0..N_IN).map(|k| ((task * 31 + i * 7 + k * 3) as f32 * 0.37).cos()).collect();
        let target = (0..N_OUT).map(|o| x[(o + task) % N_IN] * if task == 0 { 1.5 } else { -1.0 }).collect();
        // Not of one length, and not along one direction.
        let key = [task as f32 + 0.3 * x[0], 1.0 - task as f32, 0.2 * x[1]].map(|v| v * (1.0 + i as f32));
        Sample { x, target, key: key.to_vec() }
    };
    let task = |task: usize| Task {
        name: ["first", "second"][task].to_owned(),
        train: (0..12).map(|i| sample(task, i)).collect(),
    };
    (0..2).map(task).collect()
}

fn learner(model: &Regression, sharing: Sharing) -> LoraLearner<&Regression> {
    LoraLearner::new(model, config(), sharing, Some(5.0), 3).unwrap()
}

fn config() -> LoraConfig {
    LoraConfig {
        rank: 2,
        alpha: 4.0,
        experts: 2,
        // The magnitudes of twelve products, where the authors' model has millions.
        key_weight: 5.0,
        key_share: 0.5,
        // As few events as the other ways of sharing have between two steps.
        gradient_samples: 2,
        optimiser: AdamW { lr: 0.03, weight_decay: 0.0, ..AdamW::default() },
        ..LoraConfig::default()
    }
}

type Run<'m> = Trainer<LoraLearner<&'m Regression>, Vec<Sample>>;

fn plan() -> Plan {
    let mut plan = Plan::default();
    (plan.batch_size, plan.epochs, plan.save_every) = (5, 40, 7);
    plan
}

fn begin<'m>(model: &'m Regression, sharing: Sharing, method: &MethodConfig, dir: Option<&Path>) -> Run<'m> {
    let curriculum = Curriculum { pretraining: Vec::new(), tasks: tasks() };
    let (learner, method): (_, Box<dyn Method>) = (learner(model, sharing), method.build());
    match dir {
        Some(dir) if SavedState::exists(dir) => {
            Trainer::resume(learner, method, curriculum, plan(), dir).unwrap()
        }
        _ => Trainer::new(learner, method, curriculum, plan()).unwrap(),
    }
}

/// Goes on until the end, or until `n_events` were seen.
fn go_on(run: &mut Run<'_>, dir: Option<&Path>, n_events: usize) -> Status {
    let mut score = |_: &LoraLearner<&Regression>, _: Moment, _: Column| Ok::<_, Infallible>(0.0);
    let mut seen = 0;
    run.run(dir, &mut score, &mut |_| {
        seen += 1;
        if seen >= n_events { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap()
}

fn learnt(model: &Regression, sharing: Sharing) -> Run<'_> {
    let mut run = begin(model, sharing, &MethodConfig::Plain, None);
    assert_eq!(go_on(&mut run, None, usize::MAX), Status::Finished);
    run
}

/// The mean loss of a task with the adapters that answer its samples.
fn mean_loss(model: &Regression, learner: &LoraLearner<&Regression>, task: usize) -> f64 {
    let combinations: Vec<Vec<Cow<'_, Lora>>> = learner.combinations().collect();
    let samples = &tasks()[task].train;
    let loss = |sample: &Sample| {
        let of = learner.combination_of(sample).unwrap();
        model.loss(&combinations[of], sample)
    };
    samples.iter().map(loss).sum::<f64>() / samples.len() as f64
}

#[test]
fn one_adapter_forgets_and_one_a_task_does_not() {
    let model = Regression::new();
    let before: Vec<f64> = tasks()
        .iter()
        .map(|task| task.train.iter().map(|s| model.loss::<&Lora>(&[], s)).sum::<f64>() / 12.0)
        .collect();
    let one = learnt(&model, Sharing::One);
    assert_eq!(one.learner().adapters().len(), 1);
    assert_eq!(one.learner().n_trained(), 2 * (N_IN + N_OUT));
    let [first, second] = [0, 1].map(|task| mean_loss(&model, one.learner(), task));
    assert!(second < 0.3 * before[1], "{second} of {}", before[1]);
    assert!(first > 2.0 * second, "the first task is overwritten: {first}, {second}");
    let own = learnt(&model, Sharing::OnePerTask);
    assert_eq!(own.learner().adapters().len(), 2);
    for (task, before) in before.iter().enumerate() {
        for sample in &tasks()[task].train {
            assert_eq!(own.learner().combination_of(sample).unwrap(), task);
        }
        let after = mean_loss(&model, own.learner(), task);
        assert!(after < 0.3 * before, "task {task}: {after} of {before}");
    }
}

#[test]
fn summed_adapters_keep_the_older_one_and_turn_away_from_it() {
    let model = Regression::new();
    let run = learnt(&model, Sharing::Summed(Penalty::Overlap));
    let [older, newer] = run.learner().adapters() else { panic!("two adapters") };
    // The first task alone gives the same adapter: the second has not touched it.
    let alone = learnt(&model, Sharing::OnePerTask);
    assert_eq!(older.values(), alone.learner().adapters()[0].values());
    let overlap = |a: &Lora, b: &Lora| {
        let [a, b] = [a, b].map(|lora| lora.factors("map").unwrap().a.to_vec());
        let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(x * y)).sum::<f64>().abs();
        a.chunks(N_IN).flat_map(|x| b.chunks(N_IN).map(move |y| dot(x, y))).sum::<f64>()
    };
    let begun = Lora::new(
        &model.sites().concat(),
        run.learner().config(),
        3,
        2, // The second task's number.
    );
    let (now, then) = (overlap(older, newer), overlap(older, &begun));
    assert!(now < 0.2 * then, "overlap {now} of {then}");
    let combinations: Vec<_> = run.learner().combinations().collect();
    assert_eq!(combinations, [vec![Cow::Borrowed(older), Cow::Borrowed(newer)]]);
}

#[test]
fn a_penalty_leaves_what_the_first_task_changed_most() {
    let model = Regression::new();
    let moved = |sharing: Sharing| {
        let run = learnt(&model, sharing);
        let [older, newer] = run.learner().adapters() else { panic!("two adapters") };
        let size = |lora: &Lora, key: usize| {
            let Factors { a, b, rank, .. } = lora.factors("map").unwrap();
            let (o, i) = (key / N_IN, key % N_IN);
            (0..rank).map(|r| f64::from(b[o * rank + r] * a[r * N_IN + i])).sum::<f64>().abs()
        };
        let mut keys: Vec<usize> = (0..N_IN * N_OUT).collect();
        keys.sort_by(|x, y| size(older, *y).total_cmp(&size(older, *x)));
        let mean = |keys: &[usize]| keys.iter().map(|key| size(newer, *key)).sum::<f64>() / keys.len() as f64;
        let half = N_IN * N_OUT / 2;
        [mean(&keys[..half]), mean(&keys[half..])]
    };
    let [held, free] = moved(Sharing::Summed(Penalty::KeyElements));
    let [of_overlap, _] = moved(Sharing::Summed(Penalty::Overlap));
    assert!(held < 0.3 * free && held < 0.3 * of_overlap, "{held}, {free}, {of_overlap}");
}

#[test]
fn experts_are_trained_with_their_routers() {
    let model = Regression::new();
    let run = learnt(&model, Sharing::Experts);
    let [trained] = run.learner().adapters() else { panic!("one adapter") };
    assert_eq!(trained.values().len(), run.learner().n_parameters_of_one());
    let begun = Lora::with_experts(&model.sites().concat(), run.learner().config(), 3, 1);
    let [now, then] = [trained, &begun].map(|lora| lora.factors("map").unwrap().router);
    assert_eq!((now.len(), then.len()), (2 * N_IN, 2 * N_IN));
    assert!(now.iter().zip(then).all(|(now, then)| now != then));
    let [first, second] = [0, 1].map(|task| mean_loss(&model, run.learner(), task));
    assert!(first > 2.0 * second, "the first task is overwritten: {first}, {second}");
    let config = LoraConfig { rank: 3, experts: 2, ..LoraConfig::default() };
    let refused = LoraLearner::new(&model, config, Sharing::Experts, None, 0).unwrap_err().to_string();
    assert!(refused.contains("lora.rank is 3") && refused.contains("lora.experts, which is 2"), "{refused}");
}

#[test]
fn the_gradient_is_that_of_loss_and_penalty() {
    let model = Regression::new();
    let mut run = begin(&model, Sharing::Summed(Penalty::Overlap), &MethodConfig::Plain, None);
    // Within the second task.
    while !matches!(run.stage(), Stage::Train { task, step: 20.., .. } if task.index() == 1) {
        go_on(&mut run, None, 1);
    }
    let learner = run.learner();
    let [older, newer] = learner.adapters() else { panic!("two adapters") };
    let (samples, task) =
        (&tasks()[1].train[..4], fwd_continual::TaskAt { id: None, name: "second", seed: 0 });
    let batch = fwd_continual::Batch { new: samples.iter().enumerate().collect(), old: Vec::new() };
    let training = learner_training(&run);
    let found = learner.gradients(&training, &task, &batch).unwrap();
    let objective = |newer: &Lora| {
        let loss = samples.iter().map(|s| model.loss(&[older, newer], s)).sum::<f64>() / 4.0;
        let [old, new] = [older, newer].map(|lora| lora.factors("map").unwrap().a);
        let mut penalty = 0.0;
        for x in old.chunks(N_IN) {
            for y in new.chunks(N_IN) {
                penalty += x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>().abs();
            }
        }
        (loss, learner.config().overlap_weight * penalty)
    };
    let (loss, penalty) = objective(newer);
    assert!((found.loss - loss).abs() < 1e-9 && (found.auxiliary_loss - penalty).abs() < 1e-9);
    for i in 0..newer.values().len() {
        let at = |step: f32| {
            let mut moved = newer.clone();
            moved.values_mut()[i] += step;
            let (loss, penalty) = objective(&moved);
            loss + penalty
        };
        let slope = (at(1e-3) - at(-1e-3)) / 2e-3;
        let got = f64::from(found.parameters[i]);
        assert!(
            (slope - got).abs() < 1e-3 * (1.0 + slope.abs()),
            "value {i}: {got}, differences say {slope}"
        );
    }
}

/// What the loop keeps of the task that is being learnt, through a saved state.
fn learner_training(run: &Run<'_>) -> fwd_adapters::LoraTraining {
    let mut state = run.saved_state();
    let mut learner = learner(run.learner().model(), Sharing::Summed(Penalty::Overlap));
    learner.load(state.section_mut("learner")).unwrap().unwrap()
}

/// Tasks whose inputs lie in the axes of a mask each, and a sample of pre-training along the last axis.
fn in_axes(axes: [[f32; N_IN]; 2]) -> Curriculum<Vec<Sample>> {
    let mut tasks = tasks();
    for (task, axes) in tasks.iter_mut().zip(axes) {
        for sample in &mut task.train {
            sample.x.iter_mut().zip(axes).for_each(|(x, axis)| *x *= axis);
        }
    }
    let mut x = vec![0.0; N_IN];
    x[N_IN - 1] = 1.0;
    let pretraining = vec![Sample { x, target: vec![0.0; N_OUT], key: vec![1.0; 3] }];
    Curriculum { pretraining, tasks }
}

#[test]
fn projected_adapters_add_nothing_to_what_older_tasks_read() {
    let model = Regression::new();
    // The second and the last axis are read by both tasks; the last one by pre-training too.
    let axes = [[1.0, 1.0, 1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0, 1.0, 1.0]];
    for rule in [Rule::Residual, Rule::Fwd, Rule::None] {
        let all = SubspaceOptions { pretrained_energy: 1.0, task_energy: 1.0, ..SubspaceOptions::default() };
        let learner = learner(&model, Sharing::Projected(rule, all));
        let mut run = Trainer::new(learner, MethodConfig::Plain.build(), in_axes(axes), plan()).unwrap();
        assert_eq!(go_on(&mut run, None, usize::MAX), Status::Finished);
        let learner = run.learner();
        let [first, second] = learner.adapters() else { panic!("two adapters") };
        let moved = |sample: &Sample| {
            let [now, then] =
                [&[first, second][..], &[first][..]].map(|adapters| model.errors(adapters, sample));
            now.iter().zip(then).map(|(now, then)| (now - then).abs()).fold(0.0, f64::max)
        };
        let tasks = in_axes(axes).tasks;
        let of_first = tasks[0].train.iter().map(moved).fold(0.0, f64::max);
        let of_second = tasks[1].train.iter().map(moved).fold(0.0, f64::max);
        assert!(of_second > 0.1, "{rule:?}: the second task has learnt, {of_second}");
        // Without what both share with pre-training, which `fwd` leaves free.
        let apart = |sample: &Sample| {
            moved(&Sample { x: [&sample.x[..N_IN - 1], &[0.0]].concat(), ..sample.clone() })
        };
        let of_rest = tasks[0].train.iter().map(apart).fold(0.0, f64::max);
        match rule {
            Rule::Residual => assert!(of_first < 1e-5, "{of_first}"),
            Rule::Fwd => assert!(of_rest < 1e-5 && of_first > 0.01, "{of_rest}, {of_first}"),
            _ => assert!(of_rest > 0.01, "{of_rest}"),
        }
        // What is reported: a share of pre-training and of the first task.
        let [of_task_1, of_task_2] = learner.interference() else { panic!("two learnt tasks") };
        assert_eq!((of_task_1.len(), of_task_2.len()), (1, 2));
        for found in of_task_1.iter().chain(of_task_2) {
            assert!(!found.forbidden || found.leakage < 1e-5, "{rule:?}: {found:?}");
        }
        assert_eq!(of_task_2[1].forbidden, rule != Rule::None);
    }
}

#[test]
fn keep_lora_begins_with_what_the_gradient_wants_beside_what_is_kept() {
    let model = Regression::new();
    let options = SubspaceOptions { pretrained_energy: 0.5, task_energy: 1.0, ..SubspaceOptions::default() };
    let config = LoraConfig { gradient_samples: 64, ..config() };
    let learner = LoraLearner::new(&model, config, Sharing::Keep(options), Some(5.0), 3).unwrap();
    let axes = [[1.0, 1.0, 0.3, 0.3, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]];
    let mut curriculum = in_axes(axes);
    // Of more directions than the adapter has.
    for (i, sample) in curriculum.tasks[0].train.iter_mut().enumerate() {
        sample
            .x
            .iter_mut()
            .enumerate()
            .for_each(|(k, x)| *x = ((i * i * 5 + k * k * 3 + i * k * 7) as f32 * 0.71).sin());
        sample.x.iter_mut().zip(axes[0]).for_each(|(x, axis)| *x *= axis);
    }
    let tasks = curriculum.tasks.clone();
    let mut run = Trainer::new(learner, MethodConfig::Plain.build(), curriculum, plan()).unwrap();
    // Stopped while the first directions are looked for, it begins anew.
    let mut n_examined = 0;
    let mut score = |_: &LoraLearner<&Regression>, _: Moment, _: Column| Ok::<_, Infallible>(0.0);
    let status = run.run(None, &mut score, &mut |event| {
        n_examined += usize::from(matches!(event, Event::Examined { task, .. } if task == "first"));
        if n_examined == 20 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((status.unwrap(), run.learner().adapters().len()), (Status::Interrupted, 0));
    while !matches!(run.stage(), Stage::Train { step: 1.., .. }) {
        go_on(&mut run, None, 100);
    }
    let a = run.learner().adapters()[0].factors("map").unwrap().a.to_vec();
    // The gradient as a whole, without what the first direction of the weight's rows says.
    let samples = &tasks[0].train;
    let mut gradient = vec![0f64; N_OUT * N_IN];
    for sample in samples {
        for (o, e) in model.errors::<&Lora>(&[], sample).iter().enumerate() {
            (0..N_IN)
                .for_each(|i| gradient[o * N_IN + i] += e * f64::from(sample.x[i]) / samples.len() as f64);
        }
    }
    let weight: Vec<f64> = model.weight.iter().map(|&w| f64::from(w)).collect();
    let first = &fwd_linalg::thin_svd(&weight, N_IN).unwrap().right[..N_IN];
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    for row in gradient.chunks_exact_mut(N_IN) {
        let along = dot(row, first);
        row.iter_mut().zip(first).for_each(|(g, v)| *g -= along * v);
    }
    let svd = fwd_linalg::thin_svd(&gradient, N_IN).unwrap();
    let most: f64 = svd.singular_values[..2].iter().map(|s| s * s).sum();
    assert!(
        svd.singular_values[2] > 0.1 * svd.singular_values[1],
        "three directions: {:?}",
        svd.singular_values
    );
    let rows: Vec<Vec<f64>> =
        a.chunks_exact(N_IN).map(|row| row.iter().map(|&x| f64::from(x)).collect()).collect();
    let found: f64 = rows.iter().flat_map(|a| gradient.chunks_exact(N_IN).map(|g| dot(a, g).powi(2))).sum();
    assert!(found > 0.999 * most, "{found} of {most}");
    let lengths = [dot(&rows[0], &rows[0]), dot(&rows[1], &rows[1]), dot(&rows[0], &rows[1])];
    assert!(lengths.iter().zip([1.0, 1.0, 0.0]).all(|(x, want)| (x - want).abs() < 1e-5), "{lengths:?}");
    assert!(rows.iter().all(|row| dot(row, first).abs() < 1e-5));
    assert_eq!(go_on(&mut run, None, usize::MAX), Status::Finished);
    let [first_task, second_task] = run.learner().adapters() else { panic!("two adapters") };
    assert_eq!(first_task.factors("map").unwrap().a, a, "A stays");
    assert_eq!(run.learner().n_trained(), 2 * 2 * N_OUT);
    // What the second task learnt adds nothing to what the first one read.
    let moved = |sample: &Sample| {
        let now = model.errors(&[first_task, second_task], sample);
        let then = model.errors(&[first_task], sample);
        now.iter().zip(then).map(|(now, then)| (now - then).abs()).fold(0.0, f64::max)
    };
    let [of_first, of_second] = [0, 1].map(|t| tasks[t].train.iter().map(moved).fold(0.0, f64::max));
    assert!(of_first < 1e-5 && of_second > 0.1, "{of_first}, {of_second}");
}

#[test]
fn a_task_without_samples_has_no_adapter_and_moves_no_other() {
    let model = Regression::new();
    for sharing in [Sharing::OnePerTask, Sharing::Projected(Rule::Fwd, SubspaceOptions::default())] {
        let mut tasks = tasks();
        tasks.insert(1, Task { name: "empty".to_owned(), train: Vec::new() });
        let curriculum = Curriculum { pretraining: Vec::new(), tasks };
        let learner = learner(&model, sharing);
        let mut run = Trainer::new(learner, MethodConfig::Plain.build(), curriculum, plan()).unwrap();
        assert_eq!(go_on(&mut run, None, usize::MAX), Status::Finished);
        let names: Vec<&str> = run.learner().adapters_of_tasks().unwrap().map(|(task, _)| task).collect();
        assert_eq!(names, ["first", "second"]);
        if let Sharing::Projected(..) = sharing {
            let n_older: Vec<usize> = run.learner().interference().iter().map(Vec::len).collect();
            assert_eq!(n_older, [1, 0, 3], "of pre-training and all older tasks, nothing of the empty one");
        }
    }
}

#[test]
fn a_killed_run_ends_in_the_same_bytes() {
    let model = Regression::new();
    let beside = ["replay", "ewc"].map(|name| (Sharing::One, MethodConfig::named(name).unwrap()));
    let projected = Sharing::Projected(Rule::Fwd, SubspaceOptions::default());
    let plain = [
        Sharing::One,
        Sharing::Experts,
        Sharing::OnePerTask,
        Sharing::Hierarchical,
        Sharing::Summed(Penalty::Overlap),
        Sharing::Summed(Penalty::KeyElements),
        Sharing::Keep(SubspaceOptions { pretrained_energy: 0.6, ..SubspaceOptions::default() }),
        projected,
    ]
    .map(|sharing| (sharing, MethodConfig::Plain));
    for (sharing, method) in plain.into_iter().chain(beside) {
        let mut whole = begin(&model, sharing, &method, None);
        go_on(&mut whole, None, usize::MAX);
        for n_events in [17, 58] {
            let dir = tempfile::tempdir().unwrap();
            let mut n_sessions = 0;
            let ended = loop {
                let mut run = begin(&model, sharing, &method, Some(dir.path()));
                n_sessions += 1;
                // More events than the loop needs for one unit of work, which begins anew if it is not done.
                if go_on(&mut run, Some(dir.path()), n_events) == Status::Finished {
                    break run;
                }
                assert!(n_sessions < 1000);
            };
            assert!(n_sessions > 1);
            // Adapters, keys, subspaces and what was measured.
            let [now, then] = [&ended, &whole].map(|run| format!("{:?}", run.saved_state()));
            assert!(now == then, "{sharing:?} {}", method.name());
        }
    }
}

#[test]
fn a_learner_of_another_configuration_does_not_go_on() {
    let model = Regression::new();
    let dir = tempfile::tempdir().unwrap();
    let mut run = begin(&model, Sharing::One, &MethodConfig::Plain, None);
    go_on(&mut run, Some(dir.path()), 20);
    let curriculum = Curriculum { pretraining: Vec::new(), tasks: tasks() };
    let other = learner(&model, Sharing::OnePerTask);
    assert!(Trainer::resume(other, MethodConfig::Plain.build(), curriculum, plan(), dir.path()).is_err());
}
