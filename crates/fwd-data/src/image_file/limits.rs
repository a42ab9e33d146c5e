//! Bounds on what an image may ask for.

/// The largest image that is read: a small file may unfold to gigabytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageLimits {
    /// The longest image file that is read, in bytes.
    pub max_file: u64,
    /// The longest side that an image may have, in pixels.
    pub max_side: u32,
    /// The most pixels that an image may have, width times height.
    pub max_pixels: u64,
    /// The most bytes that the decoded pixels may take.
    pub max_bytes: u64,
}

impl Default for ImageLimits {
    /// Files up to 256 MiB, sides up to 16384 pixels, 64 megapixels, 512 MiB.
    fn default() -> Self {
        Self { max_file: 256 << 20, max_side: 1 << 14, max_pixels: 1 << 26, max_bytes: 512 << 20 }
    }
}

impl ImageLimits {
    /// What is wrong with an image of this size whose pixels take so many bytes.
    pub(super) fn check(&self, width: u32, height: u32, n_bytes: u64) -> Result<(), String> {
        let Self { max_file: _, max_side, max_pixels, max_bytes } = *self;
        let n_pixels = u64::from(width) * u64::from(height);
        if n_pixels == 0 {
            return Err(format!("the image has {width}x{height} pixels"));
        }
        if width.max(height) > max_side || n_pixels > max_pixels {
            return Err(format!(
                "the image has {width}x{height} pixels, more than the allowed {max_side} a side or {max_pixels} in all: \
                 scale it down"
            ));
        }
        if n_bytes > max_bytes {
            return Err(format!(
                "the {width}x{height} pixels take {n_bytes} bytes, more than the allowed {max_bytes}: scale it down"
            ));
        }
        Ok(())
    }
}
