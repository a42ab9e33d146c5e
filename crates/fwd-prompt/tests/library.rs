//! Prompts that begin with those of a library: which block is taken, and that a run with one is as exact as any other.

#![allow(clippy::unwrap_used)]

mod toy;

use fwd_prompt::continual::*;
use fwd_prompt::*;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use toy::{DIM, Data, Sample, State, Toy, config, samples};

fn own_prompts(n: usize) -> Config {
    let mut config = config(Rule::Fwd);
    config.pool.allocation = Allocation::Partitioned(n);
    config.pool.top_k = n;
    config
}

/// Two prompts for each of the tasks 1, 2 and 3, well trained.
fn library() -> Arc<Library> {
    let mut config = own_prompts(2);
    (config.training.epochs, config.training.prompts.lr) = (20, 0.1);
    Arc::new(Library::of([&toy::finish(&Data::new(3), &config).prompts]).unwrap())
}

/// The tasks of the library in another order, with samples that it has not seen, and one that it does not know.
fn data() -> Data {
    let unseen = |task| samples(task, 100).split_off(25);
    Data { pretraining: samples(0, 30), tasks: vec![unseen(3), unseen(1), samples(7, 25), unseen(2)] }
}

/// Runs to the end or until the observer stops it.
fn run(
    data: &Data,
    config: &Config,
    library: &Arc<Library>,
    dir: Option<&Path>,
    observe: Observe<'_, PromptNote>,
) -> (State, Status) {
    let model = Toy::new();
    let learner = PromptLearner::new(&model, config.clone()).unwrap().with_library(library.clone()).unwrap();
    let (method, plan) = (config.method.build(), config.plan());
    let mut trainer = match dir {
        Some(dir) if SavedState::exists(dir) => {
            Trainer::resume(learner, method, data.curriculum(), plan, dir).unwrap()
        }
        _ => Trainer::new(learner, method, data.curriculum(), plan).unwrap(),
    };
    let mut evaluate = |learner: &PromptLearner<&Toy>, _: Moment, column: Column| data.score(learner, column);
    let status = trainer.run(dir, &mut evaluate, observe).unwrap();
    (State::of(&trainer), status)
}

fn finish(data: &Data, config: &Config, library: &Arc<Library>) -> State {
    run(data, config, library, None, &mut |_| ControlFlow::Continue(())).0
}

/// The mean loss of samples behind some tokens, from the definition.
fn loss(samples: &[Sample], tokens: &[f32]) -> f64 {
    let model = Toy::new();
    let of = |sample: &Sample| {
        let y = model.output(sample, tokens);
        0.5 * y.iter().zip(&sample.target).map(|(y, &t)| (y - f64::from(t)).powi(2)).sum::<f64>()
    };
    samples.iter().map(of).sum::<f64>() / samples.len() as f64
}

#[test]
fn a_task_begins_with_the_block_of_least_loss() {
    let (library, mut data) = (library(), data());
    data.tasks.iter_mut().for_each(|task| task.truncate(60));
    let config =
        Config { pool: PoolConfig { start: Start::Library, ..own_prompts(2).pool }, ..own_prompts(2) };
    let prompts = finish(&data, &config, &library).prompts;
    let names: Vec<&str> = library.tasks().collect();
    assert_eq!(names, ["task 1", "task 2", "task 3"]);
    let initial = prompts.initial_prompts();
    let size = 2 * config.pool.prompt_len * DIM;
    for (i, (samples, own)) in data.tasks.iter().zip([Some(2), Some(0), None, Some(1)]).enumerate() {
        let started = prompts.started(i + 1).unwrap();
        // Fewer than 64 samples: all are tried.
        let losses: Vec<f64> = library.tokens().map(|tokens| loss(samples, tokens)).collect();
        for ((name, score), (expected_name, expected)) in started.scores.iter().zip(names.iter().zip(&losses))
        {
            assert!(name == expected_name && (score - expected).abs() < 1e-9, "{started:?} {losses:?}");
        }
        let best = (0..3).min_by(|&a, &b| losses[a].total_cmp(&losses[b])).unwrap();
        let begun = &initial[i * size..][..size];
        assert_eq!(begun, started.tokens);
        match &started.block {
            Some(block) => {
                assert_eq!(block, names[best]);
                assert_eq!(begun, library.tokens().nth(best).unwrap());
            }
            None => assert!(loss(samples, begun) < losses[best], "normal numbers were better"),
        }
        if let Some(own) = own {
            assert_eq!(started.block.as_deref(), Some(names[own]), "task {} knows its own block", i + 1);
        }
    }
    // A prompt that cannot move stays what it began with.
    let mut still = config.clone();
    still.training.prompts.lr = 1e-30;
    let still = finish(&data, &still, &library);
    assert_eq!(still.prompts.initial_prompts(), still.pool().prompts());
    assert_eq!(still.prompts.initial_prompts(), initial);
}

