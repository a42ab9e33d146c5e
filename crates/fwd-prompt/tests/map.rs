//! Maps of the input as a part of whole runs: what a rule protects, alone and beside prompts, and that such a run is as exact as any other.

#![allow(clippy::unwrap_used)]

mod toy;

use fwd_prompt::continual::*;
use fwd_prompt::linalg::AdamW;
use fwd_prompt::*;
use std::ops::ControlFlow;
use toy::{DIM, Data, Toy, config, finish, run, samples};

/// A map beside `n` own prompts of each task.
fn with_map(form: MapForm, n: usize, rule: Rule) -> Config {
    let mut config = config(rule);
    config.pool.allocation = Allocation::Partitioned(n);
    let optimiser = AdamW { lr: 0.01, ..AdamW::default() };
    config.map = MapConfig { form, rank: 4, optimiser };
    config
}

#[test]
fn what_is_forbidden_stays_and_what_is_learnt_helps() {
    let data = Data::new(3);
    let plain = finish(&data, &Config { map: MapConfig::default(), ..with_map(MapForm::Full, 2, Rule::Fwd) });
    for form in [MapForm::Full, MapForm::LowRank] {
        for (n, rule) in [(0, Rule::Residual), (0, Rule::Fwd), (2, Rule::Residual), (2, Rule::FwdStrict)] {
            let state = finish(&data, &with_map(form, n, rule));
            let forbidden: Vec<f64> =
                state.interference().iter().flatten().filter(|i| i.forbidden).map(|i| i.leakage).collect();
            let worst = forbidden.iter().copied().fold(0.0, f64::max);
            assert!(!forbidden.is_empty() && worst <= 1e-5, "{form:?} {rule:?}: {worst:e}");
            let size = if form == MapForm::Full { DIM * DIM } else { 3 * 2 * 4 * DIM };
            assert_eq!(state.pool().map().unwrap().n_parameters(), size);
            let of_prompts = if n == 0 { 0 } else { plain.pool().n_parameters() };
            assert_eq!(state.pool().n_parameters(), size + of_prompts);
            // Every task is answered better right after it was learnt than by the frozen model.
            for t in 0..3 {
                let rows = &state.scores.rows;
                assert!(rows[t + 1][t] > rows[0][t], "{form:?} {n} {rule:?}: {rows:?}");
            }
        }
        let free = finish(&data, &with_map(form, 0, Rule::None));
        let leakage = free.interference().iter().flatten().map(|i| i.leakage).fold(0.0, f64::max);
        assert!(leakage > 0.1, "{form:?} moves in older subspaces without a rule: {leakage}");
    }
    assert!(plain.pool().map().is_none());
}

