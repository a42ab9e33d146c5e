//! The promises of the continual loop.

#![allow(clippy::unwrap_used)]

mod toy;

use fwd_prompt::continual::*;
use fwd_prompt::linalg::{AdamW, ProjectAt, RankConvention};
use fwd_prompt::*;
use proptest::prelude::*;
use rand::Rng;
use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::sync::Arc;
use toy::*;

/// The largest leakage into a subspace that the rule forbids, over all tasks, and how many there are.
fn leakage(state: &State) -> (f64, usize) {
    let forbidden = || state.interference().iter().flatten().filter(|x| x.forbidden);
    (forbidden().map(|x| x.leakage).fold(0.0, f64::max), forbidden().count())
}

#[test]
fn no_rule_leaks_after_500_steps_with_clipping_and_warm_up() {
    let data = Data::new(3);
    for (rule, n_forbidden) in [
        (Rule::None, 0),
        (Rule::Residual, 6),
        (Rule::Fwd, 3),
        (Rule::FwdStrict, 3),
        (Rule::FwdWeighted(0.3), 3),
    ] {
        for allocation in [Allocation::Shared(6), Allocation::Partitioned(3)] {
            let mut config = config(rule);
            config.pool.allocation = allocation;
            config.training.epochs = 125;
            config.training.max_grad_norm = Some(0.02);
            config.training.schedule = Schedule { warmup_steps: 50, decay: Decay::Cosine };
            let mut n_steps = 0;
            let mut n_clipped = 0;
            let (state, _) = run(&data, &config, None, &mut |event| {
                if let Event::Step { of, grad_norm, .. } = event {
                    n_steps = *of;
                    n_clipped += usize::from(*grad_norm > 0.02);
                }
                ControlFlow::Continue(())
            });
            assert_eq!(n_steps, 500);
            assert!(n_clipped > 0);
            let (worst, n) = leakage(&state);
            assert_eq!(n, n_forbidden, "{rule:?}");
            assert!(worst <= 1e-5, "{rule:?} {allocation:?}: {worst:e}");
            assert!(state.ledger().entries().iter().all(|e| !e.basis.is_empty()));
            assert!(state.pool().prompts().iter().all(|x| x.is_finite()));
        }
    }
}

#[test]
fn projecting_the_gradient_alone_leaks_tens_of_percent() {
    let data = Data::new(2);
    let mut config = config(Rule::Residual);
    config.training.epochs = 125;
    config.project_at = ProjectAt::Gradient;
    let (worst, _) = leakage(&finish(&data, &config));
    assert!(worst > 0.1, "{worst}");
    config.project_at = ProjectAt::Update;
    let (worst, _) = leakage(&finish(&data, &config));
    assert!(worst <= 1e-5, "{worst:e}");
}

