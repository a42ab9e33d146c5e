//! The image of a record, under whatever key and in whatever form others keep it.
//!
//! The key is `image`, or `image_path`, `image_file`, `image_filename`, `img`, `img_path`, `file_name`; a list `images`,
//! or numbered keys (`image_1`) of which one is filled. Capitals and underscores do not count. A value is a path, `{"bytes": …, "path": …}`,
//! or a list of one of these.
//!
//! A record without any of these keys may still be about an image. A key that is called after one, or a value that ends as the name of an
//! image file does, is a fault: the question would otherwise be asked about a grey picture, and nobody would know.

use super::fields::Fields;
use super::json::kind;
use super::literal;
use super::record::{ImageFault, ImageSource};
use crate::shown::shown;
use serde_json::{Map, Value};

/// Keys of one image, the preferred first. They are written as [`plain`] makes them.
const ONE: [&str; 8] =
    ["image", "imagepath", "imagefile", "imagefilename", "imagefilepath", "img", "imgpath", "filename"];
/// Keys of a list of images.
const SEVERAL: [&str; 3] = ["images", "imagepaths", "imgs"];
/// Keys of a record that are no image, whatever their value looks like.
const TEXTS: [&str; 13] = [
    "id",
    "questionid",
    "text",
    "question",
    "instruction",
    "answer",
    "answers",
    "conversations",
    "messages",
    "caption",
    "prompt",
    "label",
    "category",
];
/// What a key called after an image is about, if it is not the image itself.
const TRAITS: [&str; 15] = [
    "width",
    "height",
    "size",
    "shape",
    "caption",
    "description",
    "question",
    "text",
    "label",
    "answer",
    "type",
    "format",
    "class",
    "date",
    "license",
];

type Found<T> = std::result::Result<T, ImageFault>;

/// The image of a record; none if it has none, and nothing in it looks like one.
pub(super) fn of(fields: &Fields<'_>) -> Found<Option<ImageSource>> {
    match under_its_keys(fields)? {
        Some(image) => Ok(Some(image)),
        None => suspect(fields).map_or(Ok(None), Err),
    }
}

/// The image under one of the keys that images have; none if all of them are missing or empty.
pub(super) fn under_its_keys(fields: &Fields<'_>) -> Found<Option<ImageSource>> {
    let named = |wanted: &str| fields.map.iter().find(|(key, _)| plain(key) == wanted);
    let mut found: Vec<(&str, ImageSource)> = Vec::new();
    // Several names of the one image: the first that is filled counts.
    for (key, value) in ONE.iter().filter_map(|wanted| named(wanted)) {
        found.extend(images(fields, key, value)?.into_iter().map(|image| (key.as_str(), image)));
        if !found.is_empty() {
            break;
        }
    }
    for (key, value) in fields.map {
        let name = plain(key);
        if SEVERAL.contains(&name.as_str()) || is_numbered(&name) {
            found.extend(images(fields, key, value)?.into_iter().map(|image| (key.as_str(), image)));
        }
    }
    let Some((first, _)) = found.first() else { return Ok(None) };
    let first = *first;
    if let Some((other, _)) = found.iter().find(|(key, image)| *key != first && *image != found[0].1) {
        return Err(fault(first, format!("the key `{}` has another image; a record has one", shown(other))));
    }
    let n_images = found.iter().filter(|(key, _)| *key == first).count();
    if n_images > 1 {
        return Err(fault(first, format!("{n_images} images; a record has one")));
    }
    Ok(found.into_iter().next().map(|(_, image)| image))
}

/// The images of a value.
pub(super) fn images(fields: &Fields<'_>, key: &str, value: &Value) -> Found<Vec<ImageSource>> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => of_text(fields, key, text.trim()),
        Value::Array(items) if items.iter().any(is_numeric) => Err(fault(
            key,
            "a decoded array of numbers; write the picture as a PNG or JPEG file and give its path",
        )),
        Value::Array(items) => {
            let mut all = Vec::new();
            for item in items {
                all.extend(images(fields, key, item)?);
            }
            Ok(all)
        }
        Value::Object(parts) => of_object(fields, key, parts),
        other => Err(fault(key, format!("expected a string, found {}", kind(other)))),
    }
}

