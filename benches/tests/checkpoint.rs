//! Random checkpoints: the sizes of the published ones, the same bytes every time, and directories that load.

#![allow(clippy::unwrap_used)]

use candle_core::{Device, Tensor};
use clap::ValueEnum;
use fwd_benches::checkpoint::{Dtype, Kind, Plan, Scale};
use fwd_data::Processor;
use fwd_models::{
    Checkpoint, LanguageInput, LanguageModel, Redundant, Segment, SegmentKind, Tap, VisionConfig,
    VisionTransformer, WeightDtype, load, load_language_model,
};
use std::collections::BTreeMap;
use std::path::Path;

fn write(kind: Kind, dtype: Dtype, dir: &Path, seed: u64) {
    Plan::new(kind, Scale::Tiny, dtype).unwrap().write(dir, seed, &mut |_| Ok(())).unwrap();
}

/// Contents of all files below a folder by their paths in it.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            all.extend(contents(&path).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else {
            all.insert(name, std::fs::read(&path).unwrap());
        }
    }
    all
}

#[test]
fn full_models_have_as_many_parameters_as_the_published_ones() {
    let n = |kind| Plan::new(kind, Scale::Full, Dtype::Bf16).unwrap().n_parameters();
    // The figures of the Hub or of the papers, and for BLIP the sum of its parts.
    assert_eq!(n(Kind::SmolLm2_135m), 134_515_008);
    assert_eq!(n(Kind::FlanT5Base), 247_577_856);
    assert_eq!(n(Kind::Dinov2Small), 22_056_576);
    assert_eq!(n(Kind::Llava1_5_7b), 7_063_427_072);
    let (eva, projection) = (985_952_256, |width: usize| width * 768 + width);
    let of = |kind, prefix: &str| -> usize {
        let plan = Plan::new(kind, Scale::Full, Dtype::Bf16).unwrap();
        plan.parameters().iter().filter(|p| p.name.starts_with(prefix)).map(|p| p.n_elements()).sum()
    };
    // FlanT5-xl; LLaMA-7B with one token more; OPT-2.7B with 32 rows more than the 50,272 of its own.
    let (t5, llama, opt) = (2_849_757_184, 6_738_415_616 + 2 * 4096, 2_651_596_800 + 32 * 2560);
    for (kind, language, width) in [
        (Kind::InstructBlipFlanT5Xl, t5, 2048),
        (Kind::Blip2FlanT5Xl, t5, 2048),
        (Kind::InstructBlipVicuna7b, llama, 4096),
        (Kind::Blip2Opt2_7b, opt, 2560),
    ] {
        assert_eq!(of(kind, "language_model."), language, "{kind:?}");
        assert_eq!(of(kind, "vision_model."), eva, "{kind:?}");
        let rest = of(kind, "qformer.") + of(kind, "query_tokens");
        assert_eq!(n(kind), language + eva + projection(width) + rest, "{kind:?}");
    }
    assert!((3.9e9..4.1e9).contains(&(n(Kind::InstructBlipFlanT5Xl) as f64)));
}

/// docs/models.md says what the weights take: its figures are those of the shapes.
#[test]
fn the_memory_table_of_the_documentation_follows_from_the_shapes() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/models.md");
    let page = std::fs::read_to_string(page).unwrap();
    let layers = ["language_model.model.layers.", "language_model.model.decoder.layers."];
    let blocks = ["language_model.encoder.block.", "language_model.decoder.block."];
    for (name, kind) in [
        ("instructblip-flan-t5-xl", Kind::InstructBlipFlanT5Xl),
        ("instructblip-vicuna-7b", Kind::InstructBlipVicuna7b),
        ("blip2-opt-2.7b", Kind::Blip2Opt2_7b),
        ("blip2-flan-t5-xl", Kind::Blip2FlanT5Xl),
        ("llava-1.5-7b-hf", Kind::Llava1_5_7b),
    ] {
        let plan = Plan::new(kind, Scale::Full, Dtype::Bf16).unwrap();
        let of_layers = |name: &str| layers.iter().chain(&blocks).any(|prefix| name.starts_with(prefix));
        let in_layers = plan.parameters().iter().filter(|p| of_layers(&p.name));
        let n_layers: usize = in_layers.map(|p| p.n_elements()).sum();
        let (n, n_rest) = (plan.n_parameters(), plan.n_parameters() - n_layers);
        assert!(n_layers > n / 2, "{name}: {n_layers} of {n}");
        // Bytes of an element, in the layers and elsewhere: a block of 32 has a scale of 2 bytes.
        let (q8, q4) = (34.0 / 32.0, 18.0 / 32.0);
        let mut cells = vec![format!("{:.1}", n as f64 / 1e9)];
        for (in_layers, elsewhere) in [(4.0, 4.0), (2.0, 2.0), (q8, q8), (q4, q8)] {
            let n_bytes = n_layers as f64 * in_layers + n_rest as f64 * elsewhere;
            cells.push(format!("{:.1}", n_bytes / 1e9));
        }
        let row = page
            .lines()
            .find(|line| line.starts_with(&format!("| `{name}` | ")) && line.matches('|').count() == 7);
        assert_eq!(row.unwrap(), format!("| `{name}` | {} |", cells.join(" | ")));
    }
}

