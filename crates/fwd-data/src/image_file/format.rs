//! Which format an image file has, by its first bytes, and what the file is if it has none of those that are read.

/// The formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Png,
    Jpeg,
    WebP,
    Gif,
    Bmp,
}

/// What to do with an image in another format.
const READ: &str = "PNG, JPEG, WebP, GIF and BMP are read";

impl Format {
    /// The format of a file, or what else the file is.
    pub(super) fn of(bytes: &[u8]) -> Result<Self, String> {
        match bytes {
            [0x89, b'P', b'N', b'G', ..] => Ok(Self::Png),
            [0xff, 0xd8, 0xff, ..] => Ok(Self::Jpeg),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Ok(Self::WebP),
            [b'G', b'I', b'F', b'8', ..] => Ok(Self::Gif),
            // The size of the header, which is the version; two letters alone begin many a text.
            [b'B', b'M', _, _, _, _, _, _, _, _, _, _, _, _, 12..=124, 0, 0, 0, ..] => Ok(Self::Bmp),
            _ => Err(match other(bytes) {
                Some(what) => format!("this is {what}; {READ}"),
                None => {
                    let start: Vec<String> = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
                    format!("this is no known image, it begins with the bytes {}; {READ}", start.join(" "))
                }
            }),
        }
    }
}

/// A file that people have in the place of an image, with what to do where that helps.
fn other(bytes: &[u8]) -> Option<&'static str> {
    if bytes.is_empty() {
        return Some("an empty file");
    }
    if bytes.starts_with(b"version https://git-lfs") {
        return Some("a Git LFS pointer, not the file itself (`git lfs pull` fetches it)");
    }
    if bytes.iter().all(|&byte| byte == 0) {
        return Some("a file of zeros, as an interrupted download leaves it");
    }
    if let Some([b'f', b't', b'y', b'p', brand @ ..]) = bytes.get(4..) {
        return Some(match brand {
            [b'a', b'v', b'i', b'f' | b's', ..] => "an AVIF image",
            [b'h', b'e', b'i' | b'v', ..] | [b'm', b'i' | b's', b'f', b'1', ..] => "a HEIC image",
            _ => "a video or another file in an MP4 container",
        });
    }
    let magic: [(&[u8], &str); 12] = [
        (b"II*\0", "a TIFF image"),
        (b"MM\0*", "a TIFF image"),
        (b"II+\0", "a TIFF image"),
        (b"MM\0+", "a TIFF image"),
        (b"%PDF", "a PDF document"),
        (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
        (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
        (b"\xff\x0a", "a JPEG XL image"),
        (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
        (b"PK\x03\x04", "a zip archive"),
        (b"\x1f\x8b", "a file packed by gzip"),
        (b"8BPS", "a Photoshop document"),
    ];
    if let Some((_, what)) = magic.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return Some(what);
    }
    let start = &bytes[..bytes.len().min(1024)];
    let start =
        String::from_utf8_lossy(start).trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']).to_lowercase();
    if start.starts_with("<!doctype html") || start.starts_with("<html") {
        return Some("an HTML page, as a failed download leaves it");
    }
    if start.starts_with('<') {
        return Some(if start.contains("<svg") { "an SVG drawing" } else { "an XML or HTML document" });
    }
    if start.starts_with('{') {
        return Some("a JSON document");
    }
    start.starts_with("data:image/").then_some("a data URL in base64, not the image itself")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_image_is_called_what_it_is() {
        for (bytes, what) in [
            (&b""[..], "an empty file"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "a Git LFS pointer"),
            (b"\n<!DOCTYPE html><html>", "an HTML page"),
            (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'>", "an SVG drawing"),
            (b"%PDF-1.7", "a PDF document"),
            (b"\0\0\0\x1cftypavif", "an AVIF image"),
            (b"\0\0\0\x1cftypheic", "a HEIC image"),
            (b"\0\0\0\x1cftypmif1", "a HEIC image"),
            (b"\0\0\0\x1cftypisom", "a video"),
            (b"II*\0\x08\0\0\0", "a TIFF image"),
            (b"MM\0*\0\0\0\x08", "a TIFF image"),
            (b"\0\0\0\x0cjP  \r\n", "a JPEG 2000 image"),
            (&[0; 64], "a file of zeros"),
            (b"{\"error\": \"not found\"}", "a JSON document"),
            (b"BM is how this text begins", "no known image, it begins with the bytes 42 4d 20 69"),
        ] {
            let message = Format::of(bytes).unwrap_err();
            assert!(message.starts_with(&format!("this is {what}")), "{message}");
            assert!(message.ends_with("; PNG, JPEG, WebP, GIF and BMP are read"), "{message}");
        }
    }
}
