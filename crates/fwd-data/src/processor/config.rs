//! `preprocessor_config.json` as the image processors of BLIP, CLIP (LLaVA) and DINOv2 write it.
//!
//! The class of the processor decides what a key that is missing means: CLIP's and DINOv2's resize the shortest edge and crop, BLIP's resize
//! to fixed sides.
//!
//! Keys that change no pixel are ignored. A key that asks for another step than those that are taken here is refused.

use super::{ImageProcessor, Resize};
use crate::error::{DataError, Result};
use crate::image_file::Alpha;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// The longest configuration file that is read.
const MAX_FILE: u64 = 1 << 20;
/// The longest side that an image is resized to.
const MAX_SIDE: usize = 1 << 14;
/// The classes whose steps are taken here, which may end in `Fast` or `Pil`, and whether they crop by themselves.
const CLASSES: [(&str, bool); 5] = [
    ("BlipImageProcessor", false),
    ("BlipFeatureExtractor", false),
    ("CLIPImageProcessor", true),
    ("CLIPFeatureExtractor", true),
    ("BitImageProcessor", true),
];
/// The release of transformers whose processors blend transparency over white, major and minor.
const BLENDS_OVER_WHITE: (u32, u32) = (5, 23);

/// CLIP's mean of each channel, which BLIP's processor has unless its file says otherwise.
pub(super) const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// CLIP's standard deviation of each channel.
pub(super) const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// Reads the processor of a Hugging Face directory.
pub(super) fn read(dir: &Path) -> Result<ImageProcessor> {
    let (own, combined) = (dir.join("preprocessor_config.json"), dir.join("processor_config.json"));
    let is_combined = !own.exists() && combined.exists();
    let path = if is_combined { combined } else { own };
    let whole = Config::read(path)?;
    let version = whole.get::<String>("transformers_version", "a text")?;
    let config = if is_combined { whole.part("image_processor")? } else { whole };
    config.check_steps()?;
    let class_crops = config.class_crops()?;
    let resize = config.size(class_crops)?;
    let (height, width) = match (config.crop(class_crops)?, resize) {
        (Some(sides), _) => sides,
        (None, Resize::Sides { height, width }) => (height, width),
        (None, Resize::ShortestEdge(_)) => {
            let what = "`shortest_edge` keeps the aspect ratio; it is supported with a crop (do_center_crop, crop_size)";
            return Err(config.refuse("size", what));
        }
    };
    let rescale: f64 = match config.flag("do_rescale")? {
        Some(false) => 1.0,
        _ => config.get("rescale_factor", "a number")?.unwrap_or(1.0 / 255.0),
    };
    let three = "a list of three numbers, for red, green and blue";
    let (mean, std) = match config.flag("do_normalize")? {
        Some(false) => ([0.0; 3], [1.0; 3]),
        _ => (
            config.get("image_mean", three)?.unwrap_or(CLIP_MEAN),
            config.get("image_std", three)?.unwrap_or(CLIP_STD),
        ),
    };
    let is_sane = |s: f32| s > 0.0 && s.is_finite();
    if !std.iter().all(|&s| is_sane(s)) || !mean.iter().all(|m| m.is_finite()) || !rescale.is_finite() {
        let what = format!("image_std {std:?} must be positive, image_mean and rescale_factor finite");
        return Err(config.fail(what));
    }
    let background = config.get("background", "a list of three whole numbers from 0 to 255")?;
    let alpha = match background {
        Some(background) => Alpha::Over(background),
        None if blends_over_white(dir, version)? => Alpha::Over([255; 3]),
        None => Alpha::Drop,
    };
    Ok(ImageProcessor { resize, height, width, rescale, mean, std, alpha })
}