/// The outputs for samples of an older task inside its subspace are those of before, however many tasks come later.
#[test]
fn an_older_task_is_read_as_it_was() {
    let data = Data::new(3);
    for (rule, stays) in [(Rule::Residual, true), (Rule::None, false)] {
        let mut config = with_map(MapForm::Full, 0, rule);
        config.subspace.task_energy = 1.0;
        config.map.optimiser.lr = 0.1;
        let (model, mut maps) = (Toy::new(), Vec::new());
        let mut run = trainer(&model, data.curriculum(), &config).unwrap();
        let mut evaluate = |learner: &PromptLearner<&Toy>, moment: Moment, column: Column| {
            maps.resize(moment.n_learnt() + 1, None);
            maps[moment.n_learnt()] = learner.prompts().pool().map().cloned();
            data.score(learner, column)
        };
        run.run(None, &mut evaluate, &mut |_| ControlFlow::Continue(())).unwrap();
        let read = |after: usize, i: usize| {
            let sample = &data.tasks[0][i];
            let own = Embeddings { image: sample.image[..].into(), text: sample.text[..].into() };
            let map: &InputMap = maps[after].as_ref().unwrap();
            map.apply(&own).unwrap().text.into_owned()
        };
        let far = |i: usize| {
            let (then, now) = (read(1, i), read(3, i));
            then.iter().zip(now).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        let furthest = (0..25).map(far).fold(0.0, f32::max);
        assert_eq!(furthest < 1e-4, stays, "{rule:?}: {furthest}");
        assert!(stays || furthest > 0.1, "{furthest}");
    }
}

#[test]
fn a_run_with_a_map_goes_on_to_the_same_bytes() {
    let data = Data::new(2);
    let replay = MethodConfig::Replay(ReplayConfig::default());
    for (form, allocation, method) in [
        (MapForm::Full, Allocation::Partitioned(2), MethodConfig::Plain),
        (MapForm::LowRank, Allocation::Partitioned(0), MethodConfig::Plain),
        (MapForm::LowRank, Allocation::Shared(4), replay),
        (MapForm::Full, Allocation::Shared(4), MethodConfig::Ewc(EwcConfig::default())),
    ] {
        let mut config = with_map(form, 2, Rule::Fwd);
        (config.save_every, config.method, config.pool.allocation) = (3, method, allocation);
        let whole = tempfile::tempdir().unwrap();
        let (expected, _) = run(&data, &config, Some(whole.path()), &mut |_| ControlFlow::Continue(()));
        let cut = tempfile::tempdir().unwrap();
        let mut n_stops = 0;
        loop {
            let mut n_events = 0;
            let (state, status) = run(&data, &config, Some(cut.path()), &mut |event| {
                n_events += usize::from(!matches!(event, Event::Examined { .. }));
                if n_events >= 4 + n_stops / 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            if status == Status::Finished {
                assert_eq!(state, expected);
                break;
            }
            n_stops += 1;
            assert!(n_stops < 200, "{form:?} {method:?} does not get on from {:?}", state.stage);
        }
        assert!(n_stops > 5, "{n_stops} stops");
        assert_eq!(toy::files(cut.path()), toy::files(whole.path()));
        let loaded = Prompts::load(cut.path()).unwrap();
        assert_eq!(loaded, expected.prompts);
        assert!(loaded.pool().map().is_some());
        // With another map it is another run.
        let mut other = config.clone();
        other.map.rank += 1;
        let error = resume(&Toy::new(), data.curriculum(), &other, cut.path()).err().unwrap().to_string();
        assert!(error.contains("another configuration") && error.contains("map"), "{error}");
    }
}

#[test]
fn impossible_maps_are_refused() {
    let refused = |config: &Config| config.check().unwrap_err().to_string();
    let mut config = with_map(MapForm::LowRank, 0, Rule::Fwd);
    config.check().unwrap();
    config.method = MethodConfig::Ewc(EwcConfig::default());
    assert!(refused(&config).contains("ewc needs parameters that all tasks train"));
    config.method = MethodConfig::Plain;
    config.map.rank = 0;
    assert!(refused(&config).contains("map.rank is 0"));
    config.map = MapConfig::default();
    assert!(refused(&config).contains("of 0 prompts"));
    assert!(refused(&with_map(MapForm::Full, 1, Rule::Fwd)).contains("pool.top_k is 2"));

    // Prompts that were learnt behind a map mean nothing without it.
    let behind = finish(&Data::new(1), &with_map(MapForm::Full, 2, Rule::Fwd)).prompts;
    assert!(Library::of([&behind]).unwrap_err().to_string().contains("behind a map"));
}

/// A model whose samples take no embeddings but their own says so before anything is learnt.
#[test]
fn a_model_without_gradients_of_its_input_says_so() {
    struct Closed(Toy);
    impl FrozenModel for Closed {
        type Features = toy::Sample;
        type Error = toy::Broken;
        fn dims(&self) -> Dims {
            self.0.dims()
        }
        fn embeddings<'s>(&'s self, s: &'s toy::Sample) -> std::result::Result<Embeddings<'s>, toy::Broken> {
            self.0.embeddings(s)
        }
        fn queries<'s>(&'s self, s: &'s toy::Sample) -> std::result::Result<Queries<'s>, toy::Broken> {
            self.0.queries(s)
        }
        fn loss_gradient(
            &self,
            batch: &[&toy::Sample],
            prompts: &PromptBatch,
        ) -> std::result::Result<LossGradient, toy::Broken> {
            self.0.loss_gradient(batch, prompts)
        }
    }
    let (model, train) = (Closed(Toy::new()), samples(1, 10));
    let tasks = vec![Task { name: "only".to_owned(), train: &train[..] }];
    let curriculum = Curriculum { pretraining: &[][..], tasks };
    let mut run = trainer(&model, curriculum, &with_map(MapForm::Full, 2, Rule::Fwd)).unwrap();
    let mut evaluate = |_: &PromptLearner<&Closed>, _: Moment, _: Column| Ok::<_, toy::Broken>(1.0);
    let error = run.run(None, &mut evaluate, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(chain(&error).contains("takes none but its own"), "{}", chain(&error));
}