#[test]
fn runs_of_a_task_each_are_a_library_together() {
    let of = |task| {
        let data = Data { pretraining: Vec::new(), tasks: vec![samples(task, 25)] };
        toy::finish(&data, &own_prompts(2)).prompts
    };
    let (first, second) = (of(1), of(2));
    let both = Library::of([&first, &second]).unwrap();
    let tokens: Vec<&[f32]> = both.tokens().collect();
    assert_eq!(tokens, [first.pool().prompts(), second.pool().prompts()]);
    assert_ne!(both.digest(), Library::of([&second, &first]).unwrap().digest());
}

#[test]
fn a_library_is_written_into_one_file_and_read_again() {
    let library = library();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("prompts.safetensors");
    library.write(&path, "a model").unwrap();
    let (read, model) = Library::read(&path).unwrap();
    assert_eq!((&read, model.as_str(), read.digest()), (&*library, "a model", library.digest()));

    let bytes = std::fs::read(&path).unwrap();
    let refused = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let error = Library::read(&path).unwrap_err().to_string();
        assert!(error.contains("prompts.safetensors: it is no library"), "{error}");
        error
    };
    refused(b"");
    refused(&bytes[..bytes.len() - 4]);
    // Other names of the same length, or other numbers, where the header has them.
    let replaced = |from: &str, to: &str| {
        let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
        [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()
    };
    assert!(refused(&replaced("text_keys", "next_keys")).contains("text_keys"));
    assert!(refused(&replaced("fwd-prompt.library", "fwd-prompt.librery")).contains("fwd-prompt.library"));
    assert!(refused(&replaced("\\\"task 1\\\",2", "\\\"task 1\\\",9")).contains("do not fit"));
    let mut infinite = bytes.clone();
    let n = infinite.len();
    // The tensors lie in the order of their names within one type: the last numbers are those of the thresholds.
    infinite[n - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, &infinite).unwrap();
    let (with_nan, _) = Library::read(&path).unwrap();
    assert_ne!(with_nan.digest(), library.digest());
}

#[test]
fn the_nearest_block_is_told_by_keys() {
    let (library, data) = (library(), data());
    let mut config = own_prompts(2);
    config.pool.start = Start::Nearest;
    let prompts = finish(&data, &config, &library).prompts;
    let began = |t: usize| prompts.started(t).unwrap().block.clone().unwrap();
    assert_eq!([began(1), began(2), began(4)], ["task 3", "task 1", "task 2"]);
    let scores = &prompts.started(1).unwrap().scores;
    assert!(scores.iter().all(|(_, score)| (-2.0..=2.0).contains(score)), "{scores:?}");
    assert!(scores[2].1 > scores[0].1 && scores[2].1 > scores[1].1, "{scores:?}");
}

#[test]
fn blocks_of_another_length_are_cut_or_filled_up_and_a_shared_pool_begins_once() {
    let (library, data) = (library(), data());
    let token = DIM;
    for (n, allocation) in
        [(1, Allocation::Partitioned(1)), (3, Allocation::Partitioned(3)), (3, Allocation::Shared(3))]
    {
        let mut config = own_prompts(n);
        (config.pool.allocation, config.pool.start) = (allocation, Start::Library);
        let prompts = finish(&data, &config, &library).prompts;
        let started = prompts.started(1).unwrap();
        assert_eq!(started.tokens.len(), n * config.pool.prompt_len * token);
        let block = library.tokens().nth(2).unwrap();
        let n_same = block.len().min(started.tokens.len());
        assert_eq!(started.tokens[..n_same], block[..n_same]);
        let normal =
            Config { pool: PoolConfig { start: Start::Normal, ..config.pool.clone() }, ..config.clone() };
        let drawn = finish(&data, &normal, &library).prompts;
        assert_eq!(started.tokens[n_same..], drawn.initial_prompts()[n_same..started.tokens.len()]);
        assert_eq!(drawn.started(1), None);
        let is_shared = matches!(allocation, Allocation::Shared(_));
        assert_eq!(prompts.started(2).is_none(), is_shared);
        // Whatever they begin with, what a rule forbids stays untouched.
        let forbidden = prompts.interference().iter().flatten().filter(|with| with.forbidden);
        assert!(forbidden.map(|with| with.leakage).fold(0.0, f64::max) <= 1e-5);
    }
}

