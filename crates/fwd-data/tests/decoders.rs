//! What decoder-only models need of texts and images: BPE tokenizers, chat templates, crops. References are those of transformers and
//! tokenizers (`make_decoder_texts.py` beside the sets of `fwd-models`).

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

use fwd_data::{ChatTemplate, ImageLimits, ImageProcessor, RgbImage, TextTokenizer};
use safetensors::SafeTensors;
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};

fn fixtures(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(part)
}

fn tokenizer(name: &str) -> TextTokenizer {
    TextTokenizer::open(&fixtures("tokenizers").join(name).join("tokenizer.json")).unwrap()
}

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    plain: Vec<u32>,
    decoded: String,
}

#[test]
fn texts_of_llama_and_opt_have_the_reference_ids() {
    for name in ["llama_bpe", "vicuna_bpe", "opt_bpe", "qformer_99"] {
        let tokenizer = tokenizer(name);
        let path = fixtures("tokenizers").join(name).join("cases.json");
        let cases: Vec<Case> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        assert_eq!(cases.len(), 5);
        for Case { text, ids, plain, decoded } in cases {
            assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{name}: {text:?}");
            assert_eq!(tokenizer.encode_plain(&text).unwrap(), plain, "{name}: {text:?}");
            assert_eq!(tokenizer.decode(&plain).unwrap(), decoded, "{name}: {text:?}");
        }
    }
    assert_eq!(
        ["llama_bpe", "opt_bpe", "qformer_99"].map(|n| tokenizer(n).is_byte_level()),
        [false, true, false]
    );
}

#[test]
fn a_vocabulary_without_padding_is_filled_up_with_what_it_has() {
    let filler = |tokenizer: &TextTokenizer| {
        let batch = tokenizer.encode_batch(&["a a a", "a"]).unwrap();
        assert_eq!(
            batch.mask.iter().filter(|&&m| m == 0).count(),
            batch.width - 2 - usize::from(batch.ids[1] != 68)
        );
        *batch.ids.last().unwrap()
    };
    // The padding token of LLaVA, and the end of a sequence where there is none.
    assert_eq!(filler(&tokenizer("llama_bpe")), 129);
    assert_eq!(filler(&tokenizer("vicuna_bpe")), 2);
    // A token that the model has no row for fills up nothing.
    assert_eq!(filler(&tokenizer("llama_bpe").for_model(128, None)), 0);
}

#[test]
fn a_prompt_has_one_beginning_and_may_have_an_image_but_a_text_may_not() {
    let llava = tokenizer("llama_bpe").for_model(132, Some(128));
    assert_eq!(llava.image_token().as_deref(), Some("<image>"));
    let prompt = llava.encode_prompt("USER: <image>\na ASSISTANT:").unwrap();
    assert_eq!((prompt[0], prompt.iter().filter(|&&id| id == 128).count()), (1, 1));
    // A chat template that writes the beginning itself.
    assert_eq!(
        llava.encode_prompt("<s>USER: <image>\na ASSISTANT:").unwrap().iter().filter(|&&id| id == 1).count(),
        1
    );
    // The same where no file beside the tokenizer says which token begins a sequence.
    let dir = tempfile::tempdir().unwrap();
    for name in ["llama_bpe", "opt_bpe"] {
        let path = dir.path().join("tokenizer.json");
        fs::copy(fixtures("tokenizers").join(name).join("tokenizer.json"), &path).unwrap();
        let alone = TextTokenizer::open(&path).unwrap();
        let bare = alone.encode_prompt("USER: a").unwrap();
        let bos = alone.token(bare[0]).unwrap();
        let own = alone.encode_prompt(&format!("{bos}USER: a")).unwrap();
        assert_eq!(own.iter().filter(|&&id| id == bare[0]).count(), 1, "{name}: {own:?}");
        assert_eq!(own[0], bare[0]);
    }
    let error = llava.encode("what is <image>").unwrap_err().to_string();
    assert!(error.contains("stands for an image"), "{error}");
    assert_eq!(llava.without_image_token("<image>\nwhat is <image> it"), "what is it");
    // Pieces do not become a token where one between them is left out.
    assert_eq!(llava.without_image_token("<ima<image>ge>"), "<ima ge>");
}

#[derive(Deserialize)]
struct Rendered {
    template: String,
    question: String,
    with_image: bool,
    rendered: String,
}

#[test]
fn chat_templates_render_as_in_transformers() {
    let cases: Vec<Rendered> =
        serde_json::from_slice(&fs::read(fixtures("chat_templates.json")).unwrap()).unwrap();
    assert_eq!(cases.len(), 10);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tokenizer_config.json"), r#"{"bos_token": "<s>", "eos_token": "</s>"}"#)
        .unwrap();
    for Rendered { template, question, with_image, rendered } in cases {
        fs::write(dir.path().join("chat_template.jinja"), &template).unwrap();
        let ours = ChatTemplate::open(dir.path()).unwrap().unwrap();
        assert_eq!(ours.render(&question, with_image).unwrap(), rendered, "{question:?} in {template}");
    }
}

#[test]
fn crops_of_clip_and_dinov2_have_the_reference_pixels() {
    let buffer = fs::read(fixtures("crops/pixels.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&buffer).unwrap();
    let mut n = 0;
    for (name, want) in tensors.tensors() {
        let (folder, file) = name.split_once('/').unwrap();
        let processor = ImageProcessor::open(&fixtures("crops").join(folder)).unwrap();
        let [_, height, width] = want.shape() else { panic!("{name}: {:?}", want.shape()) };
        assert_eq!((processor.height, processor.width), (*height, *width), "{name}");
        n += 1;
        if file == "normalised" {
            let image = RgbImage::open(&fixtures("crops/61x37.png"), ImageLimits::default()).unwrap();
            let want = want.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b));
            assert!(processor.process(&image).into_iter().eq(want), "{name}: pixel values differ");
            continue;
        }
        let image = RgbImage::open(&fixtures("crops").join(file), ImageLimits::default()).unwrap();
        let whole = ImageProcessor { rescale: 1.0, mean: [0.0; 3], std: [1.0; 3], ..processor };
        let ours: Vec<u8> = whole.process(&image).into_iter().map(|x| x as u8).collect();
        // Pillow 13 shrinks the rows of a much higher image first, older ones the columns of every image, as it is done here. A pass rounds by
        // half a level; the other one weighs that with at most Σ|w| = 1.25 and rounds again. Two orders are less than 2·(0.625 + 0.5) apart.
        let bound = if file == "23x90.png" { 2 } else { 0 };
        let largest = ours.iter().zip(want.data()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(
            ours.len() == want.data().len() && largest <= bound,
            "{name}: bytes differ by up to {largest}"
        );
    }
    assert_eq!(n, 4 * 5);
}

#[test]
fn the_long_side_of_a_narrow_image_takes_no_memory() {
    let processor = ImageProcessor::open(&fixtures("crops/clip")).unwrap();
    // Its shortest edge of 28 makes the other one 458,752 pixels long.
    let image = RgbImage::new(1, 16_384, vec![90; 3 * 16_384]).unwrap();
    let pixels = processor.process(&image);
    assert_eq!(pixels.len(), 3 * 28 * 28);
    assert!(pixels[..28 * 28].iter().all(|&x| x == pixels[0]));
}