#[test]
fn one_seed_gives_the_same_bytes_and_another_gives_others() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (kind, dtype) in [
        (Kind::InstructBlipVicuna7b, Dtype::Bf16),
        (Kind::Llava1_5_7b, Dtype::Q4),
        (Kind::Blip2Opt2_7b, Dtype::F16),
    ] {
        let name = |part: &str| at(&format!("{kind:?}-{part}"));
        write(kind, dtype, &name("a"), 1);
        write(kind, dtype, &name("b"), 1);
        write(kind, dtype, &name("c"), 2);
        let (a, b, c) = (contents(&name("a")), contents(&name("b")), contents(&name("c")));
        assert!(a == b, "{kind:?}: two runs differ");
        let differ: Vec<&String> = a.keys().filter(|file| a[*file] != c[*file]).collect();
        let weights: Vec<&String> =
            a.keys().filter(|file| file.ends_with(".safetensors") || file.ends_with(".gguf")).collect();
        assert_eq!(differ, weights, "{kind:?}: a seed changes the weights and nothing else");
    }
}

#[test]
fn weights_do_not_depend_on_which_others_are_written_beside_them() {
    // The vision tower of the same seed is the same, whether the language model is in the same file or in a GGUF file.
    let folder = tempfile::tempdir().unwrap();
    let (whole, split) = (folder.path().join("whole"), folder.path().join("split"));
    write(Kind::Llava1_5_7b, Dtype::Bf16, &whole, 5);
    write(Kind::Llava1_5_7b, Dtype::Q8, &split, 5);
    let tensor = |dir: &Path, name: &str| {
        let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
        let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + n]).unwrap();
        let at = |i: usize| header[name]["data_offsets"][i].as_u64().unwrap() as usize;
        bytes[8 + n..][at(0)..at(1)].to_vec()
    };
    let name = "multi_modal_projector.linear_2.weight";
    assert_eq!(tensor(&whole, name).len(), 2 * 64 * 64);
    assert!(tensor(&whole, name) == tensor(&split, name));
}

#[test]
fn a_full_disk_and_an_existing_folder_are_refused_and_stopping_leaves_nothing() {
    let plan = Plan::new(Kind::InstructBlipFlanT5Xl, Scale::Full, Dtype::Bf16).unwrap();
    let said = plan.check_space(7_000_000_000).unwrap_err().to_string();
    assert!(said.contains("takes 8.0") && said.contains("7.00 GB are free"), "{said}");
    plan.check_space(plan.n_bytes_on_disk()).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("model");
    let tiny = Plan::new(Kind::SmolLm2_135m, Scale::Tiny, Dtype::F32).unwrap();
    let mut n_calls = 0;
    let stopped = tiny.write(&dir, 1, &mut |_| {
        n_calls += 1;
        anyhow::ensure!(n_calls < 3, "stopped");
        Ok(())
    });
    assert_eq!(stopped.unwrap_err().to_string(), "stopped");
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "nothing is left of a checkpoint that was stopped"
    );
    std::fs::create_dir(&dir).unwrap();
    assert!(tiny.write(&dir, 1, &mut |_| Ok(())).unwrap_err().to_string().contains("exists"));
}

#[test]
fn only_llama_is_written_as_gguf() {
    for kind in Kind::value_variants() {
        let planned = Plan::new(*kind, Scale::Tiny, Dtype::Q4);
        let is_llama = matches!(kind, Kind::InstructBlipVicuna7b | Kind::Llava1_5_7b | Kind::SmolLm2_135m);
        assert_eq!(planned.is_ok(), is_llama, "{kind:?}");
    }
}

