//! The program on every kind of model: LLaVA, InstructBLIP with Vicuna, BLIP-2 with OPT, as small checkpoints with random weights.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use common::{Place, TASKS, fail, files, picture, stderr, succeed};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// A kind of model: the reference set, and the tokenizer that fits its vocabulary.
struct Kind {
    set: &'static str,
    tokenizer: &'static str,
    /// The processor of the images.
    processor: &'static str,
    has_qformer: bool,
}

const LLAVA: Kind = Kind {
    set: "llava-tiny",
    tokenizer: "llama_bpe",
    processor: r#"{"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 28}, "crop_size": 28}"#,
    has_qformer: false,
};
const VICUNA: Kind = Kind {
    set: "instructblip-vicuna-tiny",
    tokenizer: "vicuna_bpe",
    processor: r#"{"size": {"height": 28, "width": 28}}"#,
    has_qformer: true,
};
const OPT: Kind = Kind {
    set: "blip2-opt-tiny",
    tokenizer: "opt_bpe",
    processor: r#"{"size": {"height": 28, "width": 28}}"#,
    has_qformer: false,
};

/// The template of LLaVA-1.5, without what it does for other roles.
const TEMPLATE: &str = "{% for message in messages %}{{ message['role'].upper() + ': ' }}{% for part in message['content'] | \
    selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}{% for part in message['content'] | selectattr('type', 'equalto', \
    'text') %}{{ part['text'] + ' ' }}{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}";

fn write_model(dir: &Path, kind: &Kind) {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let set = crates.join("fwd-models/tests/fixtures/sets").join(kind.set);
    let tokenizers = crates.join("fwd-data/tests/fixtures/tokenizers");
    fs::create_dir_all(dir.join("qformer_tokenizer")).unwrap();
    for name in ["config.json", "generation_config.json", "model.safetensors"] {
        fs::copy(set.join(name), dir.join(name)).unwrap();
    }
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(tokenizers.join(kind.tokenizer).join(name), dir.join(name)).unwrap();
        if kind.has_qformer {
            fs::copy(tokenizers.join("qformer_99").join(name), dir.join("qformer_tokenizer").join(name))
                .unwrap();
        }
    }
    fs::write(dir.join("preprocessor_config.json"), kind.processor).unwrap();
    if kind.set.starts_with("llava") {
        fs::write(dir.join("chat_template.json"), json!({ "chat_template": TEMPLATE }).to_string()).unwrap();
    }
}

fn place(kind: &Kind) -> Place {
    let place = Place::with_model(|dir| write_model(dir, kind));
    // A sample of the first task.
    picture(0, 0).save(place.path("square.png")).unwrap();
    place
}

const QUESTION: &str = "What colour is it?";

/// `ask` with more arguments.
fn ask(place: &Place, more: &[&str]) -> Value {
    let args = [&["ask", "--image", "square.png", "--json", "--max-new-tokens", "4"], more].concat();
    serde_json::from_str(&succeed(&mut place.program(&args))).unwrap()
}

/// The parts of a prompt in one text, a soft prompt and an image by their tokens, and how many tokens it has.
fn shown(prompt: &Value) -> (String, u64) {
    let part = |part: &Value| match part["kind"].as_str().unwrap() {
        "text" => part["text"].as_str().unwrap().to_owned(),
        kind => format!("[{kind} {}]", part["n_tokens"]),
    };
    (prompt["parts"].as_array().unwrap().iter().map(part).collect(), prompt["n_tokens"].as_u64().unwrap())
}

