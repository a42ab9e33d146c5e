//! `analyze` and `inspect` against computations of this file's own, from what runs keep on disk.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use common::{Place, TASKS, fail, succeed};
use safetensors::SafeTensors;
use serde_json::Value;
use std::fs;
use std::path::Path;

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}

fn count(value: &Value) -> usize {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count")) as usize
}

fn floats(bytes: &[u8]) -> Vec<f64> {
    bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect()
}

/// Frozen features that are kept in a folder: visual tokens, text embeddings, image query, text query.
fn features(dir: &Path) -> Vec<[Vec<f64>; 4]> {
    let mut found = Vec::new();
    for folder in fs::read_dir(dir).unwrap() {
        for file in fs::read_dir(folder.unwrap().path()).unwrap() {
            let bytes = fs::read(file.unwrap().path()).unwrap();
            let word = |i: usize| {
                let at = 12 + 4 * i;
                u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
            };
            // Two segments, an image (1) and a text (2), each with its length, then the lengths of the queries.
            assert_eq!([word(0), word(1), word(3)], [2, 1, 2]);
            let mut values = floats(&bytes[12 + 4 * 7..]);
            found.push([2, 4, 5, 6].map(|i| values.drain(..word(i)).collect()));
        }
    }
    found
}

/// A tensor of a task, 0 for pre-training, in a run's state.
fn tensor_of(place: &Place, run: &str, t: usize, name: &str) -> Option<(Vec<usize>, Vec<f64>)> {
    let state = place.json(&format!("{run}/state/state.json"));
    let files = state["tensors"].as_object().unwrap().values();
    let files = files.map(|part| place.path(run).join("state").join(part["file"].as_str().unwrap()));
    files.map(|path| fs::read(path).unwrap()).find_map(|bytes| {
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let view = tensors.tensor(&format!("learner/task.{t}.{name}")).ok()?;
        Some((view.shape().to_vec(), floats(view.data())))
    })
}

/// What the tasks of a run's state have of a tensor, one below the other.
fn tensor(place: &Place, run: &str, name: &str) -> (Vec<usize>, Vec<f64>) {
    let parts = (0..3).filter_map(|t| tensor_of(place, run, t, name));
    let all = parts.reduce(|(mut shape, mut values), (more, others)| {
        shape[0] += more[0];
        values.extend(others);
        (shape, values)
    });
    all.unwrap()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn near(a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{a} is not {b}");
}

/// The entry of a list with these values.
fn find<'v>(entries: &'v Value, keys: &[(&str, Value)]) -> &'v Value {
    let fits = |entry: &&Value| keys.iter().all(|(key, value)| entry[*key] == *value);
    list(entries).iter().find(fits).unwrap_or_else(|| panic!("no {keys:?} in {entries}"))
}