/// Random weights know nothing: with logits of variance 1, the loss of a random label is ln V + 1/2 in the mean.
fn check_loss(language: &dyn LanguageModel, what: &str) {
    let ids: Vec<i64> = (0..64).map(|i| 300 + i * 37 % 200).collect();
    let text = |at: usize| Tensor::from_slice(&ids[at..at + 32], (4, 8), &Device::Cpu).unwrap();
    let embeds = language.embed(&text(0)).unwrap();
    let input = LanguageInput::new(vec![Segment::full(SegmentKind::Text, embeds).unwrap()]).unwrap();
    let scored = language.score(&input, &text(32), &mut Tap::none()).unwrap();
    let loss: f32 = scored.loss.to_scalar().unwrap();
    let chance = (language.vocab_size() as f32).ln() + 0.5;
    // The mean of 32 labels, each with deviation 1, varies by 0.18.
    assert!((loss - chance).abs() < 1.0, "{what}: loss {loss}, chance {chance}");
}

#[test]
fn multimodal_kinds_load_with_their_processors() {
    let folder = tempfile::tempdir().unwrap();
    for (kind, dtype, weights) in [
        (Kind::InstructBlipFlanT5Xl, Dtype::Bf16, WeightDtype::Bf16),
        (Kind::Blip2FlanT5Xl, Dtype::F32, WeightDtype::F32),
        (Kind::InstructBlipVicuna7b, Dtype::F16, WeightDtype::F16),
        (Kind::InstructBlipVicuna7b, Dtype::Q8, WeightDtype::Bf16),
        (Kind::Blip2Opt2_7b, Dtype::Bf16, WeightDtype::Q8),
        (Kind::Llava1_5_7b, Dtype::Bf16, WeightDtype::Bf16),
        (Kind::Llava1_5_7b, Dtype::Q4, WeightDtype::Q4),
    ] {
        let what = format!("{kind:?} {dtype:?}");
        let dir = folder.path().join(&what);
        write(kind, dtype, &dir, 3);
        let model = load(&dir, weights, &Device::Cpu).unwrap_or_else(|error| panic!("{what}: {error}"));
        check_loss(model.language(), &what);
        let processor = Processor::open(&dir).unwrap_or_else(|error| panic!("{what}: {error}"));
        let text = "what is in 2 photos?";
        let ids = processor.text.encode(text).unwrap();
        assert!(ids.iter().all(|id| (*id as usize) < model.language().vocab_size()), "{what}: {ids:?}");
        assert_eq!(processor.text.decode(&ids).unwrap().trim(), text, "{what}");
        assert_eq!(processor.qformer.is_some(), model.bridge_reads_instruction(), "{what}");
    }
}

#[test]
fn a_language_model_alone_loads_from_every_type() {
    let folder = tempfile::tempdir().unwrap();
    for dtype in Dtype::value_variants() {
        let dir = folder.path().join(format!("{dtype:?}"));
        write(Kind::SmolLm2_135m, *dtype, &dir, 3);
        let weights = if *dtype == Dtype::F32 { WeightDtype::F32 } else { WeightDtype::Bf16 };
        let (language, tokens) = load_language_model(&dir, weights, &Device::Cpu).unwrap();
        check_loss(&*language, &format!("{dtype:?}"));
        assert_eq!((tokens.bos, tokens.eos), (1, vec![2]));
    }
    let dir = folder.path().join("flan-t5-base");
    write(Kind::FlanT5Base, Dtype::F32, &dir, 3);
    let (language, tokens) = load_language_model(&dir, WeightDtype::F32, &Device::Cpu).unwrap();
    check_loss(&*language, "flan-t5-base");
    assert_eq!((tokens.bos, tokens.eos), (1, vec![1]));
}

#[test]
fn a_vision_tower_alone_loads_and_its_features_are_of_order_one() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("dinov2");
    write(Kind::Dinov2Small, Dtype::F32, &dir, 3);
    let config: VisionConfig =
        serde_json::from_slice(&std::fs::read(dir.join("config.json")).unwrap()).unwrap();
    let mut checkpoint = Checkpoint::open(&dir, WeightDtype::F32, &Device::Cpu).unwrap();
    let tower = VisionTransformer::new(&config, &mut checkpoint, "").unwrap();
    checkpoint.finish(|name| (name == "embeddings.mask_token").then_some(Redundant::Unused)).unwrap();
    let pixels = Tensor::rand(-1f32, 1.0, (1, 3, 56, 56), &Device::Cpu).unwrap();
    let features = tower.forward(&pixels, &mut Tap::none()).unwrap();
    assert_eq!(features.dims(), [1, 17, 32]);
    // Behind the last norm every token has variance 1, and biases of 0.01 are added.
    let square: f32 = features.sqr().unwrap().mean_all().unwrap().to_scalar().unwrap();
    assert!((square - 1.0).abs() < 0.01, "{square}");
}
