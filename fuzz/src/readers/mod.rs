//! All readers, by name.

mod benchmark;
mod configuration;
mod images;
mod library;
mod model;
mod runs;
mod scores;
mod state;
mod tasks;

use crate::reader::Reader;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// Opens a reader that may work in a folder.
type Open = fn(&Path) -> Result<Reader>;

/// The readers, in the order in which they are tried.
pub(crate) const ALL: [(&str, Open); 23] = [
    ("weights", model::weights),
    ("gguf", model::gguf),
    ("model-config", model::config),
    ("tokenizer", model::tokenizer),
    ("chat-template", model::chat_template),
    ("processor", model::processor),
    ("state", state::state),
    ("library", library::library),
    ("pack", benchmark::pack),
    ("benchmark", benchmark::index),
    ("llava", tasks::llava),
    ("questions", tasks::questions),
    ("question-lines", tasks::question_lines),
    ("csv", tasks::csv),
    ("textvqa", tasks::textvqa),
    ("coco", tasks::coco),
    ("parquet", tasks::parquet),
    ("tasks", tasks::description),
    ("configuration", configuration::configuration),
    ("scores", scores::scores),
    ("images", images::images),
    ("run", runs::run),
    ("features", runs::features),
];

/// The name of a reader.
///
/// # Errors
/// With all names, if there is none of this one.
pub(crate) fn known(name: &str) -> Result<&'static str> {
    let all = || ALL.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let found = ALL.iter().find(|(known, _)| *known == name);
    found.map(|(name, _)| *name).with_context(|| format!("there is no reader `{name}`; there are {}", all()))
}

/// Opens a reader, with an empty folder of its own below `work`.
pub(crate) fn open(name: &str, work: &Path) -> Result<Reader> {
    let name = known(name)?;
    let folder = work.join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let open = ALL.iter().find(|(known, _)| *known == name).map(|(_, open)| open);
    open.context("a reader")?(&folder).with_context(|| format!("the reader `{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fwd_data::{ImageLimits, RgbImage};

    #[test]
    fn every_reader_accepts_its_intact_files() {
        let work = tempfile::tempdir().unwrap();
        for (name, _) in ALL {
            let mut reader = open(name, work.path()).unwrap();
            for input in reader.intact() {
                // Pictures of formats that are not read are there to be refused.
                let is_read =
                    name != "images" || RgbImage::decode(&input.bytes, "", ImageLimits::default()).is_ok();
                assert_eq!(
                    reader.read(&input).is_ok(),
                    is_read,
                    "{name}: {}: {:?}",
                    input.file,
                    reader.read(&input)
                );
            }
        }
    }

    #[test]
    fn one_seed_gives_the_same_inputs_and_another_one_gives_others() {
        let work = tempfile::tempdir().unwrap();
        let reader = open("llava", work.path()).unwrap();
        let draw = |seed| -> Vec<Vec<u8>> {
            let stream = |number| fwd_continual::stream(seed, "llava", [number, 0]);
            (0..50).map(|number| reader.damaged(&mut stream(number)).bytes).collect()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