/// Trains, asks, analyses, inspects, scores again and fine-tunes; `more` goes to `train`. What `ask --show-prompt` says of the run.
fn all_commands(place: &Place, more: &[&str]) -> (String, u64) {
    let few = ["--steps", "3", "--method", "fwd"];
    succeed(&mut place.train("run", &[&few[..], more].concat()));
    let metrics = place.metrics("run");
    assert!(metrics["measures"]["leakage"].as_f64().unwrap() <= 1e-5, "{metrics}");
    assert_eq!(metrics["scores"].as_array().unwrap().len(), 3);
    let reply = ask(place, &["run", QUESTION]);
    assert!(reply["answer"].is_string());
    let prompt = ask(place, &["run", "--show-prompt", QUESTION]);
    // Two prompts of the length that runs have by default.
    let run = place.json("run/manifest.json");
    let length = 2 * run["run"]["config"]["pool"]["prompt_len"].as_u64().unwrap();
    let (text, n_tokens) = shown(&prompt);
    assert!(text.contains(&format!("[prompt {length}]")), "{text}");
    let text = text.replace(&format!("[prompt {length}]"), "[prompt]");
    let again: Value =
        serde_json::from_str(&succeed(&mut place.program(&["eval", "run", "--json"]))).unwrap();
    for i in 0..TASKS.len() {
        assert_eq!(again["scores"][i]["score"], metrics["scores"][2][i], "{}", TASKS[i]);
    }
    let found: Value =
        serde_json::from_str(&succeed(&mut place.program(&["analyze", "--run", "run", "--json"]))).unwrap();
    assert_eq!(found["tasks"].as_array().unwrap().len(), 2, "{found}");
    assert!(succeed(&mut place.program(&["inspect", "run"])).contains("nearest word"));
    let tuned = [&["--steps", "2", "--method", "finetune"], more].concat();
    let output = place.train("tuned", &tuned).output().unwrap();
    let said = stderr(&output);
    assert!(output.status.success() && said.contains("weights are trained in f32"), "{said}");
    assert!(place.metrics("tuned")["trainable_parameters"].as_u64().unwrap() > 0);
    (text, n_tokens - length)
}

#[test]
fn llava_runs_with_its_chat_template() {
    let place = place(&LLAVA);
    let (text, n_tokens) = all_commands(&place, &[]);
    // Soft prompts stand behind the token that begins a sequence, the image where the template puts it.
    assert!(text.starts_with("<s>[prompt]USER: [image 4]\n"), "{text}");
    assert!(text.ends_with("What colour is it? ASSISTANT:"), "{text}");
    assert_eq!(place.json("run/manifest.json")["run"]["config"]["template"], "chat");

    // Without a run, a plain prompt, and what people type.
    let alone =
        |more: &[&str]| shown(&ask(&place, &[&["--backbone", "model", "--show-prompt"], more].concat()));
    let plain = alone(&["--template", "plain", QUESTION]);
    assert_eq!(plain.0, format!("<s>[image 4]\n{QUESTION}"));
    assert_eq!(alone(&[QUESTION]).1, n_tokens);
    for typed in
        [format!("<image>\n{QUESTION}"), format!("{QUESTION}<image>"), format!("<image> <image>{QUESTION}")]
    {
        assert_eq!(alone(&[&typed]), alone(&[QUESTION]), "{typed}");
    }
    let readable = succeed(&mut place.program(&[
        "ask",
        "--image",
        "square.png",
        "--backbone",
        "model",
        "--show-prompt",
        QUESTION,
    ]));
    assert!(
        readable.contains("[image 4 tokens]") && readable.trim_end().ends_with(&format!("{n_tokens} tokens")),
        "{readable}"
    );

    // A template that writes the beginning itself gets no second one.
    let own = format!("{{{{ bos_token }}}}{TEMPLATE}");
    fs::write(place.path("model/chat_template.jinja"), own).unwrap();
    assert_eq!(alone(&[QUESTION]).1, n_tokens);
    // Also where no file says which token begins a sequence, and the template spells it out.
    fs::write(place.path("model/chat_template.jinja"), format!("<s>{TEMPLATE}")).unwrap();
    fs::rename(place.path("model/tokenizer_config.json"), place.path("kept.json")).unwrap();
    let spelt = alone(&[QUESTION]);
    assert_eq!((spelt.0.matches("<s>").count(), spelt.1), (1, n_tokens), "{}", spelt.0);
    fs::rename(place.path("kept.json"), place.path("model/tokenizer_config.json")).unwrap();
    fs::remove_file(place.path("model/chat_template.jinja")).unwrap();
    // Texts are measured without weights.
    let checked = succeed(&mut place.program(&["data", "check", "bench", "--backbone", "model"]));
    assert!(!checked.contains("tokens, the limit"), "{checked}");

    // The same features under another template are other features, and a run says so.
    let output = place.program(&["eval", "run", "--template", "plain"]).output().unwrap();
    assert!(
        output.status.success() && stderr(&output).contains("the run learnt with template `chat`"),
        "{}",
        stderr(&output)
    );
    fs::remove_file(place.path("run/metrics.json")).unwrap();
    let refused = fail(&mut place.train("run", &["--steps", "3", "--template", "plain"]));
    assert!(refused.contains("config.template"), "{refused}");

    // A template that fails is named with its line.
    fs::write(place.path("model/chat_template.jinja"), "{{ bos_token }}\n{{ raise_exception('no images') }}")
        .unwrap();
    let refused =
        fail(&mut place.program(&["ask", "--image", "square.png", "--backbone", "model", QUESTION]));
    assert!(refused.contains("chat_template.jinja: line 2") && refused.contains("no images"), "{refused}");
    fs::write(place.path("model/chat_template.jinja"), "{{ messages[0].content[1].text }}").unwrap();
    let refused =
        fail(&mut place.program(&["ask", "--image", "square.png", "--backbone", "model", QUESTION]));
    assert!(refused.contains("0 images instead of 1") && refused.contains("--template plain"), "{refused}");
}

