//! Parity with Pillow, transformers' image processor and tokenizers; how the fixtures were made is told in
//! `tests/fixtures/README.md`.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

use fwd_data::{
    Alpha, DataError, ImageLimits, ImageProcessor, Orientation, Processor, RgbImage, TextTokenizer,
    resize_bicubic,
};
use safetensors::SafeTensors;
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};

fn fixtures(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(part)
}

fn open(name: &str) -> RgbImage {
    RgbImage::open(&fixtures("images").join(name), ImageLimits::default()).unwrap()
}

#[test]
fn decoding_resizing_and_normalising_png_is_exact() {
    let buffer = fs::read(fixtures("images/images.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&buffer).unwrap();
    let mut n_images = 0;
    for (name, decoded) in tensors.tensors() {
        let Some(file) = name.strip_suffix(".decoded_u8") else { continue };
        n_images += 1;
        let image = open(file);
        assert_eq!([image.height(), image.width()], decoded.shape()[..2], "{file}");
        assert!(image.data() == decoded.data(), "{file}: decoded pixels differ");
        let resized = tensors.tensor(&format!("{file}.resized_u8")).unwrap();
        let (height, width) = (resized.shape()[0], resized.shape()[1]);
        let ours = resize_bicubic(&image, width, height);
        let differing = ours.data().iter().zip(resized.data()).filter(|(a, b)| a != b).count();
        assert_eq!(differing, 0, "{file}: {differing} bytes of the resized image differ");
        if let Ok(want) = tensors.tensor(&format!("{file}.pixel_values")) {
            let want: Vec<f32> =
                want.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
            let ours = ImageProcessor::open(&fixtures("images")).unwrap().process(&image);
            assert!(ours == want, "{file}: pixel values differ");
        }
    }
    assert_eq!(n_images, 3);
}

/// The palette of modes: grey is repeated, alpha dropped and not blended, as Pillow decodes them.
#[test]
fn grey_and_transparent_images_decode_as_in_pillow() {
    let buffer = fs::read(fixtures("images/modes.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&buffer).unwrap();
    for name in ["camera_gray_150.png", "logo_rgba_120.png"] {
        let (image, want) = (open(name), tensors.tensor(name).unwrap());
        assert_eq!([image.height(), image.width(), 3], want.shape()[..], "{name}");
        assert!(image.data() == want.data(), "{name}: decoded pixels differ");
    }
}

fn encoded(format: image::ImageFormat) -> Vec<u8> {
    let image = open("coffee_200.png");
    let buffer =
        image::RgbImage::from_raw(image.width() as u32, image.height() as u32, image.data().to_vec())
            .unwrap();
    let mut out = std::io::Cursor::new(Vec::new());
    image::DynamicImage::ImageRgb8(buffer).write_to(&mut out, format).unwrap();
    out.into_inner()
}

#[test]
fn lossless_webp_is_exact() {
    let webp = RgbImage::decode(&encoded(image::ImageFormat::WebP), "webp", ImageLimits::default()).unwrap();
    assert_eq!(webp, open("coffee_200.png"));
}

#[test]
fn damaged_truncated_and_huge_images_are_errors_that_name_the_record() {
    let fail = |bytes: &[u8], limits| match RgbImage::decode(bytes, "record 7", limits) {
        Err(DataError::Image { origin, what }) => {
            assert_eq!(origin, "record 7");
            what
        }
        other => panic!("expected an image error, got {other:?}"),
    };
    let limits = ImageLimits::default();
    for format in [image::ImageFormat::Png, image::ImageFormat::Bmp, image::ImageFormat::WebP] {
        let bytes = encoded(format);
        for cut in [bytes.len() / 2, bytes.len() - 20] {
            fail(&bytes[..cut], limits);
        }
    }
    let what = "this is no known image, it begins with the bytes 6e 6f 74 20 61 6e 20 69; PNG, JPEG, WebP, GIF and BMP are read";
    assert_eq!(fail(b"not an image", limits), what);
    assert_eq!(fail(b"", limits), "this is an empty file; PNG, JPEG, WebP, GIF and BMP are read");
    let png = encoded(image::ImageFormat::Png);
    fail(&png, ImageLimits { max_side: 100, ..limits });
    fail(&png, ImageLimits { max_bytes: 1000, ..limits });
    let missing = RgbImage::open(Path::new("no/such.png"), limits).unwrap_err();
    assert!(missing.with_cause().starts_with("no/such.png: "), "{missing}");
}

/// Headers that promise 60000 × 60000 pixels (WebP: 16383 × 16383, the most it can) in a file of a few kilobytes.
#[test]
fn a_decompression_bomb_is_refused_before_it_unfolds() {
    let limits = ImageLimits::default();
    let fail = |bytes: &[u8], limits| RgbImage::decode(bytes, "bomb", limits).unwrap_err().to_string();
    let mut png = encoded(image::ImageFormat::Png);
    for at in [16, 20] {
        png[at..at + 4].copy_from_slice(&60_000u32.to_be_bytes());
    }
    let sizes = "more than the allowed 16384 a side or 67108864 in all: scale it down";
    // The checksum of the header is wrong as well; with a right one the sizes are the reason.
    assert!(fail(&png, limits).starts_with("bomb: cannot be decoded as Png"));
    let checksum = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&checksum.to_be_bytes());
    assert_eq!(fail(&png, limits), format!("bomb: the image has 60000x60000 pixels, {sizes}"));

    let mut jpeg = fs::read(fixtures("formats/420.jpg")).unwrap();
    let frame = jpeg.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xea, 0x60, 0xea, 0x60]);
    assert_eq!(fail(&jpeg, limits), format!("bomb: the image has 60000x60000 pixels, {sizes}"));

    let mut webp = encoded(image::ImageFormat::WebP);
    let lossless = webp.windows(4).position(|w| w == b"VP8L").unwrap();
    // Width and height less one, 14 bits each.
    webp[lossless + 9..lossless + 13].copy_from_slice(&(0x3ffe_u32 | 0x3ffe << 14).to_le_bytes());
    assert_eq!(fail(&webp, limits), format!("bomb: the image has 16383x16383 pixels, {sizes}"));

    let png = encoded(image::ImageFormat::Png);
    let few = fail(&png, ImageLimits { max_pixels: 26_599, ..limits });
    assert_eq!(
        few,
        "bomb: the image has 200x133 pixels, more than the allowed 16384 a side or 26599 in all: scale it down"
    );
    let few = fail(&png, ImageLimits { max_bytes: 79_000, ..limits });
    assert!(
        few.starts_with("bomb: the 200x133 pixels take 79800 bytes, more than the allowed 79000"),
        "{few}"
    );
    RgbImage::decode(&png, "exactly", ImageLimits { max_pixels: 26_600, max_side: 200, ..limits }).unwrap();
}

/// The checksum of a PNG chunk (polynomial of IEEE 802.3, bits reflected).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn transparency_is_blended_over_the_background_where_it_is_wanted() {
    let limits = ImageLimits::default();
    let pixels = [[10, 20, 30, 0], [10, 20, 30, 255], [0, 100, 200, 51]].concat();
    let mut png = std::io::Cursor::new(Vec::new());
    let rgba = image::RgbaImage::from_raw(3, 1, pixels).unwrap();
    image::DynamicImage::ImageRgba8(rgba).write_to(&mut png, image::ImageFormat::Png).unwrap();
    let decode =
        |alpha| RgbImage::decode_with(png.get_ref(), "a.png", limits, alpha, Orientation::Stored).unwrap();
    assert_eq!(decode(Alpha::Over([255; 3])).data(), [255, 255, 255, 10, 20, 30, 204, 224, 244]);
    assert_eq!(decode(Alpha::Over([0, 0, 50])).data(), [0, 0, 50, 10, 20, 30, 0, 20, 80]);
    assert_eq!(decode(Alpha::Drop).data(), [10, 20, 30, 10, 20, 30, 0, 100, 200]);

    let opaque = encoded(image::ImageFormat::Png);
    let over = RgbImage::decode_with(&opaque, "opaque", limits, Alpha::Over([255; 3]), Orientation::Stored);
    assert_eq!(over.unwrap(), open("coffee_200.png"));
}

