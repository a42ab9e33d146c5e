//! Damaged and foreign `tokenizer.json` files: each is an error that names the file, none a panic, a hang or a lost process.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

use fwd_data::{DataError, TextTokenizer};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn fixture(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("tests/fixtures/tokenizers/{name}/tokenizer.json"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("tokenizer.json")
    }

    fn open(&self, file: &Value) -> Result<TextTokenizer, DataError> {
        self.open_text(&file.to_string())
    }

    fn open_text(&self, text: &str) -> Result<TextTokenizer, DataError> {
        fs::write(self.path(), text).unwrap();
        TextTokenizer::open(&self.path())
    }
}

/// The error in one line of bounded length, with the file's name and all the parts in it.
fn refused(result: Result<TextTokenizer, DataError>, parts: &[&str]) {
    let error = result.expect_err("must be refused").with_cause();
    for part in ["tokenizer.json"].iter().chain(parts) {
        assert!(error.contains(part), "`{part}` is missing in: {error}");
    }
    assert!(error.len() < 500 && !error.contains('\n'), "{error}");
}

#[test]
fn files_of_the_three_kinds_are_read() {
    let folder = Folder::new();
    for name in ["t5_spm", "t5_unigram", "bert_wordpiece"] {
        let mut file = fixture(name);
        let want = folder.open(&file).unwrap().encode("a small cat").unwrap();
        // Older files do not name the kind of their model.
        if name == "bert_wordpiece" {
            file["model"].as_object_mut().unwrap().remove("type");
            assert_eq!(folder.open(&file).unwrap().encode("a small cat").unwrap(), want);
        }
    }
    let bpe = json!({
        "version": "1.0", "added_tokens": [{"id": 0, "content": "<pad>", "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false}],
        "normalizer": null, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null, "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "vocab": {"<pad>": 0, "a": 1, "b": 2, "ab": 3}, "merges": [["a", "b"]]}
    });
    let tokenizer = folder.open(&bpe).unwrap();
    assert_eq!(tokenizer.encode("abba").unwrap(), [3, 2, 1]);
    let mut random = bpe;
    random["model"]["dropout"] = json!(0.1);
    refused(folder.open(&random), &["dropout 0.1", "random"]);
}

#[test]
fn damaged_sections_are_refused_by_name() {
    let folder = Folder::new();
    let with = |section: &str, value: Value| {
        let mut file = fixture("t5_spm");
        file[section] = value;
        folder.open(&file)
    };
    let replace = |pattern: Value| json!({"type": "Replace", "pattern": pattern, "content": "x"});
    refused(with("decoder", replace(json!({"String": ""}))), &["`decoder`", "pattern is empty"]);
    refused(with("normalizer", replace(json!({"Regex": ""}))), &["`normalizer`", "pattern is empty"]);
    refused(
        with("decoder", json!({"type": "Sequence", "decoders": [replace(json!({"String": ""}))]})),
        &["`decoder`"],
    );
    refused(with("decoder", replace(json!({"Regex": "(("}))), &["damaged"]);
    let strip = |stop: u64| json!({"type": "Strip", "content": "▁", "start": 0, "stop": stop});
    refused(with("decoder", strip(u64::MAX)), &["`decoder`", "`stop`", "absurd"]);
    refused(with("decoder", json!({"type": "Strip", "content": "▁", "start": -1, "stop": 0})), &["damaged"]);
    refused(with("decoder", json!({"type": "Magic"})), &["damaged"]);
    refused(with("decoder", json!(17)), &["damaged"]);
    refused(with("pre_tokenizer", json!({"type": "FixedLength", "length": 0})), &["damaged"]);
    refused(
        with("post_processor", json!({"type": "TemplateProcessing", "single": "$X", "pair": []})),
        &["damaged"],
    );
    refused(
        with("model", json!({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"})),
        &["WordLevel", "supported"],
    );
    refused(with("model", json!({"type": "Unigram", "unk_id": 0})), &["no vocabulary"]);
    refused(with("model", Value::Null), &["no section `model`"]);
}

#[test]
fn a_damaged_table_of_characters_is_refused_and_reserves_no_memory() {
    let folder = Folder::new();
    let with = |table: &str| {
        let mut file = fixture("t5_spm");
        file["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": table});
        folder.open(&file)
    };
    refused(with(""), &["`normalizer`", "precompiled_charsmap is damaged"]);
    refused(with("AAAAAA=="), &["precompiled_charsmap is damaged"]);
    // A trie of 4 GB.
    refused(with("/////wAAAAAAAAAA"), &["precompiled_charsmap is damaged"]);
    refused(with("this is no base64 !!"), &["damaged"]);
    // A trie of one unit that leads out of it.
    refused(with("BAAAAP//////YQBi"), &["damaged"]);
    let mut null = fixture("t5_spm");
    null["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": null});
    refused(folder.open(&null), &["precompiled_charsmap is damaged"]);
}

#[test]
fn damaged_vocabularies_are_refused() {
    let folder = Folder::new();
    let mut file = fixture("t5_spm");
    file["model"]["unk_id"] = json!(500_000);
    refused(folder.open(&file), &["unk_id 500000 is outside the vocabulary"]);
    file["model"]["unk_id"] = json!(-1);
    refused(folder.open(&file), &["unk_id -1 is outside the vocabulary"]);
    // The library goes through a token recursively, which would end the process.
    let mut file = fixture("t5_spm");
    file["model"]["vocab"][7] = json!(["a".repeat(300_000), -3.0]);
    refused(folder.open(&file), &["300000 bytes"]);
    // Python writes such a number, JSON has none.
    let text = fixture("t5_spm").to_string().replacen("0.0", "NaN", 1);
    refused(folder.open_text(&text), &["damaged", "line 1"]);
    let mut file = fixture("bert_wordpiece");
    file["model"]["vocab"]["cat"] = json!(-4);
    refused(folder.open(&file), &["\"cat\"", "id"]);
}

#[test]
fn other_files_in_its_place_are_told() {
    let folder = Folder::new();
    refused(
        folder.open_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 2\n"),
        &["Git LFS pointer"],
    );
    refused(folder.open_text("<html>404</html>"), &["web page"]);
    refused(folder.open_text("{\"version\": \"1.0\", "), &["damaged"]);
    refused(folder.open_text("[1, 2]"), &["no JSON object"]);
    refused(folder.open_text(&"[".repeat(100_000)), &["damaged"]);
    fs::remove_file(folder.path()).unwrap();
    refused(TextTokenizer::open(&folder.path()), &["no such file"]);
    for source in ["spiece.model", "vocab.txt"] {
        fs::write(folder.0.path().join(source), "x").unwrap();
        let command =
            format!("T.from_pretrained(\"{0}\").save_pretrained(\"{0}\")", folder.0.path().display());
        refused(TextTokenizer::open(&folder.path()), &[source, &command]);
        fs::remove_file(folder.0.path().join(source)).unwrap();
    }
}

#[test]
fn a_decoder_that_fails_on_one_text_alone_is_an_error_of_that_text() {
    let folder = Folder::new();
    let mut file = fixture("t5_spm");
    file["decoder"] = json!({"type": "Strip", "content": "z", "start": 0, "stop": 9});
    let tokenizer = folder.open(&file).unwrap();
    let error = (0..500).filter_map(|id| tokenizer.decode(&[id]).err()).next();
    let error = error.expect("the token `z` is nothing else").to_string();
    assert!(error.contains("tokenizer.json: ids ") && error.contains("library failed"), "{error}");
}

#[test]
fn a_token_without_an_embedding_and_the_token_of_the_image_are_refused_by_name() {
    let folder = Folder::new();
    let open = || folder.open(&fixture("t5_spm")).unwrap();
    assert_eq!(open().encode("<image> a cat").unwrap()[0], 500, "the vocabulary has the token");
    let tokenizer = open().for_model(501, Some(500));
    let error = tokenizer.encode("<image> a cat").unwrap_err().to_string();
    assert!(error.contains("\"<image>\" stands for an image"), "{error}");
    assert_eq!(tokenizer.without_image_token("what is <image> here?"), "what is here?");
    assert_eq!(tokenizer.without_image_token(" two  spaces "), " two  spaces ");
    let plain = tokenizer.encode("a cat").unwrap();
    assert_eq!(tokenizer.encode(&tokenizer.without_image_token("<image>\na cat")).unwrap(), plain);
    // As in transformers, other special tokens are what they stand for.
    assert_eq!(tokenizer.encode_plain("<extra_id_0>").unwrap(), [499]);
    assert!(tokenizer.encode_plain("a</s>").unwrap().contains(&1));
    let small = open().for_model(400, None);
    let error = small.encode("<extra_id_0>").unwrap_err().to_string();
    assert!(
        error.contains("\"<extra_id_0>\" has the id 499, the model has embeddings for 400 tokens"),
        "{error}"
    );
    // A visual token of another name.
    let other = open().for_model(501, Some(499));
    assert_eq!(other.without_image_token("a <extra_id_0> cat <image>"), "a cat");
}