#[test]
fn instructblip_with_vicuna_runs_without_a_padding_token() {
    let place = place(&VICUNA);
    let (text, _) = all_commands(&place, &[]);
    // The image stands in front of the token that begins the text, and the prompts in front of both.
    assert_eq!(text, format!("[prompt][image 4]<s> {QUESTION}"));
    assert_eq!(place.json("run/manifest.json")["run"]["config"]["template"], Value::Null);
    let refused = fail(&mut place.train("x", &["--template", "chat"]));
    assert!(refused.contains("no chat template") && refused.contains("--template plain"), "{refused}");
    // With a template of its own, the instruction is part of what that writes; another run than without.
    let template = "{{ 'Question: ' + messages[0].content + ' Answer:' }}";
    fs::write(place.path("model/chat_template.jinja"), template).unwrap();
    succeed(&mut place.train("plain", &["--steps", "3", "--method", "fwd"]));
    succeed(&mut place.train("chat", &["--steps", "3", "--method", "fwd", "--template", "chat"]));
    assert_eq!(place.json("chat/manifest.json")["run"]["config"]["template"], "chat");
    let (text, _) = shown(&ask(&place, &["chat", "--show-prompt", QUESTION]));
    assert!(text.ends_with(&format!("][image 4]<s> Question: {QUESTION} Answer:")), "{text}");
    let compared = succeed(&mut place.program(&["compare", "plain", "chat"]));
    assert!(
        compared.contains("fwd (template chat)") && compared.contains("fwd (template plain)"),
        "{compared}"
    );
    // A sentencepiece model alone is named, with what makes a tokenizer.json of it.
    fs::rename(place.path("model/tokenizer.json"), place.path("model/tokenizer.model")).unwrap();
    let refused = fail(&mut place.train("x", &[]));
    assert!(refused.contains("only tokenizer.model") && refused.contains("save_pretrained"), "{refused}");
}