#[test]
fn spectra_are_those_of_the_embeddings() {
    let place = Place::new();
    let analyze = ["analyze", "--backbone", "model", "--bench", "bench", "--cache", "kept"];
    let json = succeed(&mut place.program(&[&analyze[..], &["--json", "--tasks", "colours"]].concat()));
    let found: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&found["tasks"][0]["name"], count(&found["tasks"][0]["n_samples"])), (&"colours".into(), 12));
    let dim = count(&found["dim"]);

    // tr ZᵀZ = Σσ², over this task and pre-training together: that is all that was embedded.
    let kept = features(&place.path("kept"));
    assert_eq!(kept.len(), 24);
    for (modality, part) in [("image", 0), ("text", 1)] {
        let squares: f64 = kept.iter().map(|sample| dot(&sample[part], &sample[part])).sum();
        let rows: usize = kept.iter().map(|sample| sample[part].len() / dim).sum();
        let spectra = [&found["embeddings"]["spectra"], &found["pretrained"]["spectra"]]
            .map(|spectra| find(spectra, &[("modality", modality.into())]));
        let values = spectra.map(|s| list(&s["singular_values"]).iter().map(number).collect::<Vec<f64>>());
        // Rows are summed in f32, and eigenvalues below the rounding count as 0.
        near(values.iter().map(|v| dot(v, v)).sum(), squares, 2e-5);
        assert_eq!(spectra.iter().map(|s| count(&s["n_rows"])).sum::<usize>(), rows);
        // Ranks, curve and effective rank follow from the singular values.
        for (spectrum, values) in spectra.iter().zip(&values) {
            let total = dot(values, values);
            for (i, energy) in [0.90, 0.95, 0.99].into_iter().enumerate() {
                let rank = count(&spectrum["ranks"][i]);
                near(
                    number(&spectrum["energy_curve"][rank - 1]),
                    dot(&values[..rank], &values[..rank]) / total,
                    1e-9,
                );
                assert!(dot(&values[..rank], &values[..rank]) >= energy * total * (1.0 - 1e-12));
                assert!(dot(&values[..rank - 1], &values[..rank - 1]) < energy * total);
            }
            let entropy: f64 =
                values.iter().map(|v| v * v / total).filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum();
            near(number(&spectrum["effective_rank"]), entropy.exp(), 1e-9);
        }
    }
    // Every sample of the task asks the same: as many directions as its tokens, and both halves have the same ones.
    let text = find(&found["embeddings"]["spectra"], &[("modality", "text".into())]);
    let n_tokens = count(&text["n_rows"]) / 12;
    let n_directions = list(&text["singular_values"]).iter().filter(|v| number(v) > 1e-4).count();
    assert!(n_directions <= n_tokens, "{n_directions} {n_tokens}");
    let halves = find(&found["halves"], &[("modality", "text".into())]);
    near(number(&halves["overlap"]), 1.0, 1e-6);
    assert_eq!(list(&found["embeddings"]["pairs"]).len(), 0);

    // Pre-training against itself: all of the energy that was asked for lies in V_0, and nothing is needed beside it.
    let out = ["--tasks", "squares,colours", "--out", "found", "--energy", "0.9"];
    let table = succeed(&mut place.program(&[&analyze[..], &out].concat()));
    assert!(
        table.contains("squares") && table.contains("V_0") && table.contains("random directions"),
        "{table}"
    );
    let found = place.json("found/analysis.json");
    let of = |task: &str| {
        let keys = [("task", task.into()), ("modality", "both".into())];
        find(&found["pretrained"]["tasks"], &keys).clone()
    };
    let itself = of("squares");
    assert_eq!((count(&itself["beyond"]), count(&itself["rank"])), (0, count(&found["pretrained"]["rank"])));
    assert!(number(&itself["captured"]) >= 0.9 - 1e-6);
    near(number(&itself["overlap"]), 1.0, 1e-6);
    assert!(number(&of("colours")["captured"]) < number(&itself["captured"]));
    let pair = find(&found["embeddings"]["pairs"], &[("modality", "both".into())]);
    let angles: Vec<f64> = list(&pair["angles"]).iter().map(number).collect();
    let squared: f64 = angles.iter().map(|a| a.to_radians().cos().powi(2)).sum();
    near(number(&pair["overlap"]), squared / angles.len() as f64, 1e-6);
    assert_eq!(angles.len(), list(&pair["ranks"]).iter().map(count).min().unwrap());

    let wrong = |more: &[&str]| fail(&mut place.program(&[&analyze[..], more].concat()));
    assert!(wrong(&["--tasks", "colour"]).contains("colours"));
    assert!(wrong(&["--energy", "1.5"]).contains("--energy is 1.5"));
}

/// Rank at 99 %, effective rank and number of rows, of all tasks together after so many.
fn together(place: &Place, run: &str, after: usize, rows: &str) -> (usize, f64, usize) {
    let stage = place.json(&format!("{run}/ranks/after-{after}.json"));
    assert_eq!(count(&stage["after"]), after);
    assert_eq!(stage["learnt"], if after == 0 { Value::Null } else { TASKS[after - 1].into() });
    let rank = find(&stage["ranks"], &[("task", Value::Null), ("rows", rows.into())]);
    (count(&rank["ranks"][2]), number(&rank["effective_rank"]), count(&rank["n_rows"]))
}