#[test]
fn efficientnet_lite_reads_bytes_between_minus_one_and_one() {
    let processor = ImageProcessor::efficientnet_lite(2);
    let image = RgbImage::new(2, 2, vec![0, 127, 255, 0, 127, 255, 0, 127, 255, 0, 127, 255]).unwrap();
    let want = [[-127.0f32 / 128.0; 4], [0.0; 4], [1.0; 4]].concat();
    assert_eq!(processor.process(&image), want);
    let coffee = encoded(image::ImageFormat::WebP);
    let processor = ImageProcessor::efficientnet_lite(128);
    let pixels =
        processor.process_bytes(&coffee, "coffee.webp", ImageLimits::default(), Orientation::Stored).unwrap();
    let resized = resize_bicubic(&open("coffee_200.png"), 128, 128);
    assert_eq!(pixels.len(), 3 * 128 * 128);
    assert_eq!(pixels[128 * 128 + 5], (f32::from(resized.data()[5 * 3 + 1]) - 127.0) / 128.0);
    let text = processor.process_bytes(b"text", "notes.txt", ImageLimits::default(), Orientation::Stored);
    assert!(text.unwrap_err().to_string().starts_with("notes.txt: this is no known image"));
}

#[derive(Deserialize)]
struct Pairs {
    pairs: Vec<Pair>,
}

