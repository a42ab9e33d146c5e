//! Pixels equal to Pillow's, in every way of storing them; `tests/fixtures/README.md` says how the fixtures were made.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

use fwd_data::bench::ContentHash;
use fwd_data::{Alpha, DataError, ImageLimits, ImageProcessor, Orientation, RgbImage};
use std::fs;
use std::path::{Path, PathBuf};

fn formats() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats")
}

fn bytes(name: &str) -> Vec<u8> {
    fs::read(formats().join(name)).unwrap()
}

fn decode(name: &str, alpha: Alpha, orientation: Orientation) -> fwd_data::Result<RgbImage> {
    RgbImage::decode_with(&bytes(name), name, ImageLimits::default(), alpha, orientation)
}

fn refusal(bytes: &[u8]) -> String {
    match RgbImage::decode(bytes, "record 7", ImageLimits::default()) {
        Err(DataError::Image { origin, what }) if origin == "record 7" => what,
        other => panic!("expected an image error, got {other:?}"),
    }
}

/// Each line of `pillow.tsv`: name, size, and the hashes of Pillow's pixels with alpha dropped, over white, and upright.
#[test]
fn every_fixture_has_the_pixels_of_pillow() {
    let table = fs::read_to_string(formats().join("pillow.tsv")).unwrap();
    let hash = |image: &RgbImage| ContentHash::of(image.data()).to_string();
    let mut wrong = Vec::new();
    let lines: Vec<&str> = table.lines().collect();
    for line in &lines {
        let [name, want @ ..] = &line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let ours = [
            (Alpha::Drop, Orientation::Stored),
            (Alpha::Over([255; 3]), Orientation::Stored),
            (Alpha::Drop, Orientation::Upright),
        ]
        .map(|(alpha, orientation)| decode(name, alpha, orientation));
        match (want, ours) {
            (["refused"], [Err(error), ..]) => assert!(error.to_string().starts_with(name), "{error}"),
            ([size, dropped, white, upright], [Ok(a), Ok(b), Ok(c)]) => {
                let is_equal = *size == format!("{}x{}", a.width(), a.height())
                    && [&a, &b, &c].map(hash) == [*dropped, *white, *upright];
                if !is_equal {
                    wrong.push(*name);
                }
            }
            (want, ours) => panic!("{name}: Pillow has {want:?}, we have {ours:?}"),
        }
    }
    assert_eq!(wrong, Vec::<&str>::new());
    assert!(lines.len() > 60, "{}", lines.len());
}

#[test]
fn an_upright_image_stands_as_its_tag_says() {
    let stored = decode("exif_1.jpg", Alpha::Drop, Orientation::Stored).unwrap();
    assert_eq!((stored.width(), stored.height()), (7, 5));
    for n in 1..=8 {
        let name = format!("exif_{n}.jpg");
        assert_eq!(decode(&name, Alpha::Drop, Orientation::Stored).unwrap(), stored, "{name}");
        let upright = decode(&name, Alpha::Drop, Orientation::Upright).unwrap();
        let is_swapped = n > 4;
        assert_eq!(upright.width() == 5, is_swapped, "{name}");
        // Where the first pixel of the file, which is at the top left there, has gone.
        let (right, bottom) = (upright.width() - 1, upright.height() - 1);
        let (x, y) = [
            (0, 0),
            (right, 0),
            (right, bottom),
            (0, bottom),
            (0, 0),
            (right, 0),
            (right, bottom),
            (0, bottom),
        ][n - 1];
        let at = (y * upright.width() + x) * 3;
        assert_eq!(upright.data()[at..at + 3], stored.data()[..3], "{name}");
    }
}

#[test]
fn a_jpeg_is_truncated_when_the_decoder_needs_more_than_there_is() {
    let whole = bytes("420.jpg");
    // A segment with a thumbnail, which has an end marker of its own.
    let thumbnail = [&[0xff, 0xe1, 0, 8][..], &[1, 2, 0xff, 0xd9, 3, 4]].concat();
    let with_thumbnail = [&whole[..2], &thumbnail, &whole[2..]].concat();
    let limits = ImageLimits::default();
    let want = RgbImage::decode(&whole, "420.jpg", limits).unwrap();
    assert_eq!(RgbImage::decode(&with_thumbnail, "a.jpg", limits).unwrap(), want);
    assert_eq!(RgbImage::decode(&[&whole[..], &[7; 10_000]].concat(), "a.jpg", limits).unwrap(), want);
    for cut in 3..with_thumbnail.len() - 2 {
        assert_eq!(refusal(&with_thumbnail[..cut]), "the JPEG file is truncated", "{cut}");
    }
}

