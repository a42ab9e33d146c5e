//! What stands for the image of a record that has none.

use crate::error::{DataError, Result};
use std::io::Cursor;

/// The key of the image.
pub(crate) const BLANK: &str = "no-image/blank.png";

/// A grey PNG, which stands for the image of a question that has none. LLaVA gives such a question the mean colour too.
///
/// # Errors
/// An error of the encoder.
pub fn blank_image() -> Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    let grey = image::GrayImage::from_pixel(32, 32, image::Luma([127]));
    grey.write_to(&mut bytes, image::ImageFormat::Png)
        .map_err(|error| DataError::Image { origin: "the blank image".into(), what: error.to_string() })?;
    Ok(bytes.into_inner())
}
