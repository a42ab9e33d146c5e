//! A small parquet file as the Hugging Face hub has them, written here value by value.

#![cfg(feature = "parquet")]
#![allow(clippy::unwrap_used)]

use fwd_data::task::{ImageSource, OnBad, TaskRecord, open, read};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

const SCHEMA: &str = "message schema {
    optional group image { optional binary bytes; optional binary path (UTF8); }
    optional binary question (UTF8);
    optional group answers (LIST) { repeated group list { optional binary element (UTF8); } }
    optional int64 question_id;
}";

fn texts(
    group: &mut SerializedRowGroupWriter<'_, File>,
    values: &[&str],
    definition: &[i16],
    repetition: Option<&[i16]>,
) {
    let values: Vec<ByteArray> = values.iter().map(|text| ByteArray::from(*text)).collect();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&values, Some(definition), repetition).unwrap();
    column.close().unwrap();
}

/// Two rows, the first with the image's bytes and two answers, the second with its path and `second_question`.
fn file(path: &Path, second_question: Option<&str>) {
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let mut writer =
        SerializedFileWriter::new(File::create(path).unwrap(), schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    texts(&mut group, &["the bytes"], &[2, 1], None);
    texts(&mut group, &["images/1.png"], &[1, 2], None);
    let questions: Vec<&str> = ["Q0"].into_iter().chain(second_question).collect();
    texts(&mut group, &questions, &[1, i16::from(second_question.is_some())], None);
    texts(&mut group, &["a", "b", "c"], &[3, 3, 3], Some(&[0, 1, 0]));
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&[50, 60], Some(&[1, 1]), None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn rows_are_records() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train.parquet");
    file(&path, Some("Q1"));
    let records: Vec<TaskRecord> = read(&path, None).unwrap().map(Result::unwrap).collect();
    assert_eq!(records.len(), 2);
    assert_eq!((records[0].name().as_str(), records[0].instruction.as_str()), ("50", "Q0"));
    assert_eq!(records[0].answers, ["a", "b"]);
    assert_eq!(records[0].image, Some(ImageSource::Bytes(b"the bytes".to_vec())));
    assert_eq!(records[1].image, Some(ImageSource::Path("images/1.png".into())));
    assert_eq!(records[1].answers, ["c"]);
}

#[test]
fn a_set_holds_the_bytes() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["train-0.parquet", "train-1.parquet"] {
        file(&dir.path().join(name), Some("Q1"));
    }
    fs::create_dir(dir.path().join("images")).unwrap();
    fs::write(dir.path().join("images/1.png"), "a file").unwrap();
    let text = "[[task]]\nname = \"hub\"\nkind = \"vqa\"\ntrain = \"train-*.parquet\"\n";
    fs::write(dir.path().join("tasks.toml"), text).unwrap();
    let bench = open(dir.path(), OnBad::Refuse).unwrap().bench;
    let keys: Vec<&str> = bench.tasks[0].records.iter().map(|record| record.image.as_str()).collect();
    assert_eq!(keys, ["hub/train/train-0-0", "images/1.png", "hub/train/train-1-0", "images/1.png"]);
    assert_eq!(bench.image(keys[2]).unwrap(), b"the bytes");
    assert_eq!(bench.image(keys[1]).unwrap(), b"a file");
}

#[test]
fn damage_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train.parquet");
    file(&path, None);
    let errors: Vec<String> =
        read(&path, None).unwrap().filter_map(Result::err).map(|error| error.to_string()).collect();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].contains("train.parquet, record 1, key `text`: is missing"), "{errors:?}");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 9]).unwrap();
    let message = read(&path, None).err().unwrap().to_string();
    assert!(message.contains("train.parquet, byte 0: "), "{message}");
}

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cases/parquet").join(name)
}

fn outcomes(path: &Path) -> Vec<Result<TaskRecord, String>> {
    match read(path, None) {
        Ok(records) => records.map(|record| record.map_err(|error| error.to_string())).collect(),
        Err(error) => vec![Err(error.to_string())],
    }
}

#[test]
fn every_codec_is_read() {
    for codec in ["none", "snappy", "gzip", "brotli", "lz4", "zstd"] {
        let records = outcomes(&fixture(&format!("codecs/{codec}.parquet")));
        let first = records[0].as_ref().unwrap();
        assert_eq!(
            (records.len(), first.name().as_str(), first.answers.join("|")),
            (2, "1", "a|b".into()),
            "{codec}"
        );
        assert_eq!(first.image, Some(ImageSource::Path("a.png".into())), "{codec}");
    }
}

#[test]
fn columns_are_read_as_keys_of_json_are() {
    let records = outcomes(&fixture("codecs/conversations.parquet"));
    let second = records[1].as_ref().unwrap();
    assert_eq!((records.len(), second.name().as_str(), second.instruction.as_str()), (2, "x#2", "Q\nA\nR"));
    assert!(matches!(&second.image, Some(ImageSource::Bytes(bytes)) if bytes.starts_with(b"\x89PNG")));
    let image = outcomes(&fixture("codecs/binary.parquet")).remove(0).unwrap().image;
    assert_eq!(image, Some(ImageSource::Bytes(b"\x89PNG\xff".to_vec())));
    for (name, what) in [
        ("decoded", "record 0, key `image`: a decoded array of numbers"),
        ("other_key", "record 0, key `picture`: this looks like the image of the record"),
    ] {
        let message = outcomes(&fixture(&format!("codecs/{name}.parquet"))).remove(0).unwrap_err();
        assert!(message.contains(what), "{message}");
    }
}

#[test]
fn a_damaged_file_is_an_error_of_the_file_and_never_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    let whole = fs::read(fixture("codecs/zstd.parquet")).unwrap();
    let is_of_file = |error: &String| error.contains("t.parquet, byte 0: ");
    for at in (0..whole.len()).step_by(5) {
        for value in [0x00, 0x7f, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            fs::write(&path, &bytes).unwrap();
            // Whatever is read before the damage: at most one error ends the file.
            let read = outcomes(&path);
            let n_of_file = read
                .iter()
                .filter_map(|record| record.as_ref().err())
                .filter(|error| is_of_file(error))
                .count();
            assert!(n_of_file <= 1 && read.len() < 100, "byte {at} = {value}: {} records", read.len());
        }
        fs::write(&path, &whole[..at]).unwrap();
        let read = outcomes(&path);
        assert!(read.len() == 1 && read[0].as_ref().is_err_and(is_of_file), "cut at {at}: {read:?}");
    }
    fs::write(&path, b"\x1f\x8b\x08").unwrap();
    assert!(outcomes(&path).remove(0).unwrap_err().contains("compressed by gzip"));
}