#[test]
fn ranks_grow_where_the_embedding_is_trained_and_stay_where_it_is_frozen() {
    let place = Place::new();
    succeed(&mut place.train("prompts", &["--cache", "kept"]));
    succeed(&mut place.train("weights", &["--method", "finetune", "--set", "finetune.lr=0.01"]));
    // What moves weights moves the outputs of older tasks.
    assert!(place.metrics("weights")["measures"]["output_kl"].as_f64().unwrap() > 1e-4);
    // Of longer answers as many tokens are compared as are generated at most.
    let short = ["--method", "finetune", "--set", "max_new_tokens=1"];
    succeed(&mut place.train("short", &short));
    let size =
        |run: &str| fs::metadata(place.path(&format!("{run}/outputs/colours.safetensors"))).unwrap().len();
    assert!(size("short") < size("weights"), "{} {}", size("short"), size("weights"));
    let frozen = together(&place, "prompts", 0, "both");
    for after in 0..3 {
        assert_eq!(together(&place, "prompts", after, "both"), frozen);
        // Two prompts of four tokens in front of each of the 12 samples of a task that was learnt.
        let prompted = together(&place, "prompts", after, "prompted");
        assert_eq!(prompted.2, frozen.2 + after * 12 * 2 * 4);
        assert_eq!(prompted == frozen, after == 0, "{prompted:?} {frozen:?}");
    }
    // The same rows as fine-tuning begins with, and its instructions stay frozen.
    let first = together(&place, "weights", 0, "both");
    assert_eq!((first.0, first.2), (frozen.0, frozen.2));
    near(first.1, frozen.1, 1e-4);
    let text = together(&place, "weights", 0, "text");
    for after in 1..3 {
        assert_eq!(together(&place, "weights", after, "text"), text);
        let [before, now] = [after - 1, after].map(|after| together(&place, "weights", after, "image"));
        assert!((before.1 - now.1).abs() > 1e-3, "{before:?} {now:?}");
        assert_eq!(before.2, now.2);
    }

    let analyze = ["analyze", "--run", "prompts", "--run", "weights", "--cache", "kept"];
    let found = succeed(&mut place.program(&[&analyze[..], &["--out", "found", "--json"]].concat()));
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found, place.json("found/analysis.json"));
    assert_eq!(found["tasks"].as_array().unwrap().len(), 2);
    for (growth, run) in list(&found["growth"]).iter().zip(["prompts", "weights"]) {
        assert_eq!(growth["run"], run);
        for (after, stage) in list(&growth["stages"]).iter().enumerate() {
            assert_eq!(*stage, place.json(&format!("{run}/ranks/after-{after}.json")));
        }
    }
    let table = succeed(&mut place.program(&analyze));
    assert!(table.contains("weights (finetune, seed 0)") && table.contains("2 corners"), "{table}");

    succeed(&mut place.train("nothing", &["--method", "zero-shot"]));
    let refused = fail(&mut place.program(&["analyze", "--run", "nothing"]));
    assert!(refused.contains("nothing keeps no ranks") && refused.contains("zero-shot"), "{refused}");
}

