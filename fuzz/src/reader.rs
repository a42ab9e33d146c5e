//! What a reader is here: intact files, a way to make checksums right again, and the reading itself.

use crate::{bytes, tokens};
use anyhow::Result;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::path::Path;

/// An intact file.
#[derive(Debug, Clone)]
pub(crate) struct Seed {
    /// Its name, with the folder that the reader finds it in.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

impl Seed {
    pub(crate) fn new(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), bytes: bytes.into() }
    }

    /// A file of the repository, which the reader finds under another name.
    pub(crate) fn copy(name: &str, from: &str) -> Result<Self> {
        Ok(Self::new(name, std::fs::read(root().join(from))?))
    }
}

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// A damaged file.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    /// The name of the file that was damaged.
    pub(crate) file: String,
    pub(crate) bytes: Vec<u8>,
    /// Whether checksums are made right again, those in other files included.
    pub(crate) is_repaired: bool,
}

type Repair = fn(&mut Vec<u8>);
type Read = Box<dyn FnMut(&Input) -> Result<()>>;

pub(crate) struct Reader {
    seeds: Vec<Seed>,
    repair: Repair,
    read: Read,
}

impl Reader {
    /// A reader whose files have no checksums.
    pub(crate) fn new(seeds: Vec<Seed>, read: impl FnMut(&Input) -> Result<()> + 'static) -> Self {
        Self { seeds, repair: |_| {}, read: Box::new(read) }
    }

    /// The same with checksums that `repair` makes right again.
    pub(crate) fn repaired_by(self, repair: Repair) -> Self {
        Self { repair, ..self }
    }

    /// Its files as they are.
    #[cfg(test)]
    pub(crate) fn intact(&self) -> Vec<Input> {
        let of =
            |seed: &Seed| Input { file: seed.name.clone(), bytes: seed.bytes.clone(), is_repaired: false };
        self.seeds.iter().map(of).collect()
    }

    /// A damaged file, drawn from a stream.
    pub(crate) fn damaged(&self, rng: &mut ChaCha8Rng) -> Input {
        /// No input grows beyond this.
        const MAX_BYTES: usize = 4 << 20;
        let seed = &self.seeds[rng.random_range(0..self.seeds.len())];
        let other = &self.seeds[rng.random_range(0..self.seeds.len())];
        let mut bytes = seed.bytes.clone();
        let is_text = std::str::from_utf8(&bytes).is_ok();
        // One change is the most frequent: what follows is then read as intact.
        let n = 1 + (0..7).take_while(|_| rng.random_bool(0.5)).count();
        for _ in 0..n {
            bytes = match is_text && rng.random_bool(0.7) {
                true => tokens::change(rng, &bytes),
                false => bytes::change(rng, bytes, &other.bytes),
            };
            bytes.truncate(MAX_BYTES);
        }
        let is_repaired = rng.random_bool(0.5);
        if is_repaired {
            (self.repair)(&mut bytes);
        }
        Input { file: seed.name.clone(), bytes, is_repaired }
    }

    /// Reads a file. Whether it is refused does not matter here, only how.
    pub(crate) fn read(&mut self, input: &Input) -> Result<()> {
        (self.read)(input)
    }
}