#[derive(Deserialize)]
struct Pair {
    text: String,
    ids: Vec<u32>,
    ids_no_special: Vec<u32>,
    decoded: String,
    decoded_keep: String,
}

#[test]
fn tokenizers_agree_on_every_pair() {
    for name in ["t5_unigram", "t5_spm", "bert_wordpiece"] {
        let dir = fixtures("tokenizers").join(name);
        let tokenizer = TextTokenizer::open(&dir.join("tokenizer.json")).unwrap();
        let Pairs { pairs } = serde_json::from_slice(&fs::read(dir.join("pairs.json")).unwrap()).unwrap();
        assert_eq!(pairs.len(), 50, "{name}");
        for pair in pairs {
            assert_eq!(tokenizer.encode(&pair.text).unwrap(), pair.ids, "{name}: {:?}", pair.text);
            assert_eq!(
                tokenizer.encode_plain(&pair.text).unwrap(),
                pair.ids_no_special,
                "{name}: {:?}",
                pair.text
            );
            assert_eq!(tokenizer.decode(&pair.ids).unwrap(), pair.decoded, "{name}: {:?}", pair.text);
            assert_eq!(
                tokenizer.decode_with_special(&pair.ids).unwrap(),
                pair.decoded_keep,
                "{name}: {:?}",
                pair.text
            );
        }
    }
}

#[test]
fn batches_are_filled_up_on_the_right() {
    let tokenizer = TextTokenizer::open(&fixtures("tokenizers/t5_unigram/tokenizer.json")).unwrap();
    let batch = tokenizer.encode_batch(&["What is in the image?", ""]).unwrap();
    assert_eq!(batch.ids.len(), 2 * batch.width);
    assert_eq!(batch.ids[batch.width..], [vec![1], vec![0; batch.width - 1]].concat());
    assert_eq!(batch.mask[batch.width..].iter().sum::<i64>(), 1);
    assert_eq!(batch.labels(-100)[batch.width..], [vec![1], vec![-100; batch.width - 1]].concat());
}

#[test]
fn a_processor_directory_is_read_whole_and_errors_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let error = Processor::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("preprocessor_config.json"), "{error}");
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("preprocessor_config.json", "{\"size\": {\"height\": 56, \"width\": 56}, \"resample\": 2}");
    assert!(Processor::open(dir.path()).unwrap_err().to_string().contains("only a bicubic resize"));
    write("preprocessor_config.json", "{\"size\": {\"height\": 10000000000, \"width\": 1}}");
    assert!(Processor::open(dir.path()).unwrap_err().to_string().contains("must lie in"));
    fs::remove_file(dir.path().join("preprocessor_config.json")).unwrap();
    write(
        "processor_config.json",
        "{\"image_processor\": {\"size\": {\"height\": 56, \"width\": 56}, \"resample\": 3}}",
    );
    assert_eq!(ImageProcessor::open(dir.path()).unwrap(), ImageProcessor::clip(56));
    write("tokenizer.json", "{\"version\": ");
    assert!(Processor::open(dir.path()).unwrap_err().to_string().contains("tokenizer.json"));
    fs::copy(fixtures("tokenizers/t5_unigram/tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    assert!(Processor::open(dir.path()).unwrap().qformer.is_none());
    fs::create_dir(dir.path().join("qformer_tokenizer")).unwrap();
    fs::copy(
        fixtures("tokenizers/bert_wordpiece/tokenizer.json"),
        dir.path().join("qformer_tokenizer/tokenizer.json"),
    )
    .unwrap();
    assert!(Processor::open(dir.path()).unwrap().qformer.is_some());
}