fn of_object(fields: &Fields<'_>, key: &str, parts: &Map<String, Value>) -> Found<Vec<ImageSource>> {
    if let Some(bytes) = fields.blob(parts) {
        return Ok(vec![ImageSource::Bytes(bytes.to_vec())]);
    }
    let part = |name: &str| parts.get(name).filter(|value| !value.is_null());
    match (part("bytes"), part("path"), part("url")) {
        (Some(bytes @ Value::Object(_)), ..) => images(fields, key, bytes),
        (Some(_), ..) => Err(fault(key, format!("the image is written into the record as text; {AS_FILE}"))),
        (None, Some(path), _) => images(fields, key, path),
        (None, None, Some(url)) => images(fields, key, url),
        _ if parts.values().all(Value::is_null) => Ok(Vec::new()),
        _ => {
            let keys: Vec<String> = parts.keys().map(|key| format!("`{}`", shown(key))).collect();
            Err(fault(key, format!("expected a path, found an object with {}", keys.join(", "))))
        }
    }
}

const AS_FILE: &str = "save it as a file and give the path of that file";

fn of_text(fields: &Fields<'_>, key: &str, text: &str) -> Found<Vec<ImageSource>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    if let Some(items) = literal::list(text) {
        return images(fields, key, &Value::Array(items));
    }
    let is_python =
        ["{", "[", "<PIL", "array(", "tensor(", "b'", "b\""].iter().any(|start| text.starts_with(start));
    let what = if text.starts_with("data:") {
        Some("a data URL")
    } else if text
        .split_once("://")
        .is_some_and(|(scheme, _)| scheme.bytes().all(|b| b.is_ascii_alphanumeric()))
    {
        Some("a web address, and nothing is downloaded")
    } else if is_base64(text) {
        Some("an image in base64")
    } else if is_python {
        Some("a Python object written as text")
    } else {
        None
    };
    match what {
        Some(what) => Err(fault(key, format!("this looks like {what}: {}; {AS_FILE}", shown(text)))),
        None => Ok(vec![ImageSource::Path(text.to_owned())]),
    }
}

/// Whether a text is base64 of an image, by how PNG, JPEG, WebP and GIF begin, or by its length: no path is so long without a point.
fn is_base64(text: &str) -> bool {
    const STARTS: [&str; 4] = ["iVBORw0KGgo", "/9j/", "UklGR", "R0lGOD"];
    let is_digit = |b: u8| b.is_ascii_alphanumeric() || b"+/=\r\n".contains(&b);
    (text.len() > 255 || text.len() > 24 && STARTS.iter().any(|start| text.starts_with(start)))
        && text.bytes().all(is_digit)
}

const SUSPECT: &str = "this looks like the image of the record, which is looked for under `image`; \
                       rename the key to `image` and give the path of the file";
/// What a key called after an image has in its name.
const WORDS: [&str; 6] = ["image", "img", "picture", "photo", "pixel", "screenshot"];

/// A key without an image that is called after one, or whose value looks like one.
fn suspect(fields: &Fields<'_>) -> Option<ImageFault> {
    fields.map.iter().find_map(|(key, value)| {
        let name = plain(key);
        let is_trait = TRAITS.iter().any(|what| name.ends_with(what)) || TEXTS.contains(&name.as_str());
        // A source is an image only if it is a file.
        let names_one = !name.ends_with("source") && WORDS.iter().any(|word| name.contains(word));
        let looks_like_one = match value {
            Value::Null | Value::Bool(_) => false,
            Value::Number(_) => name == "imageid" || name == "imgid",
            Value::String(text) if text.trim().is_empty() => false,
            Value::String(text) => names_one || is_file_name(text) || text.starts_with("data:image/"),
            Value::Array(items) => {
                let is_file = |item: &Value| item.as_str().is_some_and(is_file_name);
                !items.is_empty() && names_one || items.iter().any(is_file)
            }
            Value::Object(parts) => names_one || fields.blob(parts).is_some() || parts.contains_key("bytes"),
        };
        let is_suspect = looks_like_one && !is_trait;
        is_suspect.then(|| fault(key, SUSPECT))
    })
}

/// Whether a text ends as the name of an image file does.
fn is_file_name(text: &str) -> bool {
    const ENDINGS: [&str; 8] = ["png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff"];
    let ending = text.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    text.len() < 400
        && !text.contains('\n')
        && ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
}

/// Whether a value is a number, or a list that begins with one at any depth.
fn is_numeric(value: &Value) -> bool {
    match value {
        Value::Number(_) => true,
        Value::Array(items) => items.first().is_some_and(is_numeric),
        _ => false,
    }
}

/// A key in lower-case letters and digits.
fn plain(key: &str) -> String {
    key.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Whether a key is one of several images, such as `image_1`.
fn is_numbered(name: &str) -> bool {
    let number = name.strip_prefix("image").or_else(|| name.strip_prefix("img")).unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

fn fault(key: &str, what: impl Into<String>) -> ImageFault {
    ImageFault { key: key.into(), what: what.into() }
}