/// Whether the release of transformers that wrote a directory blends transparency over white.
fn blends_over_white(dir: &Path, version: Option<String>) -> Result<bool> {
    let model = dir.join("config.json");
    let version = match version {
        Some(version) => Some(version),
        None if model.exists() => Config::read(model)?.get("transformers_version", "a text")?,
        None => None,
    };
    let Some(version) = version else { return Ok(false) };
    let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
    Ok((numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= BLENDS_OVER_WHITE)
}

/// A JSON object, and the file that it is in.
struct Config {
    path: PathBuf,
    keys: Map<String, Value>,
}

impl Config {
    fn read(path: PathBuf) -> Result<Self> {
        let bytes = fwd_files::read(&path, MAX_FILE);
        let bytes = bytes.map_err(|source| DataError::Io { path: path.clone(), source })?;
        match serde_json::from_slice(&bytes) {
            Ok(keys) => Ok(Self { path, keys }),
            Err(_) if bytes.starts_with(b"version https://git-lfs") => {
                let what = "this is a Git LFS pointer, not the file itself; `git lfs pull` fetches it".into();
                Err(DataError::Config { path, what })
            }
            Err(error) => Err(DataError::Config { path, what: error.to_string() }),
        }
    }

    /// The object below a key.
    fn part(mut self, key: &str) -> Result<Self> {
        match self.keys.remove(key) {
            Some(Value::Object(keys)) => Ok(Self { path: self.path, keys }),
            _ => {
                Err(self
                    .fail(format!("key `{key}` is missing or no object; it describes the image processor")))
            }
        }
    }

    fn fail(&self, what: String) -> DataError {
        DataError::Config { path: self.path.clone(), what }
    }

    /// An error that shows the value of a key.
    fn refuse(&self, key: &str, what: &str) -> DataError {
        const LONGEST: usize = 80;
        let mut value = self.keys.get(key).map_or("missing".into(), Value::to_string);
        if value.chars().count() > LONGEST {
            value = value.chars().take(LONGEST).chain(['…']).collect();
        }
        self.fail(format!("key `{key}` is {value}; {what}"))
    }

    /// The value of a key; none if it is missing or null.
    fn get<T: DeserializeOwned>(&self, key: &str, kind: &str) -> Result<Option<T>> {
        match self.keys.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match T::deserialize(value) {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(self.refuse(key, &format!("it must be {kind}"))),
            },
        }
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.get(key, "true or false")
    }

    /// Refuses what would change pixels otherwise than it is done here.
    fn check_steps(&self) -> Result<()> {
        if self.flag("do_resize")? == Some(false) {
            return Err(self.refuse("do_resize", "images are always resized: set it to true"));
        }
        let is_bicubic = match self.keys.get("resample") {
            None | Some(Value::Null) => true,
            Some(Value::String(name)) => name.eq_ignore_ascii_case("bicubic"),
            Some(number) => number.as_u64() == Some(3),
        };
        if !is_bicubic {
            return Err(self.refuse("resample", "only a bicubic resize (3) is supported"));
        }
        const KNOWN: [&str; 5] =
            ["do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"];
        let is_asked = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
        let other = self
            .keys
            .iter()
            .find(|(key, value)| key.starts_with("do_") && !KNOWN.contains(&key.as_str()) && is_asked(value));
        match other {
            Some((key, _)) => Err(self.refuse(key, "this step is not supported: only false is")),
            None => Ok(()),
        }
    }

    /// Whether the class that the file names crops where no key says so; none if it names no class.
    fn class_crops(&self) -> Result<Option<bool>> {
        for key in ["image_processor_type", "feature_extractor_type"] {
            let Some(class) = self.get::<String>(key, "the name of a class")? else { continue };
            let name = ["Fast", "Pil"].iter().find_map(|end| class.strip_suffix(end)).unwrap_or(&class);
            let Some((_, crops)) = CLASSES.iter().find(|(known, _)| *known == name) else {
                let classes = CLASSES.map(|(class, _)| class).join(", ");
                return Err(
                    self.refuse(key, &format!("the image processors that are supported are {classes}"))
                );
            };
            return Ok(Some(*crops));
        }
        Ok(None)
    }

    /// Height and width of the centre that is cut out, if one is.
    fn crop(&self, class_crops: Option<bool>) -> Result<Option<(usize, usize)>> {
        const DEFAULT: usize = 224;
        let has_size = self.keys.get("crop_size").is_some_and(|size| !size.is_null());
        let crops = match (self.flag("do_center_crop")?, class_crops) {
            (Some(crops), _) | (None, Some(crops)) => crops,
            (None, None) if has_size => {
                let what = "neither do_center_crop nor image_processor_type says whether images are cropped: set do_center_crop";
                return Err(self.refuse("crop_size", what));
            }
            (None, None) => false,
        };
        match (crops, has_size) {
            (false, _) => Ok(None),
            (true, false) => Ok(Some((DEFAULT, DEFAULT))),
            (true, true) => {
                let sides = self.sides("crop_size");
                let sides = sides.ok_or_else(|| self.refuse("crop_size", SIDES))?;
                self.check_sides("crop_size", sides).map(Some)
            }
        }
    }

    /// What the images are resized to.
    fn size(&self, class_crops: Option<bool>) -> Result<Resize> {
        const DEFAULT: usize = 224;
        // Without a class, cropping is CLIP's.
        let is_clip = class_crops.unwrap_or(self.flag("do_center_crop")? == Some(true));
        let edge = |edge: usize| self.check_sides("size", (edge, edge)).map(|_| Resize::ShortestEdge(edge));
        match self.keys.get("size") {
            None | Some(Value::Null) if is_clip => edge(DEFAULT),
            Some(Value::Object(size)) if size.contains_key("longest_edge") => Err(self.refuse(
                "size",
                &format!("`longest_edge` keeps the aspect ratio, which is not supported: {SIDES}"),
            )),
            Some(Value::Object(size)) if size.contains_key("shortest_edge") => {
                let value = size.get("shortest_edge").and_then(side);
                edge(value.ok_or_else(|| self.refuse("size", "`shortest_edge` must be a whole number"))?)
            }
            Some(number @ Value::Number(_)) if !self.flag("default_to_square")?.unwrap_or(!is_clip) => {
                edge(side(number).ok_or_else(|| self.refuse("size", SIDES))?)
            }
            _ => {
                let sides = self.sides("size").ok_or_else(|| self.refuse("size", SIDES))?;
                let (height, width) = self.check_sides("size", sides)?;
                Ok(Resize::Sides { height, width })
            }
        }
    }

    /// Height and width under a key that is an object with both, or a number.
    fn sides(&self, key: &str) -> Option<(usize, usize)> {
        match self.keys.get(key)? {
            Value::Object(size) => size.get("height").and_then(side).zip(size.get("width").and_then(side)),
            number => side(number).map(|side| (side, side)),
        }
    }

    fn check_sides(&self, key: &str, (height, width): (usize, usize)) -> Result<(usize, usize)> {
        if !(1..=MAX_SIDE).contains(&height) || !(1..=MAX_SIDE).contains(&width) {
            return Err(self.fail(format!("{key} {height}x{width} must lie in 1..={MAX_SIDE}")));
        }
        Ok((height, width))
    }
}

const SIDES: &str = "it must be {\"height\": …, \"width\": …} or a number";

fn side(value: &Value) -> Option<usize> {
    usize::try_from(value.as_u64()?).ok()
}
