//! What replay, elastic weight consolidation and prompts of one's own for each task promise.

#![allow(clippy::unwrap_used)]

mod toy;

use fwd_prompt::continual::*;
use fwd_prompt::*;
use rand::Rng;
use std::cell::RefCell;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use toy::*;

const REPLAY: ReplayConfig = ReplayConfig { size: 12, batch_share: 0.5, policy: BufferPolicy::EqualShare };
const AGEM: AgemConfig = AgemConfig { size: 12, reference: 6, policy: BufferPolicy::EqualShare };
const GEM: GemConfig = GemConfig { size: 12, reference: 4, margin: 0.5, policy: BufferPolicy::EqualShare };
const EWC: EwcConfig = EwcConfig { weight: 1e4, decay: 0.9, fisher_samples: 10 };

/// Plain tuning of prompts that all samples share, with a method.
fn shared(method: MethodConfig) -> Config {
    let mut config = Config { method, ..config(Rule::None) };
    config.pool.top_k = 6;
    config.training.steps = Some(120);
    config
}

/// One prompt a task.
fn modal_prompt(top_k: usize) -> Config {
    let mut config = config(Rule::None);
    config.pool = PoolConfig {
        allocation: Allocation::Partitioned(1),
        selection: TrainingSelection::ModalPrompt,
        prompt_len: 6,
        top_k,
        ..config.pool
    };
    config
}