#[test]
fn the_rules_do_what_they_are_for() {
    let data = Data::new(3);
    let last = |rule| {
        let mut config = config(rule);
        config.pool.top_k = 6; // all prompts are shared by all samples, so that tasks meet
        config.training.epochs = 60;
        finish(&data, &config)
    };
    let (none, fwd, strict) = (last(Rule::None), last(Rule::Fwd), last(Rule::FwdStrict));
    for state in [&none, &fwd, &strict] {
        let scores = &state.scores;
        assert!(scores.get(1, 1).unwrap() > scores.get(0, 1).unwrap() + 5.0, "{scores:?}");
        assert!(scores.retention(3).is_some() && scores.forward_transfer().is_some());
    }
    let forgetting = |state: &State| state.scores.forgetting(3).unwrap();
    assert!(forgetting(&none) > 5.0);
    assert!(forgetting(&fwd) < forgetting(&none) && forgetting(&strict) < forgetting(&none));
    // Nothing that plain tuning does is forbidden, and it does reach into older spaces.
    assert!(none.interference()[1].iter().all(|x| !x.forbidden && x.leakage > 0.05));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Stopped politely at one event and killed (its last steps lost) at another, a run ends in the bytes of an unbroken one.
    #[test]
    fn a_broken_run_ends_in_the_bytes_of_an_unbroken_one(
        stop_at in 0.0f64..1.0, kill_at in 0.0f64..1.0, save_every in 0usize..4, partitioned: bool,
    ) {
        let data = Data::new(2);
        let mut config = config(Rule::Fwd);
        config.save_every = save_every;
        if partitioned {
            config.pool.allocation = Allocation::Partitioned(2);
        }
        let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut n_events = 0;
        run(&data, &config, Some(whole.path()), &mut |_| {
            n_events += 1;
            ControlFlow::Continue(())
        });
        let stop_at = 1 + (stop_at * f64::from(n_events)) as i32;
        // The second part has at least this many events: a unit that was stopped is not told again.
        let kill_at = 1 + (kill_at * f64::from((n_events - stop_at - 1).max(0))) as i32;
        let mut n = 0;
        run(&data, &config, Some(broken.path()), &mut |_| {
            n += 1;
            if n == stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let backup = tempfile::tempdir().unwrap();
        let mut n = 0;
        run(&data, &config, Some(broken.path()), &mut |_| {
            n += 1;
            // What the disk holds when the process dies.
            if n == kill_at {
                files(broken.path()).iter().for_each(|(name, bytes)| fs::write(backup.path().join(name), bytes).unwrap());
            }
            ControlFlow::Continue(())
        });
        prop_assert!(n >= kill_at || n_events <= stop_at + 1, "{} events, killed at {}", n, kill_at);
        prop_assert_eq!(files(broken.path()), files(whole.path()));
        run(&data, &config, Some(backup.path()), &mut |_| ControlFlow::Continue(()));
        prop_assert_eq!(files(backup.path()), files(whole.path()));
    }

    #[test]
    fn a_selection_does_not_depend_on_its_batch(n_prompts in 1usize..9, top_k in 1usize..9, seed in 0u64..99) {
        let mut rng = stream(seed, "pool", [0, 0]);
        let mut random = |n: usize| (0..n).map(|_| rng.random_range(-1.0f32..1.0)).collect::<Vec<_>>();
        let mut pool = PromptPool::new(Dims { model: 2, image_query: 3, text_query: 4 }, 1, top_k);
        (0..n_prompts).for_each(|_| pool.push(&random(3), &random(4), &random(2)).unwrap());
        let queries: Vec<_> = (0..6).map(|_| Queries { image: random(3).into(), text: random(4).into() }).collect();
        let alone: Vec<Selection> = queries.iter().map(|q| pool.select(q).unwrap()).collect();
        prop_assert!(alone.iter().all(|s| s.prompts.len() == top_k.min(n_prompts)));
        let batch = pool.gather(&alone).unwrap();
        for (i, selection) in alone.iter().enumerate() {
            let one = pool.gather(std::slice::from_ref(selection)).unwrap();
            prop_assert_eq!(&one.values[..], &batch.values[i * one.values.len()..(i + 1) * one.values.len()]);
        }
    }
}

#[test]
fn two_runs_with_one_seed_agree_and_another_seed_does_not() {
    let data = Data::new(2);
    let mut other = config(Rule::Fwd);
    other.seed = 1;
    let first = finish(&data, &config(Rule::Fwd));
    assert_eq!(first, finish(&data, &config(Rule::Fwd)));
    assert_ne!(first.pool(), finish(&data, &other).pool());
}

#[test]
fn the_weighted_rule_lies_between_residual_and_fwd() {
    let data = Data::new(2);
    let pool = |rule| finish(&data, &config(rule)).pool().clone();
    assert_eq!(pool(Rule::FwdWeighted(0.0)), pool(Rule::Residual));
    assert_eq!(pool(Rule::FwdWeighted(1.0)), pool(Rule::Fwd));
    // The share of the last task's change that lies in the pre-trained subspace grows with the weight.
    let share = |alpha| finish(&data, &config(Rule::FwdWeighted(alpha))).interference()[1][0].leakage;
    let shares = [0.0, 0.25, 0.5, 1.0].map(share);
    assert!(shares[0] < 1e-5 && shares.windows(2).all(|w| w[0] < w[1]), "{shares:?}");
}

#[test]
fn steps_count_instead_of_epochs() {
    // 25 samples in batches of 7 are 4 steps a pass: 8 steps are two passes, and 6 end within the second.
    let data = Data::new(1);
    let mut by_steps = config(Rule::Fwd);
    by_steps.training.steps = Some(8);
    assert_eq!(finish(&data, &by_steps).pool(), finish(&data, &config(Rule::Fwd)).pool());
    by_steps.training.steps = Some(6);
    let mut seen = Vec::new();
    run(&data, &by_steps, None, &mut |event| {
        if let Event::Step { step, of, .. } = event {
            seen.push((*step, *of));
        }
        ControlFlow::Continue(())
    });
    assert_eq!(seen, (1..=6).map(|step| (step, 6)).collect::<Vec<_>>());
}

#[test]
fn the_edges_of_a_curriculum() {
    // One task, no pre-training data: `fwd` is `residual`, and there is no last column.
    let mut data = Data::new(1);
    data.pretraining.clear();
    let state = finish(&data, &config(Rule::Fwd));
    assert_eq!((state.scores.rows.len(), state.scores.rows[1].len()), (2, 1));
    assert!(state.ledger().entries()[0].basis.is_empty());
    assert_eq!(state.pool(), finish(&data, &config(Rule::Residual)).pool());
    // With neither V_0 nor V_t nothing may move under `fwd-strict`: here embeddings and so subspaces are empty.
    let mut blank = Data::new(1);
    blank.pretraining.clear();
    blank.tasks[0].iter_mut().for_each(|s| [&mut s.image, &mut s.text].into_iter().for_each(|x| x.fill(0.0)));
    let mut told = false;
    run(&blank, &config(Rule::FwdStrict), None, &mut |event| {
        told |= matches!(event, Event::Note { note: PromptNote::NothingAllowed, .. });
        if let Event::Learnt { note: PromptNote::Interference(interference), .. } = event {
            assert!(interference.iter().all(|x| x.leakage == 0.0));
        }
        ControlFlow::Continue(())
    });
    assert!(told);
    // A task without samples opens nothing and is scored all the same.
    let mut data = Data::new(3);
    data.tasks[1].clear();
    let mut events = Vec::new();
    let mut partitioned = config(Rule::FwdStrict);
    partitioned.pool.allocation = Allocation::Partitioned(2);
    let (state, _) = run(&data, &partitioned, None, &mut |event| {
        events.push(event.clone());
        ControlFlow::Continue(())
    });
    assert_eq!((state.pool().len(), state.scores.rows[3].len(), state.interference().len()), (4, 4, 3));
    // The first and the last task without samples, and a shared pool that the second one opens.
    (data.tasks[0], data.tasks[1], data.tasks[2]) = (vec![], samples(1, 9), vec![]);
    let (state, status) = run(&data, &config(Rule::Fwd), None, &mut |_| ControlFlow::Continue(()));
    assert_eq!((status, state.pool().len()), (Status::Finished, 6));
    assert!(events.contains(&Event::NoSamples { task: "task 2".to_owned() }));
    // No tasks at all: V_0 and row 0.
    let state = finish(&Data::new(0), &config(Rule::Fwd));
    assert_eq!((state.ledger().entries().len(), state.scores.rows.len()), (1, 1));
    // Before the first task there are no prompts, so row 0 is the model alone.
    assert_eq!(state.pool().len(), 0);
}

#[test]
fn an_exhausted_capacity_is_told_and_survived() {
    let data = Data::new(5);
    let mut config = config(Rule::Residual);
    config.subspace.pretrained_energy = 1.0;
    config.subspace.task_energy = 1.0;
    let mut exhausted = Vec::new();
    let (state, status) = run(&data, &config, None, &mut |event| {
        if let Event::Note { task, note: PromptNote::CapacityExhausted } = event {
            exhausted.push(task.clone());
        }
        ControlFlow::Continue(())
    });
    assert_eq!((status, state.ledger().capacity_left()), (Status::Finished, 0));
    assert!(!exhausted.is_empty() && state.ledger().entries().last().unwrap().basis.is_empty());
    assert!(state.ledger().basis().orthonormality_error() <= 1e-5);
}

#[test]
fn gpms_first_task_keeps_one_direction_too_few() {
    let data = Data::new(1);
    let mut gpm = config(Rule::Residual);
    gpm.subspace.convention = RankConvention::Gpm;
    let ranks = |state: &State| state.ledger().entries()[0].basis.len();
    assert_eq!(ranks(&finish(&data, &gpm)) + 1, ranks(&finish(&data, &config(Rule::Residual))));
}

#[test]
fn a_nan_is_named_with_task_and_sample_and_nothing_is_written() {
    let mut data = Data::new(2);
    data.tasks[1][4].text[3] = f32::NAN;
    let (model, dir) = (Toy::new(), tempfile::tempdir().unwrap());
    let mut run = trainer(&model, data.curriculum(), &config(Rule::Fwd)).unwrap();
    let second = Column::Task(TaskId::from_index(1));
    let mut evaluate = |learner: &PromptLearner<&Toy>, _: Moment, column: Column| {
        if column == second { Ok(0.0) } else { data.score(learner, column) }
    };
    let mut before = BTreeMap::new();
    let error = run
        .run(Some(dir.path()), &mut evaluate, &mut |event| {
            if matches!(event, Event::Saved { .. }) {
                before = files(dir.path());
            }
            ControlFlow::Continue(())
        })
        .unwrap_err();
    assert_eq!(
        chain(&error),
        "task `task 2`, sample 4: Gram::push: element 3 of row 0 is not a finite number"
    );
    assert_eq!((files(dir.path()), run.learner().prompts().pool().len()), (before, 6));
    let mut broken = |_: &PromptLearner<&Toy>, _: Moment, _: Column| Err(Broken);
    let data = Data::new(1);
    let mut run = trainer(&model, data.curriculum(), &config(Rule::Fwd)).unwrap();
    let error = run.run(None, &mut broken, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert_eq!(chain(&error), "task `task 1`, evaluation after 0 tasks: the toy broke on purpose");
    let mut endless = |_: &PromptLearner<&Toy>, _: Moment, _: Column| Ok::<_, Broken>(f64::NAN);
    let error = run.run(None, &mut endless, &mut |_| ControlFlow::Continue(())).unwrap_err();
    let source = std::error::Error::source(&error);
    assert!(source.is_some_and(|e| e.is::<NotFinite>()), "{error:?}");
}

#[test]
fn impossible_configurations_are_refused_by_name() {
    let refused = |change: &dyn Fn(&mut Config)| {
        let mut config = config(Rule::Fwd);
        change(&mut config);
        config.check().unwrap_err().to_string()
    };
    let too_many = refused(&|c| c.pool.top_k = 7);
    assert_eq!(too_many, "configuration: pool.top_k is 7, but a task can only select among 6 prompts");
    assert!(refused(&|c| c.subspace.task_energy = 0.0).contains("task_energy is 0"));
    assert!(refused(&|c| c.training.batch_size = 0).contains("batch_size"));
    assert!(refused(&|c| c.rule = Rule::FwdWeighted(-1.0)).contains("fwd-weighted"));
    assert!(refused(&|c| c.training.prompts = AdamW { beta2: 1.0, ..AdamW::default() }).contains("betas"));
    let unknown = serde_json::from_str::<Config>(r#"{"training": {"epocs": 3}}"#).unwrap_err().to_string();
    assert!(unknown.contains("epocs"), "{unknown}");
    let written = serde_json::to_string(&config(Rule::FwdWeighted(0.5))).unwrap();
    assert_eq!(serde_json::from_str::<Config>(&written).unwrap(), config(Rule::FwdWeighted(0.5)));
}

/// What a run of many tasks writes for each of them does not grow with those before.
#[test]
fn a_task_is_saved_by_what_is_new_of_it() {
    let (data, dir) = (Data::new(9), tempfile::tempdir().unwrap());
    let config = Config { save_every: 2, ..config(Rule::Fwd) };
    let (mut seen, mut learnt): (BTreeMap<String, Vec<u8>>, Vec<Vec<String>>) = Default::default();
    let (state, _) = run(&data, &config, Some(dir.path()), &mut |event| {
        match event {
            Event::Saved { .. } => {
                let tensors = files(dir.path()).into_iter().filter(|(name, _)| name.ends_with("safetensors"));
                let tensors: BTreeMap<_, _> = tensors.collect();
                let new = tensors.keys().filter(|name| !seen.contains_key(*name)).cloned();
                learnt.last_mut().into_iter().for_each(|all| all.extend(new.clone()));
                // What is sealed stays: only what may still change goes when a newer one has come.
                let gone = seen.iter().filter(|(name, _)| !tensors.contains_key(*name));
                assert!(
                    gone.into_iter().all(|(name, _)| !name.contains("task.") && !name.contains("scores."))
                );
                assert!(seen.iter().all(|(name, bytes)| tensors.get(name).is_none_or(|now| now == bytes)));
                seen = tensors;
            }
            Event::Examined { done: 1, .. } => learnt.push(Vec::new()),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    assert_eq!(learnt.len(), 10);
    // Pre-training, and each task: one file each of its own and of its row of scores; the rest is the steps' own.
    let sealed = |task: usize, name: &str| {
        let names = learnt[task].iter().filter(|file| file.contains(name));
        names.map(|file| seen[file].len()).collect::<Vec<_>>()
    };
    let rank = |task: usize| state.ledger().entries()[task].basis.len();
    for (task, files) in learnt.iter().enumerate().skip(2) {
        let ([own], [row]) = (&sealed(task, "task.")[..], &sealed(task, "scores.")[..]) else {
            panic!("{files:?}")
        };
        assert_eq!(*row, sealed(1, "scores.")[0]);
        // A number for the leakage into each older subspace, one for each element of the basis and each eigenvalue, and the numbers of
        // both in the file's header.
        let size_of = |task: usize| 8 * task + 4 * DIM * rank(task) + 8 * DIM;
        let slack = 64 + 8 * DIM;
        assert!(
            *own <= sealed(1, "task.")[0] + size_of(task).saturating_sub(size_of(1)) + slack,
            "{task}: {own}"
        );
        // Steps are saved while the task is learnt, scores nine times without a tensor.
        let steps = files.iter().filter(|name| name.starts_with("state-learner-") && !name.contains("task."));
        assert_eq!(steps.count() + 2, files.len(), "{files:?}");
    }
    assert_eq!(resume(&Toy::new(), data.curriculum(), &config, dir.path()).unwrap().stage(), Stage::Done);
}

#[test]
fn a_damaged_or_foreign_state_is_refused() {
    let (model, data, dir) = (Toy::new(), Data::new(2), tempfile::tempdir().unwrap());
    let config = config(Rule::Fwd);
    let mut n = 0;
    run(&data, &config, Some(dir.path()), &mut |_| {
        n += 1;
        if n == 70 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let good = files(dir.path());
    // The manifest, what may still change, the subspace of pre-training, and the row of scores before training.
    assert_eq!(good.len(), 4, "{:?}", good.keys());
    let refusal = |config: &Config, data: &Data| {
        resume(&model, data.curriculum(), config, dir.path()).err().map(|e| chain(&e))
    };
    assert_eq!(refusal(&config, &data), None);
    assert_eq!(refusal(&Config { save_every: 9, ..config.clone() }, &data), None);
    assert!(refusal(&Config { seed: 5, ..config.clone() }, &data).unwrap().contains("another configuration"));
    assert!(refusal(&config, &Data::new(3)).unwrap().contains("tasks"));
    for (name, bytes) in &good {
        let path = dir.path().join(name);
        let mut damaged = vec![bytes[..bytes.len() / 2].to_vec()];
        if name.ends_with("json") {
            let text = String::from_utf8(bytes.clone()).unwrap();
            let moved = text.replacen("\"step\": ", "\"step\": 1", 1);
            assert_ne!(text, moved);
            damaged.push(moved.into_bytes());
        }
        if name.ends_with("safetensors") {
            let mut flipped = bytes.clone();
            let last = flipped.len() - 1;
            flipped[last] ^= 1;
            damaged.push(flipped);
        }
        for bytes in damaged {
            fs::write(&path, bytes).unwrap();
            assert!(refusal(&config, &data).unwrap().contains(name.as_str()));
        }
        fs::remove_file(&path).unwrap();
        assert!(refusal(&config, &data).unwrap().contains(name.as_str()));
        fs::write(&path, bytes).unwrap();
    }
    assert_eq!(refusal(&config, &data), None);
}

/// A run that owns its model and its samples can be handed to another thread, or to another language.
#[test]
fn a_trainer_that_owns_everything_leaves_its_maker() {
    let data = Data::new(2);
    let own = |task: &[Sample]| task.to_vec();
    let tasks = data.tasks.iter().enumerate();
    let tasks = tasks.map(|(i, task)| Task { name: format!("task {}", i + 1), train: own(task) }).collect();
    let curriculum = Curriculum { pretraining: own(&data.pretraining), tasks };
    let model = Arc::new(Toy::new());
    let mut owned = trainer(model.clone(), curriculum, &config(Rule::Fwd)).unwrap();
    let away = std::thread::spawn(move || {
        let mut evaluate = |_: &PromptLearner<Arc<Toy>>, _: Moment, _: Column| Ok::<_, Broken>(1.0);
        owned.run(None, &mut evaluate, &mut |_| ControlFlow::Continue(())).unwrap();
        owned.learner().prompts().clone()
    });
    assert_eq!(away.join().unwrap(), finish(&data, &config(Rule::Fwd)).prompts);
    assert_eq!(Arc::strong_count(&model), 1);
}

#[test]
fn the_first_values_of_prompts_are_drawn_again() {
    for (allocation, first, owners) in [
        (Allocation::Shared(4), samples(1, 9), vec![1; 4]),
        (Allocation::Shared(4), vec![], vec![2; 4]),
        (Allocation::Partitioned(2), samples(1, 9), vec![1, 1, 2, 2, 3, 3]),
        (Allocation::Partitioned(2), vec![], vec![2, 2, 3, 3]),
    ] {
        let mut data = Data::new(3);
        data.tasks[0] = first;
        let mut config = config(Rule::Fwd);
        config.pool.allocation = allocation;
        config.pool.top_k = 2;
        config.training.epochs = 2;
        let moved = finish(&data, &config);
        assert_eq!(moved.prompts.owners(), owners);
        config.training.prompts.lr = 1e-30; // Lost in the sum.
        let still = finish(&data, &config);
        assert_eq!(moved.prompts.initial_prompts(), still.pool().prompts());
        assert_ne!(moved.pool().prompts(), still.pool().prompts());
    }
}

#[test]
fn samples_further_away_than_a_tasks_own_take_no_prompts() {
    let model = Toy::new();
    let mut config = config(Rule::Fwd);
    config.pool.allocation = Allocation::Partitioned(2);
    let taking = |data: &Data, quantile: f64| -> Vec<usize> {
        let config = Config {
            pool: PoolConfig { rejection: Rejection::BelowQuantile(quantile), ..config.pool.clone() },
            ..config.clone()
        };
        let dir = tempfile::tempdir().unwrap();
        let (state, _) = run(data, &config, Some(dir.path()), &mut |_| ControlFlow::Continue(()));
        assert_eq!(Prompts::load(dir.path()).unwrap(), state.prompts);
        let takes = |sample: &&Sample| {
            !state.pool().select(&model.queries(sample).unwrap()).unwrap().prompts.is_empty()
        };
        data.tasks.iter().map(|task| task.iter().filter(takes).count()).collect()
    };
    let (one, three) = (Data::new(1), Data::new(3));
    assert_eq!([0.0, 0.5, 1.0].map(|quantile| taking(&one, quantile)), [[25], [13], [1]]);
    assert_eq!(taking(&three, 0.0), [25; 3]);
    assert!(taking(&three, 1.0).iter().all(|n| (1..10).contains(n)));
}