#[test]
fn blip2_with_opt_runs_in_8_bits() {
    let place = place(&OPT);
    let (text, _) = all_commands(&place, &["--dtype", "q8"]);
    assert_eq!(text, format!("[prompt][image 4]</s>{QUESTION}"));
    assert_eq!(place.json("run/manifest.json")["run"]["config"]["dtype"], "q8");
    // A run is opened as it was made, unless told otherwise.
    let output = place.program(&["eval", "run", "--dtype", "f32"]).output().unwrap();
    assert!(
        output.status.success() && stderr(&output).contains("the run learnt with dtype `q8`"),
        "{}",
        stderr(&output)
    );
    // The kept features of one type are not those of another.
    let n_files = || files(&place.path(".fwd-cache")).len();
    let before = n_files();
    succeed(&mut place.train("f32", &["--steps", "1"]));
    // 32 samples of the tasks, 6 of pre-training and 2 that are scored of it, of which `eval` has computed 8 already.
    assert_eq!(n_files(), before + 32);
    // The runs are no two seeds of one method, and neither are they if the manifest is from before there were types.
    let mut manifest = place.json("f32/manifest.json");
    for _ in 0..2 {
        let compared = succeed(&mut place.program(&["compare", "run", "f32"]));
        assert!(compared.contains("fwd (dtype q8") && compared.contains("fwd (dtype f32"), "{compared}");
        let config = manifest["run"]["config"].as_object_mut().unwrap();
        config.remove("dtype");
        fs::write(place.path("f32/manifest.json"), manifest.to_string()).unwrap();
    }
    // `analyze` says which of the runs learnt otherwise.
    let said = |args: &[&str]| {
        let output = place.program(&[&["analyze", "--samples", "4"], args].concat()).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    let note = |run: &str, learnt: &str, now: &str| {
        format!("{run}: the run learnt with dtype `{learnt}`, the model is opened with `{now}`")
    };
    assert!(said(&["--run", "run", "--dtype", "bf16"]).contains(&note("run", "q8", "bf16")));
    assert!(said(&["--run", "run", "--run", "f32"]).contains(&note("f32", "f32", "q8")));
    assert!(!said(&["--run", "run"]).contains("the run learnt with"));

    fs::remove_file(place.path("run/metrics.json")).unwrap();
    let refused = fail(&mut place.train("run", &["--steps", "3"]));
    assert!(refused.contains("config.dtype"), "{refused}");
}

#[test]
fn llava_runs_with_a_language_model_in_a_gguf_file() {
    let place = place(&LLAVA);
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let gguf = crates.join("fwd-models/tests/fixtures/sets/gguf-llama-tiny/model.gguf");
    // Its vocabulary has no tokens for an image and for padding; so embeddings and head stay in safetensors.
    let path = place.path("model/model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let kept = all.tensors().into_iter().filter(|(name, _)| !name.contains("language_model.model.layers."));
    safetensors::serialize_to_file(kept, None, &path).unwrap();
    let refused = fail(&mut place.train("run", &["--steps", "1"]));
    assert!(refused.contains("language_model.model.layers.0"), "{refused}");
    fs::copy(gguf, place.path("model/language.gguf")).unwrap();
    succeed(&mut place.train("run", &["--steps", "3", "--method", "fwd"]));
    let metrics = place.metrics("run");
    assert!(metrics["measures"]["leakage"].as_f64().unwrap() <= 1e-5, "{metrics}");
    assert!(ask(&place, &["run", QUESTION])["answer"].is_string());
}

#[cfg(unix)]
#[test]
fn a_killed_run_of_every_kind_ends_where_the_unbroken_one_does() {
    [LLAVA, VICUNA, OPT].iter().for_each(killed);
}

#[cfg(unix)]
fn killed(kind: &Kind) {
    let place = place(kind);
    let long = ["--steps", "30", "--dtype", "bf16", "--compute", "bf16"];
    succeed(&mut place.train("whole", &long));
    let mut command = place.train("run", &long);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while !place.path("run/state/state.json").exists() {
        assert!(began.elapsed() < Duration::from_secs(120), "a saved state did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!place.path("run/metrics.json").exists());
    succeed(&mut place.train("run", &long));
    assert_eq!(place.metrics_bytes("run"), place.metrics_bytes("whole"), "{}", kind.set);
}