/// A vector of its own for each number.
fn direction(i: u64) -> Vec<f32> {
    let mut rng = stream(2, "direction", [i, 0]);
    (0..DIM).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// Moves the queries of a sample near two directions.
fn point(sample: &mut Sample, image: u64, text: u64) {
    let shift = |values: &mut [f32], to: u64| {
        values.iter_mut().zip(direction(to)).for_each(|(x, d)| *x = 0.3 * *x + d);
    };
    shift(&mut sample.image[..DIM], image);
    shift(&mut sample.text, text);
}

/// Tasks that can be told apart by image and text.
fn separable(n_tasks: u64) -> Data {
    let mut data = Data::new(n_tasks);
    for (t, samples) in (0..).zip(&mut data.tasks) {
        samples.iter_mut().for_each(|sample| point(sample, t, 50 + t));
    }
    data
}

fn events(data: &Data, config: &Config) -> (State, Vec<Event<PromptNote>>) {
    let mut events = Vec::new();
    let (state, _) = run(data, config, None, &mut |event| {
        events.push(event.clone());
        ControlFlow::Continue(())
    });
    (state, events)
}

/// A learning rate in units of the embeddings is that multiple of their root mean square.
#[test]
fn a_learning_rate_may_be_in_units_of_the_embeddings() {
    let mut data = Data::new(1);
    data.tasks[0].iter_mut().for_each(|sample| {
        sample.image.iter_mut().chain(&mut sample.text).for_each(|x| *x *= 3.0);
    });
    let elements = || data.tasks[0].iter().flat_map(|sample| sample.image.iter().chain(&sample.text));
    let rms = (elements().map(|x| f64::from(*x).powi(2)).sum::<f64>() / elements().count() as f64).sqrt();
    assert!(rms > 1.5, "{rms}");
    let with = |lr_unit: LrUnit, lr: f64| {
        let mut config = config(Rule::None);
        config.training.prompts.lr = lr;
        config.training.lr_unit = lr_unit;
        config.training.steps = Some(20);
        events(&data, &config)
    };
    let (_, relative) = with(LrUnit::Embedding, 0.01);
    let (_, absolute) = with(LrUnit::One, 0.01 * rms);
    let losses = |events: &[Event<PromptNote>]| -> Vec<(f64, f64)> {
        let step = |event: &Event<PromptNote>| match event {
            Event::Step { loss, lr, .. } => Some((*loss, *lr)),
            _ => None,
        };
        events.iter().filter_map(step).collect()
    };
    let (relative, absolute) = (losses(&relative), losses(&absolute));
    assert_eq!((relative.len(), absolute.len()), (20, 20));
    for ((loss, lr), (other, of_other)) in relative.iter().zip(&absolute) {
        assert!((loss - other).abs() < 1e-5 && (lr / of_other - 1.0).abs() < 1e-6, "{loss} {other}");
    }
}

/// The penalties of the steps of each task.
fn penalties(events: &[Event<PromptNote>], task: &str) -> Vec<f64> {
    let of = |event: &Event<PromptNote>| match event {
        Event::Step { task: name, penalty, .. } if name == task => Some(*penalty),
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

#[test]
fn replay_brings_an_old_task_back() {
    let data = Data::new(3);
    let plain = finish(&data, &shared(MethodConfig::Plain));
    assert!(plain.stored.is_empty());
    let lost = |state: &State| state.scores.forgetting(3).unwrap();
    assert!(lost(&plain) > 5.0, "{:?}", plain.scores);
    for policy in [BufferPolicy::EqualShare, BufferPolicy::Reservoir] {
        let replay = finish(&data, &shared(MethodConfig::Replay(ReplayConfig { policy, ..REPLAY })));
        assert!(lost(&replay) < 0.5 * lost(&plain), "{:?} {:?}", replay.scores, plain.scores);
        let stored = replay.stored;
        assert_eq!(stored.len(), 12);
        assert!(stored.iter().all(|s| (1..=3).contains(&s.task.number()) && s.sample < 25));
        // The first task has nothing to rehearse.
        assert_eq!(replay.scores.get(1, 1), plain.scores.get(1, 1));
    }
}

/// Remembers what it was asked.
struct Spy {
    toy: Toy,
    /// The targets' first elements, which tell tasks apart, and the prompts of each call.
    calls: RefCell<Vec<(Vec<f32>, PromptBatch)>>,
}

impl FrozenModel for Spy {
    type Features = Sample;
    type Error = Broken;

    fn dims(&self) -> Dims {
        self.toy.dims()
    }

    fn embeddings<'s>(&'s self, sample: &'s Sample) -> std::result::Result<Embeddings<'s>, Broken> {
        self.toy.embeddings(sample)
    }

    fn queries<'s>(&'s self, sample: &'s Sample) -> std::result::Result<Queries<'s>, Broken> {
        self.toy.queries(sample)
    }

    fn loss_gradient(
        &self,
        batch: &[&Sample],
        prompts: &PromptBatch,
    ) -> std::result::Result<LossGradient, Broken> {
        let targets = batch.iter().map(|s| s.target[0]).collect();
        self.calls.borrow_mut().push((targets, prompts.clone()));
        self.toy.loss_gradient(batch, prompts)
    }
}

/// Runs to the end and returns all calls of the model.
fn spy(data: &Data, config: &Config) -> (State, Vec<(Vec<f32>, PromptBatch)>) {
    let model = Spy { toy: Toy::new(), calls: RefCell::default() };
    let mut run = trainer(&model, data.curriculum(), config).unwrap();
    let mut evaluate = |_: &PromptLearner<&Spy>, _: Moment, _: Column| Ok::<_, Broken>(0.0);
    run.run(None, &mut evaluate, &mut |_| ControlFlow::Continue(())).unwrap();
    let state = State::of(&run);
    drop(run);
    (state, model.calls.into_inner())
}

#[test]
fn a_batch_has_its_share_of_old_samples_and_stays_as_large() {
    let data = Data::new(2);
    let mut config = shared(MethodConfig::Replay(ReplayConfig { batch_share: 0.3, ..REPLAY }));
    config.training.batch_size = 10;
    config.training.steps = None;
    config.training.epochs = 1;
    let (_, calls) = spy(&data, &config);
    let old = data.tasks[0][0].target[0];
    let counts: Vec<_> = calls
        .iter()
        .map(|(targets, _)| (targets.iter().filter(|t| **t == old).count(), targets.len()))
        .collect();
    // 25 samples: three batches of at most ten new ones, then four of at most seven new and three old ones.
    assert_eq!(counts, [(10, 10), (10, 10), (5, 5), (3, 10), (3, 10), (3, 10), (3, 7)]);
}

#[test]
fn replay_under_a_partitioned_pool_trains_only_the_new_prompts() {
    let data = separable(2);
    let mut config = shared(MethodConfig::Replay(REPLAY));
    config.pool = PoolConfig { allocation: Allocation::Partitioned(3), top_k: 3, ..config.pool };
    let mut alone = config.clone();
    alone.method = MethodConfig::Plain;
    let (replay, plain) = (finish(&data, &config), finish(&data, &alone));
    let old = |state: &State| state.pool().prompts()[..3 * 3 * DIM].to_vec();
    assert_eq!(old(&replay), old(&plain));
    assert!(replay.pool().len() == 6 && replay.pool() != plain.pool());
}

#[test]
fn ewc_holds_shared_prompts_and_nothing_else() {
    let data = Data::new(3);
    let plain = finish(&data, &shared(MethodConfig::Plain));
    let (ewc, told) = events(&data, &shared(MethodConfig::Ewc(EWC)));
    let lost = |state: &State| state.scores.forgetting(3).unwrap();
    assert!(lost(&ewc) < 0.5 * lost(&plain), "{:?} {:?}", ewc.scores, plain.scores);
    assert!(penalties(&told, "task 1").iter().all(|p| *p == 0.0));
    let second = penalties(&told, "task 2");
    // Nothing has changed before the first step.
    assert!(second[0] == 0.0 && second[1..].iter().all(|p| *p > 0.0), "{second:?}");
    let fisher = |event: &&Event<PromptNote>| matches!(event, Event::Remembered { of: 10, .. });
    assert_eq!(told.iter().filter(fisher).count(), 30);
    // A penalty without weight changes no bit, nor does any penalty where each task has prompts of its own.
    let free = finish(&data, &shared(MethodConfig::Ewc(EwcConfig { weight: 0.0, ..EWC })));
    assert_eq!((free.pool(), &free.scores), (plain.pool(), &plain.scores));
    let mut own = shared(MethodConfig::Ewc(EWC));
    own.pool = PoolConfig { allocation: Allocation::Partitioned(2), top_k: 2, ..own.pool };
    let (held, told) = events(&data, &own);
    assert!(["task 1", "task 2", "task 3"].iter().all(|t| penalties(&told, t).iter().all(|p| *p == 0.0)));
    assert!(!told.iter().any(|event| matches!(event, Event::Remembered { .. })));
    assert_eq!(held.pool(), finish(&data, &Config { method: MethodConfig::Plain, ..own }).pool());
}

#[test]
fn agem_forgets_less_by_steps_that_do_not_hurt_its_buffer() {
    let data = Data::new(3);
    let plain = finish(&data, &shared(MethodConfig::Plain));
    let agem = finish(&data, &shared(MethodConfig::Agem(AGEM)));
    let lost = |state: &State| state.scores.forgetting(3).unwrap();
    assert!(lost(&agem) < 0.7 * lost(&plain), "{:?} {:?}", agem.scores, plain.scores);
    assert_eq!(agem.stored.len(), 12);
    assert!(agem.stored.iter().all(|s| (1..=3).contains(&s.task.number()) && s.sample < 25));
    // The first task has nothing to keep to, and a batch has no old samples among the new ones.
    assert_eq!(agem.scores.get(1, 1), plain.scores.get(1, 1));
    let mut config = shared(MethodConfig::Agem(AGEM));
    (config.training.batch_size, config.training.steps) = (10, Some(3));
    let (_, calls) = spy(&data, &config);
    let old = data.tasks[0][0].target[0];
    let count = |targets: &Vec<f32>| (targets.iter().filter(|t| **t == old).count(), targets.len());
    let counts: Vec<_> = calls.iter().map(|(targets, _)| count(targets)).collect();
    // Each step of the second task computes its batch's gradient and that of six samples of the first.
    assert_eq!(counts[..3], [(10, 10), (10, 10), (5, 5)]);
    assert_eq!(counts[3..9], [(0, 10), (6, 6), (0, 10), (6, 6), (0, 5), (6, 6)]);
}

#[test]
fn gem_forgets_less_by_steps_that_hurt_no_task_of_its_buffer() {
    let data = Data::new(3);
    let plain = finish(&data, &shared(MethodConfig::Plain));
    let gem = finish(&data, &shared(MethodConfig::Gem(GEM)));
    let lost = |state: &State| state.scores.forgetting(3).unwrap();
    assert!(lost(&gem) < 0.7 * lost(&plain), "{:?} {:?}", gem.scores, plain.scores);
    assert_eq!(gem.stored.len(), 12);
    assert_eq!(gem.scores.get(1, 1), plain.scores.get(1, 1));
    let mut config = shared(MethodConfig::Gem(GEM));
    (config.training.batch_size, config.training.steps) = (10, Some(1));
    let (_, calls) = spy(&data, &config);
    let targets = [0, 1].map(|t| data.tasks[t][0].target[0]);
    let counts: Vec<_> = calls
        .iter()
        .map(|(seen, _)| (seen.len(), targets.map(|t| seen.iter().filter(|s| **s == t).count())))
        .collect();
    // The third task's step computes the gradient of its batch, of four samples of the first task, and of four of the second.
    assert_eq!(counts, [(10, [10, 0]), (10, [0, 10]), (4, [4, 0]), (10, [0, 0]), (4, [4, 0]), (4, [0, 4])]);
}

#[test]
fn modal_prompt_finds_the_task_of_each_sample_alone() {
    let data = separable(3);
    let (state, told) = events(&data, &modal_prompt(1));
    let model = Toy::new();
    let select = |sample: &Sample| state.pool().select(&model.queries(sample).unwrap()).unwrap();
    for (t, samples) in data.tasks.iter().enumerate() {
        let right = samples.iter().filter(|s| select(s).prompts == [t]).count();
        assert!(right >= 24, "task {t}: {right} of {}", samples.len());
    }
    // What a sample gets is the same alone and in a batch of all tasks, whichever sample comes first.
    let mixed: Vec<&Sample> = (0..25).flat_map(|i| data.tasks.iter().map(move |task| &task[i])).collect();
    for order in [mixed.clone(), mixed.into_iter().rev().collect()] {
        let selections: Vec<Selection> = order.iter().map(|s| select(s)).collect();
        let batch = state.pool().gather(&selections).unwrap();
        let size = batch.uniform_length().unwrap() * batch.dim;
        for (i, sample) in order.iter().enumerate() {
            let alone = state.pool().gather(&[select(sample)]).unwrap();
            assert_eq!(alone.values, batch.values[i * size..(i + 1) * size]);
        }
    }
    // The key term is in the loss of every step.
    let key_losses: Vec<f64> = told
        .iter()
        .filter_map(|e| if let Event::Step { auxiliary_loss, .. } = e { Some(*auxiliary_loss) } else { None })
        .collect();
    assert!(key_losses.len() == 24 && key_losses.iter().all(|loss| *loss < 0.0), "{key_losses:?}");
}

#[test]
fn modal_prompt_draws_its_keys_to_the_queries_of_their_task() {
    let data = separable(2);
    let model = Toy::new();
    let mean_score = |config: &Config| {
        let state = finish(&data, config);
        let score = |sample: &Sample| state.pool().select(&model.queries(sample).unwrap()).unwrap().scores[0];
        data.tasks.iter().flatten().map(score).sum::<f32>() / 50.0
    };
    let mut config = modal_prompt(1);
    config.pool.key_init = KeyInit::Normal;
    config.training.keys.lr = 0.05;
    config.training.epochs = 20;
    let trained = mean_score(&config);
    config.training.key_weight = 0.0;
    let untrained = mean_score(&config);
    assert!(trained > 1.6 && untrained < 1.0, "{trained} {untrained}");
}

#[test]
fn modal_prompt_trains_behind_the_most_similar_older_prompt_of_each_sample() {
    // The third task's samples look like those of the first and the second by turns.
    let mut data = separable(3);
    data.tasks[2] = samples(3, 10);
    for (i, sample) in (0..).zip(&mut data.tasks[2]) {
        point(sample, i % 2, 50 + i % 2);
        sample.target[0] = [-2.0, 2.0][i as usize % 2];
    }
    let mut config = modal_prompt(2);
    config.training.batch_size = 10;
    let (state, calls) = spy(&data, &config);
    let size = 6 * DIM;
    let older = |j: usize| &state.pool().prompts()[j * size..(j + 1) * size];
    let mut n = 0;
    for (targets, prompts) in calls.iter().filter(|(targets, _)| targets[0].abs() == 2.0) {
        assert_eq!(prompts.uniform_length(), Some(12));
        for (target, rows) in targets.iter().zip(prompts.values.chunks_exact(2 * size)) {
            let similar = usize::from(*target > 0.0);
            let has = |j: usize| rows.chunks_exact(size).any(|row| row == older(j));
            assert!(has(similar) && !has(1 - similar));
            n += 1;
        }
    }
    assert_eq!(n, 20);
    // A first task has only its own prompt; older prompts stay as their tasks left them.
    assert_eq!(calls[0].1.uniform_length(), Some(6));
    let mut first = separable(1);
    first.pretraining = data.pretraining;
    let alone = finish(&first, &config);
    assert_eq!(alone.pool().prompts(), older(0));
}

#[test]
fn every_method_goes_on_from_every_step_to_the_bytes_of_an_unbroken_run() {
    let mut data = separable(3);
    data.pretraining.truncate(2);
    data.tasks.iter_mut().for_each(|task| task.truncate(7));
    let small = |method| {
        let mut config = Config { save_every: 1, ..shared(method) };
        config.pool.top_k = 2;
        config.training.steps = Some(3);
        config.training.batch_size = 4;
        config
    };
    let mut modal = modal_prompt(2);
    (modal.save_every, modal.training.steps, modal.training.batch_size) = (1, Some(3), 4);
    let reservoir = ReplayConfig { size: 5, policy: BufferPolicy::Reservoir, ..REPLAY };
    let ewc = EwcConfig { fisher_samples: 3, ..EWC };
    let model = Toy::new();
    // All that a state holds, to the last bit.
    let go_on = |config: &Config, dir: &Path| {
        let mut run = resume(&model, data.curriculum(), config, dir).unwrap();
        let mut evaluate =
            |learner: &PromptLearner<&Toy>, _: Moment, column: Column| data.score(learner, column);
        run.run(None, &mut evaluate, &mut |_| ControlFlow::Continue(())).unwrap();
        format!("{:?}", State::of(&run))
    };
    for config in [
        small(MethodConfig::Replay(REPLAY)),
        small(MethodConfig::Replay(reservoir)),
        small(MethodConfig::Ewc(ewc)),
        small(MethodConfig::Agem(AGEM)),
        small(MethodConfig::Gem(GEM)),
        modal,
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (mut told, mut saved) = (Vec::new(), Vec::new());
        let (whole, _) = run(&data, &config, Some(dir.path()), &mut |event| {
            told.push(event.clone());
            if matches!(event, Event::Saved { .. }) {
                saved.push(files(dir.path()));
            }
            ControlFlow::Continue(())
        });
        assert!(saved.last() == Some(&files(dir.path())));
        let whole = format!("{whole:?}");
        // Killed after each step and phase: what is on the disk then is all there is.
        assert!(saved.len() > 3 * 3 + 3 * 4, "{}", saved.len());
        for found in &saved {
            let dir = tempfile::tempdir().unwrap();
            found.iter().for_each(|(name, bytes)| fs::write(dir.path().join(name), bytes).unwrap());
            assert!(go_on(&config, dir.path()) == whole, "{:?}", config.method);
        }
        // Stopped between two samples of the Fisher information.
        told.retain(|event| !matches!(event, Event::Saved { .. }));
        for (stop_at, event) in told.iter().enumerate() {
            if matches!(event, Event::Remembered { .. }) {
                let mut n = 0;
                let (state, status) = run(&data, &config, None, &mut |_| {
                    n += 1;
                    if n == stop_at + 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                });
                assert!(
                    status == Status::Interrupted && matches!(state.stage, Stage::Remember(_)),
                    "{state:?}"
                );
                let dir = tempfile::tempdir().unwrap();
                state.saved.save(dir.path()).unwrap();
                assert!(go_on(&config, dir.path()) == whole, "{event:?}");
            }
        }
    }
}

#[test]
fn a_model_that_fails_after_the_last_step_is_asked_again() {
    let data = Data::new(1);
    let mut broken = Data::new(1);
    let config = shared(MethodConfig::Ewc(EwcConfig { fisher_samples: 25, ..EWC }));
    let model = Toy::new();
    // The second run begins where the Fisher information is due, with a target that cannot be; the third one has good data.
    let dir = tempfile::tempdir().unwrap();
    run(&data, &config, Some(dir.path()), &mut |event| match event {
        Event::Learnt { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    broken.tasks[0][11].target[0] = f32::NAN;
    let mut again = resume(&model, broken.curriculum(), &config, dir.path()).unwrap();
    assert_eq!(again.stage(), Stage::Remember(TaskId::from_index(0)));
    let before = State::of(&again);
    let mut evaluate = |_: &PromptLearner<&Toy>, _: Moment, _: Column| Ok::<_, Broken>(0.0);
    let error = again.run(None, &mut evaluate, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert_eq!(chain(&error), "task `task 1`, sample 11: the loss is not a finite number");
    assert_eq!(State::of(&again), before);
    let (state, status) = run(&data, &config, Some(dir.path()), &mut |_| ControlFlow::Continue(()));
    assert_eq!((status, &state), (Status::Finished, &finish(&data, &config)));
}

#[test]
fn impossible_methods_are_refused_by_name() {
    let refused = |method| shared(method).check().unwrap_err().to_string();
    let replay = |config| refused(MethodConfig::Replay(config));
    assert!(replay(ReplayConfig { size: 0, ..REPLAY }).contains("method.replay.size is 0"));
    assert!(replay(ReplayConfig { batch_share: 1.0, ..REPLAY }).contains("batch_share is 1"));
    assert!(replay(ReplayConfig { batch_share: f64::NAN, ..REPLAY }).contains("batch_share is NaN"));
    assert!(replay(ReplayConfig { batch_share: 0.01, ..REPLAY }).contains("a batch of 7 would have 0 old"));
    let ewc = |config| refused(MethodConfig::Ewc(config));
    assert!(ewc(EwcConfig { weight: -1.0, ..EWC }).contains("method.ewc.weight is -1"));
    assert!(ewc(EwcConfig { decay: 1.5, ..EWC }).contains("method.ewc.decay is 1.5"));
    assert!(ewc(EwcConfig { fisher_samples: 0, ..EWC }).contains("fisher_samples is 0"));
    let mut shared_modal = shared(MethodConfig::Plain);
    shared_modal.pool.selection = TrainingSelection::ModalPrompt;
    assert!(shared_modal.check().unwrap_err().to_string().contains("Partitioned(1)"));
    modal_prompt(3).check().unwrap(); // K counts tasks, of which there are more than one
    for unknown in [r#"{"method": {"replay": {"sise": 3}}}"#, r#"{"method": "replai"}"#] {
        let error = serde_json::from_str::<Config>(unknown).unwrap_err().to_string();
        assert!(error.contains("sise") || error.contains("replai"), "{error}");
    }
    for config in [shared(MethodConfig::Replay(REPLAY)), shared(MethodConfig::Ewc(EWC)), modal_prompt(3)] {
        let written = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&written).unwrap(), config);
    }
}

#[test]
fn only_a_run_with_a_method_saves_its_memory() {
    let (data, dir) = (Data::new(1), tempfile::tempdir().unwrap());
    let manifest = |config: &Config| {
        run(&data, config, Some(dir.path()), &mut |_| ControlFlow::Continue(()));
        let text = fs::read_to_string(dir.path().join("state.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let plain = manifest(&shared(MethodConfig::Plain));
    assert_eq!(plain["version"], 5);
    let config = &plain["sections"]["learner"]["config"];
    assert!(
        config.is_object() && config.get("method").is_none() && config["pool"].get("selection").is_none()
    );
    let tensors = || SavedState::load(dir.path()).unwrap().section("method").unwrap().tensor_names().count();
    assert_eq!(tensors(), 0);
    fs::remove_dir_all(dir.path()).unwrap();
    let ewc = manifest(&shared(MethodConfig::Ewc(EWC)));
    assert_eq!((&ewc["version"], &ewc["sections"]["loop"]["method"][0]), (&5.into(), &"ewc".into()));
    assert_eq!(tensors(), 1);
    // Six prompts of three tokens.
    let saved = SavedState::load(dir.path()).unwrap();
    assert_eq!(saved.section("method").unwrap().shape("fisher"), Some(&[6 * 3 * DIM][..]));
}

#[test]
fn what_is_learnt_does_not_depend_on_rejection() {
    let data = separable(3);
    for method in [MethodConfig::Plain, MethodConfig::Replay(REPLAY), MethodConfig::Ewc(EWC)] {
        let prompts = |rejection: Rejection| {
            let mut config = shared(method);
            config.pool.rejection = rejection;
            finish(&data, &config).pool().prompts().to_vec()
        };
        assert_eq!(prompts(Rejection::Never), prompts(Rejection::BelowQuantile(1.0)), "{method:?}");
    }
}