#[test]
fn selection_displacement_and_words_are_those_of_the_prompts() {
    let place = Place::new();
    succeed(&mut place.train("run", &[]));
    // A change of 1e-30 is lost in the prompts.
    succeed(&mut place.train("still", &["--lr", "1e-30"]));
    let inspect = |run: &str, more: &[&str]| -> Value {
        let all = [&["inspect", run, "--json", "--cache", "kept"], more].concat();
        serde_json::from_str(&succeed(&mut place.program(&all))).unwrap()
    };
    let found = inspect("run", &["--nearest", "2", "--out", "run"]);
    assert_eq!(found, place.json("run/inspection.json"));

    // Who selects what: the same from the saved keys and the kept queries.
    let (shape, image_keys) = tensor(&place, "run", "image_keys");
    let (_, text_keys) = tensor(&place, "run", "text_keys");
    let m = shape[0];
    let key = |keys: &[f64], j: usize| keys[j * keys.len() / m..(j + 1) * keys.len() / m].to_vec();
    let (mut best, mut selected) = (vec![0; m], vec![0; m]);
    let kept = features(&place.path("kept"));
    assert_eq!(kept.len(), 4 + 4 + 2);
    for [_, _, image, text] in &kept {
        let score = |j: &usize| cosine(image, &key(&image_keys, *j)) + cosine(text, &key(&text_keys, *j));
        let mut order: Vec<usize> = (0..m).collect();
        order.sort_by(|a, b| score(b).total_cmp(&score(a)));
        best[order[0]] += 1;
        order[..2].iter().for_each(|&j| selected[j] += 1);
    }
    let rows = list(&found["selection"]);
    assert_eq!(
        rows.iter().map(|row| row["task"].as_str().unwrap()).collect::<Vec<_>>(),
        ["colours", "corners", "pre-training"]
    );
    let summed = |key: &str| -> Vec<usize> {
        (0..m).map(|j| rows.iter().map(|row| count(&row[key][j])).sum()).collect()
    };
    assert_eq!((summed("best"), summed("selected")), (best, selected));
    let confusion = &found["confusion"];
    assert_eq!(confusion["columns"], serde_json::json!(TASKS));
    for (row, n) in [4, 4, 2].into_iter().enumerate() {
        let sum = |key: &str| list(&confusion[key][row]).iter().map(count).sum::<usize>();
        assert_eq!((sum("best"), sum("selected")), (n, 2 * n));
        assert_eq!(number(&found["similarity"][row][row]), 1.0);
        let keys = &rows[row]["keys"];
        let (image, text) = (number(&keys["image_margin"]), number(&keys["text_margin"]));
        near(number(&keys["image_share"]), image / (image + text), 1e-9);
    }

    // Where training moved the prompts: against a run whose prompts cannot move.
    let (shape, after) = tensor(&place, "run", "prompts");
    let (_, before) = tensor(&place, "still", "prompts");
    let (size, dim) = (shape[1] * shape[2], shape[2]);
    let bases: Vec<Vec<f64>> = (0..3).map(|t| tensor_of(&place, "run", t, "basis").unwrap().1).collect();
    for (j, prompt) in list(&found["prompts"]).iter().enumerate() {
        assert_eq!(prompt["task"], TASKS[j / 2]);
        let change: Vec<f64> = (j * size..(j + 1) * size).map(|i| after[i] - before[i]).collect();
        let squared = dot(&change, &change);
        near(number(&prompt["moved"]), squared.sqrt(), 1e-6);
        let mut rest = 1.0;
        for (basis, share) in bases.iter().zip(list(&prompt["inside"])) {
            let inside: f64 = change
                .chunks_exact(dim)
                .flat_map(|row| basis.chunks_exact(dim).map(|v| dot(row, v).powi(2)))
                .sum();
            near(number(share), inside / squared, 1e-6);
            rest -= inside / squared;
        }
        near(number(&prompt["outside"]), rest, 1e-6);
        // The second task may not touch the subspace of the first.
        assert!(j < 2 || number(&prompt["inside"][1]) < 1e-9, "{prompt}");
    }
    let capacity = &found["capacity"];
    let ranks: usize = list(&capacity["subspaces"]).iter().map(|space| count(&space["rank"])).sum();
    assert_eq!((count(&capacity["used"]), count(&capacity["dim"])), (ranks, dim));
    assert_eq!(count(&capacity["left"]), dim - ranks);
    assert_eq!(ranks, bases.iter().map(|basis| basis.len() / dim).sum::<usize>());

    // The nearest words, from the model's own table.
    let bytes = fs::read(place.path("model/model.safetensors")).unwrap();
    let weights = SafeTensors::deserialize(&bytes).unwrap();
    let table = floats(weights.tensor("language_model.shared.weight").unwrap().data());
    let tokens = list(&found["prompts"]).iter().flat_map(|prompt| list(&prompt["tokens"]));
    for (token, row) in tokens.zip(after.chunks_exact(dim)) {
        let cosines: Vec<f64> = table
            .chunks_exact(dim)
            .map(|word| if dot(word, word) > 0.0 { cosine(word, row) } else { 0.0 })
            .collect();
        let largest = cosines.iter().copied().fold(f64::MIN, f64::max);
        let nearest = list(&token["nearest"]);
        assert_eq!(nearest.len(), 2);
        near(number(&nearest[0]["cosine"]), largest, 1e-5);
        near(cosines[count(&nearest[1]["id"])], number(&nearest[1]["cosine"]), 1e-5);
        assert!(!nearest[0]["token"].as_str().unwrap().is_empty());
        near(number(&token["norm"]), dot(row, row).sqrt(), 1e-6);
    }
    let still = inspect("still", &[]);
    for prompt in list(&still["prompts"]) {
        assert_eq!((number(&prompt["moved"]), number(&prompt["outside"])), (0.0, 0.0));
        for token in list(&prompt["tokens"]) {
            assert_eq!(token["nearest"][0]["cosine"], token["initial_cosine"]);
        }
    }
    let text = succeed(&mut place.program(&["inspect", "run", "--split", "val"]));
    for part in ["split val", "own first", "V_2", "directions are taken", "by chance"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = succeed(&mut place.program(&["inspect", "still"]));
    assert!(text.contains("No prompt has moved."), "{text}");
}

#[test]
fn shared_prompts_have_no_owner_and_some_runs_have_no_prompts() {
    let place = Place::new();
    for method in ["l2p", "independent", "finetune", "modal-prompt"] {
        succeed(&mut place.train(method, &["--method", method, "--steps", "2"]));
    }
    let inspect = |run: &str, more: &[&str]| -> Value {
        let all = [&["inspect", run, "--json"], more].concat();
        serde_json::from_str(&succeed(&mut place.program(&all))).unwrap()
    };
    let shared = inspect("l2p", &[]);
    assert_eq!((&shared["is_shared"], &shared["confusion"]), (&true.into(), &Value::Null));
    assert_eq!(list(&shared["selection"][0]["selected"]).iter().map(count).sum::<usize>(), 2 * 4);
    succeed(&mut place.program(&["inspect", "l2p"]));
    let alone = inspect("independent", &["--task", "corners"]);
    assert_eq!(alone["confusion"]["columns"], serde_json::json!(["corners"]));
    assert_eq!(alone["confusion"]["best"], serde_json::json!([[4], [4]]));
    assert_eq!(list(&inspect("modal-prompt", &[])["prompts"]).len(), 2);
    assert!(fail(&mut place.program(&["inspect", "independent"])).contains("--task"));
    assert!(fail(&mut place.program(&["inspect", "finetune"])).contains("neither prompts nor adapters"));
    assert!(fail(&mut place.program(&["inspect", "model"])).contains("no run directory"));
}

#[test]
fn adapters_are_inspected_layer_by_layer() {
    let place = Place::new();
    succeed(&mut place.train("run", &["--method", "o-lora", "--set", "lora.rank=2", "--lr", "0.01"]));
    let all = ["inspect", "run", "--json", "--out", "run"];
    let found: Value = serde_json::from_str(&succeed(&mut place.program(&all))).unwrap();
    assert_eq!(found, place.json("run/inspection.json"));
    assert_eq!(found["adapters"], serde_json::json!(TASKS));
    // The same from PEFT's files and the checkpoint.
    let bytes = fs::read(place.path("model/model.safetensors")).unwrap();
    let weights = SafeTensors::deserialize(&bytes).unwrap();
    let config = place.json(&format!("run/adapters/{}/adapter_config.json", TASKS[0]));
    let scale = number(&config["lora_alpha"]) / 2.0;
    let files = TASKS
        .map(|task| fs::read(place.path(&format!("run/adapters/{task}/adapter_model.safetensors"))).unwrap());
    let adapters = files.each_ref().map(|bytes| SafeTensors::deserialize(bytes).unwrap());
    let modules: Vec<&str> = list(&config["target_modules"]).iter().map(|m| m.as_str().unwrap()).collect();
    let layers = list(&found["layers"]);
    assert_eq!(layers.iter().map(|layer| count(&layer["n_maps"])).sum::<usize>(), modules.len());
    for layer in layers {
        let name = format!("{}.", layer["layer"].as_str().unwrap());
        let of_layer = || modules.iter().filter(|module| module.starts_with(&name));
        for (t, adapter) in adapters.iter().enumerate() {
            let (mut change, mut whole) = (0.0, 0.0);
            for module in of_layer() {
                let factor = |part: &str| {
                    let tensor =
                        adapter.tensor(&format!("base_model.model.{module}.lora_{part}.weight")).unwrap();
                    (tensor.shape().to_vec(), floats(tensor.data()))
                };
                let ((shape_a, a), (shape_b, b)) = (factor("A"), factor("B"));
                for o in 0..shape_b[0] {
                    for i in 0..shape_a[1] {
                        let product: f64 = (0..2).map(|r| b[o * 2 + r] * a[r * shape_a[1] + i]).sum();
                        change += (scale * product).powi(2);
                    }
                }
                let weight = floats(weights.tensor(&format!("{module}.weight")).unwrap().data());
                whole += dot(&weight, &weight);
            }
            near(number(&layer["change"][t]), (change / whole).sqrt(), 1e-6);
            assert_eq!(list(&layer["shared_inputs"][t]).len(), t);
        }
        let shared = number(&layer["shared_inputs"][1][0]);
        assert!((0.0..=1.0).contains(&shared) && number(&layer["by_chance"]) > 0.0, "{layer}");
    }
    let text = succeed(&mut place.program(&["inspect", "run"]));
    assert!(text.contains("in percent of ‖W‖") && text.contains("by chance"), "{text}");
    succeed(&mut place.program(&["report", "run", "--out", "page"]));
    let page = fs::read_to_string(place.path("page/report.html")).unwrap();
    let layer = layers[0]["layer"].as_str().unwrap();
    assert!(page.contains("How far adapters moved the weights") && page.contains(layer));
}