#[test]
fn what_the_jpeg_library_refuses_is_an_error_with_its_reason() {
    let mut lossless = bytes("420.jpg");
    let frame = lossless.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    lossless[frame + 1] = 0xc3;
    let message = refusal(&lossless);
    assert!(message.starts_with("cannot be decoded as JPEG: Unsupported JPEG process"), "{message}");
    let mut deep = bytes("420.jpg");
    deep[frame + 4] = 12;
    let message = refusal(&deep);
    assert!(
        message.starts_with("cannot be decoded as JPEG: Unsupported JPEG data precision 12"),
        "{message}"
    );
    let mut flat = bytes("420.jpg");
    flat[frame + 5..frame + 7].fill(0);
    assert!(refusal(&flat).starts_with("cannot be decoded as JPEG: "), "{}", refusal(&flat));
    // Scans without end, each of which would be decoded.
    let scans = [0xff, 0xda].repeat(1000);
    let many = [&bytes("420.jpg")[..], &scans].concat();
    assert_eq!(refusal(&many), "the image has 1001 scans, more than the allowed 500");
    // Whatever stands in the file, the process survives.
    let whole = bytes("progressive.jpg");
    for at in 2..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        let _ = RgbImage::decode(&damaged, "damaged", ImageLimits::default());
    }
}

#[test]
fn damaged_images_of_every_format_are_errors() {
    for name in ["rgb.bmp", "plain.gif", "alpha.png", "lossy.webp"] {
        let whole = bytes(name);
        RgbImage::decode(&whole, name, ImageLimits::default()).unwrap();
        for cut in [20, whole.len() / 2] {
            refusal(&whole[..cut]);
        }
    }
    let limits = ImageLimits { max_side: 60, ..ImageLimits::default() };
    for name in ["rgb.bmp", "plain.gif", "lossy.webp", "420.jpg", "cmyk.jpg"] {
        let message = RgbImage::decode(&bytes(name), name, limits).unwrap_err().to_string();
        assert!(message.starts_with(&format!("{name}: the image has 67x45 pixels, more than")), "{message}");
    }
    let limits = ImageLimits { max_bytes: 67 * 45 * 3, ..ImageLimits::default() };
    RgbImage::decode(&bytes("420.jpg"), "420.jpg", limits).unwrap();
    let message = RgbImage::decode(&bytes("cmyk.jpg"), "cmyk.jpg", limits).unwrap_err().to_string();
    assert!(message.starts_with("cmyk.jpg: the 67x45 pixels take 12060 bytes"), "{message}");
}

#[test]
fn bitmaps_of_odd_kinds_are_refused() {
    // The header has 40 bytes and the palette 256 colours.
    let with = |at: usize, other: &[u8]| {
        let mut bitmap = bytes("grey.bmp");
        bitmap[at..at + other.len()].copy_from_slice(other);
        refusal(&bitmap)
    };
    assert_eq!(
        with(28, &[16]),
        "a BMP file of 16 bits a pixel and compression 0 is not supported: save it as PNG"
    );
    assert!(with(30, &[1]).starts_with("a BMP file of 8 bits a pixel and compression 1 "));
    assert_eq!(with(10, &[54, 0]), "the pixels of the BMP file begin at byte 54, inside of its palette");
}

#[cfg(unix)]
#[test]
fn a_device_a_pipe_and_an_endless_file_are_refused_before_they_are_read() {
    let limits = ImageLimits::default();
    let refused = |path: &Path| RgbImage::open(path, limits).unwrap_err().with_cause();
    assert!(refused(Path::new("/dev/zero")).starts_with("/dev/zero: this is no ordinary file"));
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe.png");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(refused(&pipe).contains("pipe.png: this is no ordinary file"));
    // Ten gigabytes that take no room.
    let large = dir.path().join("large.jpg");
    fs::File::create(&large).unwrap().set_len(10 << 30).unwrap();
    assert!(
        refused(&large).contains("the file has 10737418240 bytes, more than the 268435456 that are read")
    );
}

fn processor(files: &[(&str, &str)]) -> fwd_data::Result<ImageProcessor> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    ImageProcessor::open(dir.path())
}

const PROCESSOR: &str = "preprocessor_config.json";
const SIZE: &str = r#""size": {"height": 56, "width": 56}"#;

