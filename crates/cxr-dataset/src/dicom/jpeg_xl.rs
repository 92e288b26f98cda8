//! JPEG XL: what a stream declares is checked, then jxl-oxide decodes it within a bound of memory.

use std::io::Cursor;

use jxl_oxide::{AllocTracker, JxlImage, JxlThreadPool, PixelFormat};

use super::pixels::Samples;

/// Bytes that decoding may take for each pixel, and beside them: some planes of 32 bits, and tables.
const BYTES_PER_PIXEL: usize = 48;
const FREE_BYTES: usize = 1 << 24;

/// Decodes a stream of a grey image of this size.
pub(super) fn decode(stream: &[u8], width: u16, height: u16) -> Result<Samples, String> {
    let n_pixels = usize::from(width) * usize::from(height);
    let tracker = AllocTracker::with_limit(BYTES_PER_PIXEL * n_pixels + FREE_BYTES);
    let image = JxlImage::builder()
        // Images are decoded on many threads already.
        .pool(JxlThreadPool::none())
        .alloc_tracker(tracker)
        .read(Cursor::new(stream));
    let image = image.map_err(|error| error.to_string())?;
    if (image.width(), image.height()) != (u32::from(width), u32::from(height)) {
        return Err(format!(
            "expected a frame of {width}×{height} pixels, got {}×{}",
            image.width(),
            image.height()
        ));
    }
    let depth = image.image_header().metadata.bit_depth;
    let jxl_oxide::image::BitDepth::IntegerSample { bits_per_sample } = depth else {
        return Err("expected whole numbers, got floating-point ones".to_owned());
    };
    if image.pixel_format() != PixelFormat::Gray || !(1..=16).contains(&bits_per_sample) {
        return Err(format!(
            "expected grey of at most 16 bits, got {:?} of {bits_per_sample}",
            image.pixel_format()
        ));
    }
    if !image.is_loading_done() || image.num_loaded_keyframes() != 1 {
        return Err("expected one whole frame".to_owned());
    }
    let render = image.render_frame(0).map_err(|error| error.to_string())?;
    let mut levels = vec![0_f32; n_pixels];
    let mut stream = render.stream_no_alpha();
    if stream.channels() != 1 || stream.write_to_buffer(&mut levels) != n_pixels {
        return Err(format!("expected {n_pixels} grey pixels"));
    }
    // Levels from 0 to 1 in single precision, which holds 16 bits exactly.
    let white = ((1_u32 << bits_per_sample) - 1) as f32;
    Ok(Samples {
        words: levels
            .into_iter()
            .map(|level| (level * white).round().clamp(0.0, white) as u16)
            .collect(),
        precision: bits_per_sample,
        signed: false,
    })
}
