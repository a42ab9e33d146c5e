//! The formats of task files, and the description that names them.

use crate::folder::Folder;
use crate::reader::{Reader, Seed};
use crate::toy;
use anyhow::{Result, bail};
use fwd_data::bench::Split;
use fwd_data::task::{self, Format, OnBad, TaskSet};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use std::path::Path;
use std::sync::Arc;

const FIXTURES: &str = "crates/fwd-data/tests/fixtures/tasks";

/// LLaVA's conversations.
pub(crate) fn llava(folder: &Path) -> Result<Reader> {
    fixture(folder, "llava.json", Format::Llava)
}

/// CoIN's questions.
pub(crate) fn questions(folder: &Path) -> Result<Reader> {
    fixture(folder, "test.json", Format::Test)
}

/// The same, one a line.
pub(crate) fn question_lines(folder: &Path) -> Result<Reader> {
    fixture(folder, "test.jsonl", Format::TestLines)
}

/// Comma-separated values.
pub(crate) fn csv(folder: &Path) -> Result<Reader> {
    fixture(folder, "table.csv", Format::Csv)
}

/// TextVQA's questions.
pub(crate) fn textvqa(folder: &Path) -> Result<Reader> {
    fixture(folder, "textvqa.json", Format::TextVqa)
}

/// COCO's captions.
pub(crate) fn coco(folder: &Path) -> Result<Reader> {
    fixture(folder, "coco.json", Format::Coco)
}

/// Hugging Face's parquet, plain and compressed.
pub(crate) fn parquet(folder: &Path) -> Result<Reader> {
    let plain = table(Compression::UNCOMPRESSED)?;
    let seeds =
        vec![Seed::new("plain.parquet", plain), Seed::new("snappy.parquet", table(Compression::SNAPPY)?)];
    records(folder, seeds, Format::Parquet)
}

fn fixture(folder: &Path, name: &str, format: Format) -> Result<Reader> {
    records(folder, vec![Seed::copy(name, &format!("{FIXTURES}/{name}"))?], format)
}

/// All records, with the format told from the file and with the format named.
fn records(folder: &Path, seeds: Vec<Seed>, format: Format) -> Result<Reader> {
    let mut folder = Folder::new(folder, &seeds)?;
    Ok(Reader::new(seeds, move |input| {
        let path = folder.damage(input)?;
        let mut first = None;
        for format in [None, Some(format)] {
            // After a bad record the next one can be read, but not without end.
            let limit = input.bytes.len() + 16;
            let mut n_records = 0;
            match task::read(&path, format) {
                Ok(records) => {
                    for record in records.take(limit) {
                        n_records += 1;
                        first = first.or(record.err());
                    }
                }
                Err(error) => first = first.or(Some(error)),
            }
            if n_records == limit {
                panic!("the records of {limit} bytes have no end");
            }
        }
        first.map_or(Ok(()), |error| bail!(error))
    }))
}

/// `tasks.toml` with the files that it names.
pub(crate) fn description(folder: &Path) -> Result<Reader> {
    let text = "[[task]]\nname = \"one\"\nkind = \"caption\"\nimage_root = \"images\"\ntest = [\"none.csv\", \"t.csv\"]\n\
                prompt = \"{instruction} Be brief.\"\n\
                [[task]]\nname = \"two\"\nkind = \"vqa\"\nstage = \"pretraining\"\ntrain = \"l*.jsonl\"\n";
    let seeds = vec![
        Seed::new("tasks.toml", text),
        Seed::new("t.csv", "image,question,answer\n0.png,What?,a dog\n1.png,Who?,a cat\n"),
        Seed::new("l.jsonl", r#"{"text":"1 + 1?","answer":2}"#),
    ];
    let mut intact = seeds.clone();
    for i in 0..2 {
        intact.push(Seed::new(format!("images/{i}.png"), toy::picture(90 * i)?));
    }
    let mut folder = Folder::new(folder, &intact)?;
    Ok(Reader::new(seeds, move |input| {
        folder.damage(input)?;
        let set = TaskSet::open(folder.path())?;
        let report = task::check(&set, OnBad::Skip)?;
        let _ = report.to_string();
        for spec in &set.tasks {
            for split in [Split::Train, Split::Test] {
                let _ = task::annotations(folder.path(), &spec.name, split);
            }
        }
        let loaded = set.load(OnBad::Skip)?;
        for record in loaded.bench.tasks.iter().flat_map(|task| &task.records) {
            loaded.bench.image(&record.image)?;
        }
        set.load(OnBad::Refuse)?;
        Ok(())
    }))
}

const SCHEMA: &str = "message schema {
    optional group image { optional binary bytes; optional binary path (UTF8); }
    optional binary question (UTF8);
    optional group answers (LIST) { repeated group list { optional binary element (UTF8); } }
    optional int64 question_id;
}";

/// Two rows as the Hugging Face hub has them, the first with the image's bytes and two answers, the second with its path.
fn table(compression: Compression) -> Result<Vec<u8>> {
    let properties = WriterProperties::builder().set_compression(compression).build();
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    texts(&mut group, &["the bytes"], &[2, 1], None)?;
    texts(&mut group, &["images/1.png"], &[1, 2], None)?;
    texts(&mut group, &["What is it?", "What is it?"], &[1, 1], None)?;
    texts(&mut group, &["a", "b", "c"], &[3, 3, 3], Some(&[0, 1, 0]))?;
    if let Some(mut column) = group.next_column()? {
        column.typed::<Int64Type>().write_batch(&[50, 60], Some(&[1, 1]), None)?;
        column.close()?;
    }
    group.close()?;
    Ok(writer.into_inner()?)
}

fn texts(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    values: &[&str],
    definition: &[i16],
    repetition: Option<&[i16]>,
) -> Result<()> {
    let values: Vec<ByteArray> = values.iter().map(|text| ByteArray::from(*text)).collect();
    if let Some(mut column) = group.next_column()? {
        column.typed::<ByteArrayType>().write_batch(&values, Some(definition), repetition)?;
        column.close()?;
    }
    Ok(())
}