#[test]
fn the_release_of_transformers_decides_what_becomes_of_transparency() {
    let plain = format!("{{{SIZE}}}");
    let alpha = |files: &[(&str, &str)]| processor(files).unwrap().alpha;
    let white = Alpha::Over([255; 3]);
    assert_eq!(alpha(&[(PROCESSOR, &plain)]), Alpha::Drop);
    for (version, want) in [
        ("4.57.1", Alpha::Drop),
        ("5.22.9", Alpha::Drop),
        ("5.23.0", white),
        ("5.23.0.dev0", white),
        ("5.100.0", white),
        ("6.0.0", white),
        ("unknown", Alpha::Drop),
    ] {
        let model = format!(r#"{{"transformers_version": "{version}"}}"#);
        assert_eq!(alpha(&[(PROCESSOR, &plain), ("config.json", &model)]), want, "{version}");
        let own = format!(r#"{{{SIZE}, "transformers_version": "{version}"}}"#);
        assert_eq!(
            alpha(&[(PROCESSOR, &own), ("config.json", r#"{"transformers_version": "4.0.0"}"#)]),
            want
        );
        let combined = format!(r#"{{"image_processor": {plain}, "transformers_version": "{version}"}}"#);
        assert_eq!(alpha(&[("processor_config.json", &combined)]), want, "{version}");
        let background = format!(r#"{{{SIZE}, "background": [0, 0, 9]}}"#);
        assert_eq!(alpha(&[(PROCESSOR, &background), ("config.json", &model)]), Alpha::Over([0, 0, 9]));
    }
}

#[test]
fn a_processor_that_would_make_other_pixels_is_refused_by_its_key() {
    let open = |keys: &str| processor(&[(PROCESSOR, &format!("{{{keys}}}"))]);
    for (keys, message) in [
        (
            r#""size": {"shortest_edge": 224}"#,
            "key `size` is {\"shortest_edge\":224}; `shortest_edge` keeps the aspect ratio",
        ),
        (r#""size": {"longest_edge": 224}"#, "`longest_edge` keeps the aspect ratio"),
        (r#""size": "large""#, "key `size` is \"large\"; it must be"),
        (r#""size": {"height": 224}"#, "it must be {\"height\": …, \"width\": …} or a number"),
        (
            r#""size": {"height": 224.5, "width": 224}"#,
            "it must be {\"height\": …, \"width\": …} or a number",
        ),
        ("", "key `size` is missing"),
        (
            r#""size": 224, "default_to_square": false"#,
            "key `size` is 224; `shortest_edge` keeps the aspect ratio",
        ),
        (&format!(r#"{SIZE}, "do_resize": false"#), "key `do_resize` is false"),
        (&format!(r#"{SIZE}, "do_resize": "yes""#), "key `do_resize` is \"yes\"; it must be true or false"),
        (&format!(r#"{SIZE}, "resample": 2"#), "key `resample` is 2; only a bicubic resize (3) is supported"),
        (&format!(r#"{SIZE}, "resample": "bilinear""#), "key `resample` is \"bilinear\"; only a bicubic"),
        (
            &format!(r#"{SIZE}, "do_center_crop": true, "crop_size": "all""#),
            "key `crop_size` is \"all\"; it must be",
        ),
        (&format!(r#"{SIZE}, "crop_size": 224"#), "key `crop_size` is 224; neither do_center_crop nor"),
        (&format!(r#"{SIZE}, "do_pad": true"#), "key `do_pad` is true; this step is not supported"),
        (
            &format!(r#"{SIZE}, "image_processor_type": "ViTImageProcessor""#),
            "key `image_processor_type` is \"ViTImageProcessor\"",
        ),
        (
            &format!(r#"{SIZE}, "image_mean": [0.5]"#),
            "key `image_mean` is [0.5]; it must be a list of three numbers",
        ),
        (&format!(r#"{SIZE}, "image_std": [0.5, 0.5, 0.0]"#), "must be positive"),
    ] {
        let error = open(keys).unwrap_err().to_string();
        assert!(error.contains("preprocessor_config.json: ") && error.contains(message), "{keys}: {error}");
    }
    let harmless = format!(
        r#"{SIZE}, "processor_class": "Blip2Processor", "image_processor_type": "BlipImageProcessor", "do_center_crop": false,
        "crop_size": 224, "do_pad": false, "do_convert_rgb": true, "resample": 3, "data_format": "channels_first"#
    );
    assert_eq!(open(&(harmless + "\"")).unwrap(), ImageProcessor::clip(56));
    assert_eq!(open(r#""size": 56"#).unwrap(), ImageProcessor::clip(56));
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n";
    let error = processor(&[(PROCESSOR, pointer)]).unwrap_err().to_string();
    assert!(error.contains("Git LFS pointer"), "{error}");
}