#[test]
fn a_run_with_a_library_goes_on_to_the_same_bytes() {
    let (library, data) = (library(), data());
    let mut config = own_prompts(2);
    (config.pool.start, config.save_every) = (Start::Library, 3);
    config.pool.inference = Inference::Task;
    (config.pool.anchors.count, config.pool.fallback) = (4, Fallback::Nearest);
    let whole = tempfile::tempdir().unwrap();
    let (expected, _) = run(&data, &config, &library, Some(whole.path()), &mut |_| ControlFlow::Continue(()));
    let cut = tempfile::tempdir().unwrap();
    let mut n_stops = 0;
    loop {
        let mut n_events = 0;
        let (state, status) = run(&data, &config, &library, Some(cut.path()), &mut |event| {
            n_events += usize::from(!matches!(event, Event::Examined { .. }));
            if n_events >= 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if status == Status::Finished {
            assert_eq!(state, expected);
            break;
        }
        n_stops += 1;
    }
    assert!(n_stops > 10, "{n_stops} stops");
    assert_eq!(toy::files(cut.path()), toy::files(whole.path()));
    assert_eq!(Prompts::load(cut.path()).unwrap(), expected.prompts);
    assert_eq!(Library::load(cut.path()).unwrap().tokens().len(), 4);

    // With another library, or none, it is another run.
    let model = Toy::new();
    let other = Arc::new(Library::of([&expected.prompts]).unwrap());
    assert_ne!(other.digest(), library.digest());
    for other in [None, Some(other)] {
        let mut learner = PromptLearner::new(&model, config.clone()).unwrap();
        if let Some(other) = other {
            learner = learner.with_library(other).unwrap();
        }
        let resumed =
            Trainer::resume(learner, config.method.build(), data.curriculum(), config.plan(), cut.path());
        let error = resumed.err().unwrap().to_string();
        assert!(error.contains("another configuration") && error.contains("library"), "{error}");
    }
}

#[test]
fn a_missing_empty_or_foreign_library_is_refused() {
    let mut config = own_prompts(2);
    config.pool.start = Start::Library;
    let model = Toy::new();
    let data = data();
    let mut without = trainer(&model, data.curriculum(), &config).unwrap();
    let mut evaluate = |_: &PromptLearner<&Toy>, _: Moment, _: Column| Ok::<_, toy::Broken>(1.0);
    let error = without.run(None, &mut evaluate, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(chain(&error).contains("pool.start"), "{}", chain(&error));
    let empty = Prompts::new(config.clone(), model.dims());
    assert!(Library::of([&empty]).unwrap_err().to_string().contains("without any prompt"));
    assert!(Library::of([]).unwrap_err().to_string().contains("without any prompt"));
    let longer = Config { pool: PoolConfig { prompt_len: 5, ..config.pool.clone() }, ..config.clone() };
    let longer = Prompts::new(longer, model.dims());
    assert!(Library::of([&empty, &longer]).unwrap_err().to_string().contains("(Dims"));

    #[derive(Debug)]
    struct Wide;
    impl FrozenModel for Wide {
        type Features = Sample;
        type Error = toy::Broken;
        fn dims(&self) -> Dims {
            Dims { model: DIM + 1, image_query: DIM, text_query: DIM }
        }
        fn embeddings<'s>(&'s self, _: &'s Sample) -> std::result::Result<Embeddings<'s>, toy::Broken> {
            Err(toy::Broken)
        }
        fn queries<'s>(&'s self, _: &'s Sample) -> std::result::Result<Queries<'s>, toy::Broken> {
            Err(toy::Broken)
        }
        fn loss_gradient(
            &self,
            _: &[&Sample],
            _: &PromptBatch,
        ) -> std::result::Result<LossGradient, toy::Broken> {
            Err(toy::Broken)
        }
    }
    let wide = PromptLearner::new(Wide, config).unwrap();
    let error = wide.with_library(library()).unwrap_err().to_string();
    assert!(error.contains("25") && error.contains("24"), "{error}");
}

#[test]
fn samples_of_no_learnt_task_take_prompts_of_the_library() {
    let mut trained = own_prompts(2);
    (trained.training.epochs, trained.pool.rejection) = (5, Rejection::BelowQuantile(0.5));
    let library = Arc::new(Library::of([&toy::finish(&Data::new(3), &trained).prompts]).unwrap());
    let model = Toy::new();
    // Learns task 7. The library knows tasks 1 to 3; its own samples of task 2, and strangers.
    let data = Data { pretraining: samples(0, 30), tasks: vec![samples(7, 25)] };
    let pool_with = |fallback: Fallback| {
        let mut config = trained.clone();
        // The queries of the toy's tasks are not far from each other.
        (config.pool.fallback, config.pool.rejection) = (fallback, Rejection::BelowQuantile(0.9));
        let dir = tempfile::tempdir().unwrap();
        let (state, _) = run(&data, &config, &library, Some(dir.path()), &mut |_| ControlFlow::Continue(()));
        assert_eq!(Prompts::load(dir.path()).unwrap(), state.prompts, "the library is saved");
        state.pool().clone()
    };
    let [nothing, nearest, claimed] =
        [Fallback::Nothing, Fallback::Nearest, Fallback::Claimed].map(pool_with);
    let size = 3 * DIM;
    let block = |i: usize| library.tokens().nth(i).unwrap();
    let n_of = |pool: &PromptPool, samples: &[Sample]| -> Vec<usize> {
        let mut counts = vec![0; 5];
        for sample in samples {
            let selection = pool.select(&model.queries(sample).unwrap()).unwrap();
            let gathered = pool.gather(std::slice::from_ref(&selection)).unwrap();
            let at = match selection.prompts.first() {
                None => 4,
                Some(&j) if j < pool.len() => 3,
                // Both prompts of one task of the library, in the order of their scores.
                Some(&j) => {
                    let (task, first) = ((j - pool.len()) / 2, (j - pool.len()) % 2);
                    assert_eq!(selection.prompts, [j, pool.len() + 2 * task + 1 - first]);
                    let [a, b] = [first, 1 - first].map(|i| &block(task)[i * size..(i + 1) * size]);
                    assert_eq!(gathered.values, [a, b].concat());
                    task
                }
            };
            counts[at] += 1;
        }
        counts
    };
    // As many of the own task's samples take its own prompts, whatever the fallback.
    let own = [&nothing, &nearest, &claimed].map(|pool| n_of(pool, &data.tasks[0])[3]);
    assert!(own[0] > 0 && own == [own[0]; 3], "{own:?}");
    let known = samples(2, 25);
    assert_eq!(n_of(&nothing, &known)[4], 25 - n_of(&nothing, &known)[3]);
    let rejected = n_of(&nothing, &known)[4];
    assert!(rejected > 15, "most are no samples of task 7");
    // Most lie nearest to their own task. Half of the library's samples are within its bounds: 13 of these, and no more than all.
    assert!(n_of(&nearest, &known)[1] > rejected / 2, "{:?}", n_of(&nearest, &known));
    let n_claimed = rejected - n_of(&claimed, &known)[4];
    assert!((13 - (25 - rejected)..=rejected).contains(&n_claimed), "{n_claimed} of {rejected}");
    // Strangers: with `nearest` none is left without prompts, with `claimed` some are; who is claimed takes the same with both.
    let strangers = samples(99, 40);
    let [of_nothing, of_nearest, of_claimed] =
        [&nothing, &nearest, &claimed].map(|pool| n_of(pool, &strangers));
    assert_eq!(of_nearest[4], 0);
    assert!(of_claimed[4] > 0 && of_claimed[4] < of_nothing[4], "{of_claimed:?} {of_nothing:?}");
    assert_eq!([of_nearest[3], of_claimed[3]], [of_nothing[3]; 2]);
    for sample in strangers.iter().chain(&known) {
        let [by_nearest, by_claimed] =
            [&nearest, &claimed].map(|pool| pool.select(&model.queries(sample).unwrap()).unwrap());
        assert!(by_claimed == by_nearest || by_claimed == Selection::default());
    }
    // A prompt behind those of pool and library does not exist.
    let beyond = Selection { prompts: vec![nearest.len() + 6], scores: vec![0.0] };
    assert!(nearest.gather(&[beyond]).is_err());
    assert!(nothing.gather(&[Selection { prompts: vec![nothing.len()], scores: vec![0.0] }]).is_err());
}

#[test]
fn samples_that_are_nearest_to_pre_training_take_nothing() {
    let (library, model) = (library(), Toy::new());
    let data = Data { pretraining: samples(0, 30), tasks: vec![samples(7, 25)] };
    let pool_with = |anchors: Anchors, fallback: Fallback| {
        let mut config = own_prompts(2);
        (config.pool.anchors, config.pool.fallback) = (anchors, fallback);
        config.pool.rejection = Rejection::BelowQuantile(0.2);
        let dir = tempfile::tempdir().unwrap();
        let (state, _) = run(&data, &config, &library, Some(dir.path()), &mut |_| ControlFlow::Continue(()));
        assert_eq!(Prompts::load(dir.path()).unwrap(), state.prompts, "anchors are saved");
        state.pool().clone()
    };
    let some = Anchors { count: 10, quantile: 0.2 };
    let without = pool_with(Anchors::default(), Fallback::Nothing);
    let pool = pool_with(some, Fallback::Nearest);
    assert_eq!(without.prompts(), pool.prompts(), "anchors change nothing of what is learnt");
    let anchors = pool.anchors().unwrap();
    assert_eq!((anchors.len(), without.anchors()), (10, None));
    assert_eq!(pool_with(Anchors { count: 100, ..some }, Fallback::Nothing).anchors().unwrap().len(), 15);

    // An anchor is the query of a sample of pre-training: the score of that sample is 2. Those that are none say what is near.
    let best = |pool: &PromptPool, sample: &Sample| {
        let scores = pool.similarities(&model.queries(sample).unwrap()).unwrap();
        scores.into_iter().map(|[image, text]| image + text).fold(f64::MIN, f64::max)
    };
    let of_pretraining: Vec<f64> = data.pretraining.iter().map(|sample| best(anchors, sample)).collect();
    let (chosen, mut others): (Vec<f64>, Vec<f64>) = of_pretraining.iter().partition(|&&x| x > 2.0 - 1e-6);
    assert_eq!((chosen.len(), others.len()), (10, 20));
    others.sort_by(f64::total_cmp);
    let bound = others[3] - 1e-6;

    let mut counts = [0; 4];
    let all = [&data.pretraining[..], &data.tasks[0], &samples(2, 25), &samples(99, 40)].concat();
    for sample in &all {
        let query = model.queries(sample).unwrap();
        let own = without.select(&query).unwrap();
        let (selection, of_anchor) = (pool.select(&query).unwrap(), best(anchors, sample));
        let is_nearest = best(&pool, sample) < of_anchor;
        let kind = match (own.prompts.is_empty() || is_nearest, of_anchor >= bound) {
            (false, _) => {
                assert_eq!(selection, own);
                0
            }
            (true, true) => {
                assert_eq!(selection, Selection::default());
                1 + usize::from(!own.prompts.is_empty())
            }
            (true, false) => {
                assert!(selection.prompts.iter().all(|&j| j >= pool.len()) && selection.prompts.len() == 2);
                3
            }
        };
        counts[kind] += 1;
    }
    // Own prompts, none, none though they are within the bounds of the task, and prompts of the library.
    assert!(counts.iter().all(|&n| n > 2), "{counts:?}");

    let nothing_known = Data { pretraining: Vec::new(), tasks: vec![samples(7, 25)] };
    let mut config = own_prompts(2);
    config.pool.anchors = some;
    assert_eq!(toy::finish(&nothing_known, &config).pool().anchors(), None);
}

#[test]
fn before_the_first_task_a_library_gives_nothing_and_prompts_must_be_as_long() {
    let (library, data, model) = (library(), data(), Toy::new());
    let mut config = own_prompts(2);
    config.pool.fallback = Fallback::Nearest;
    let learner = PromptLearner::new(&model, config.clone()).unwrap().with_library(library.clone()).unwrap();
    let query = model.queries(&data.tasks[0][0]).unwrap();
    assert_eq!(learner.prompts().pool().select(&query).unwrap(), Selection::default());

    config.pool.prompt_len = 5;
    let learner = PromptLearner::new(&model, config.clone()).unwrap().with_library(library).unwrap();
    let mut trainer = Trainer::new(learner, config.method.build(), data.curriculum(), config.plan()).unwrap();
    let mut evaluate = |_: &PromptLearner<&Toy>, _: Moment, _: Column| Ok::<_, toy::Broken>(1.0);
    let error = trainer.run(None, &mut evaluate, &mut |_| ControlFlow::Continue(())).unwrap_err();
    let text = chain(&error);
    assert!(text.contains("pool.fallback") && text.contains("3 tokens") && text.contains("is 5"), "{text}");
}
