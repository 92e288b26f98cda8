//! JPEG 2000: what a codestream declares is checked, then hayro-jpeg2000 decodes it.
//!
//! The decoder takes memory for every code block that a header declares, before any of them is read; so sizes, tiles
//! and blocks are compared with the file's size and bounded here (ISO/IEC 15444-1, annex A).

use hayro_jpeg2000::{DecodeSettings, DecoderContext, Image};

use super::fault::Fault;
use super::pixels::Samples;

/// Blocks and precincts that are decoded: 64×64 pixels each make 16,384 blocks of the largest image.
const MAX_BLOCKS: u64 = 1 << 20;
const MAX_TILES: u64 = 1 << 14;

const START: u16 = 0xff4f;
const SIZE: u16 = 0xff51;
const CODING: u16 = 0xff52;
const COMPONENT_CODING: u16 = 0xff53;
const EXTENDED: u16 = 0xff50;
const TILE_PART: u16 = 0xff90;
const DATA: u16 = 0xff93;

/// Decodes a codestream of a grey image of this size.
pub(super) fn decode(stream: &[u8], width: u16, height: u16) -> Result<Samples, Fault> {
    let stream = codestream(stream).map_err(Fault::Damaged)?;
    let declared = Declared::read(stream, width, height)?;
    let settings = DecodeSettings {
        resolve_palette_indices: false,
        // What is cut off is an error, not grey.
        strict: true,
        target_resolution: None,
    };
    let damaged = |error: hayro_jpeg2000::DecodeError| Fault::Damaged(error.to_string());
    let image = Image::new(stream, &settings).map_err(damaged)?;
    let mut context = DecoderContext::default();
    let decoded = image.decode(&mut context).map_err(damaged)?;
    let n_pixels = usize::from(width) * usize::from(height);
    let samples = match decoded.components() {
        [gray] if gray.samples().len() == n_pixels => gray.samples(),
        other => {
            return Err(Fault::Damaged(format!(
                "expected one component of {n_pixels} pixels, got {}",
                other.len()
            )));
        }
    };
    // The decoder makes all samples positive: signed ones are half the range higher than they were.
    let (range, half) = (
        1_i32 << declared.precision,
        1_i32 << (declared.precision - 1),
    );
    let offset = if declared.signed { half } else { 0 };
    let word = |&sample: &f32| {
        let level = (sample.round() as i32).clamp(0, range - 1);
        ((level - offset) & (range - 1)) as u16
    };
    Ok(Samples {
        words: samples.iter().map(word).collect(),
        precision: declared.precision,
        signed: declared.signed,
    })
}

/// The codestream alone: some programs leave the boxes of a JP2 file around it.
fn codestream(bytes: &[u8]) -> Result<&[u8], String> {
    if !bytes.starts_with(b"\0\0\0\x0cjP  ") {
        return Ok(bytes);
    }
    let mut rest = bytes;
    while let Some((&[a, b, c, d, kind @ ..], _)) = rest.split_first_chunk::<8>() {
        let (header, length) = match u32::from_be_bytes([a, b, c, d]) {
            0 => (8, rest.len()),
            1 => {
                let long = rest.get(8..).and_then(<[u8]>::first_chunk).copied();
                let long = u64::from_be_bytes(long.unwrap_or_default());
                (16, usize::try_from(long).unwrap_or(usize::MAX))
            }
            length => (8, length as usize),
        };
        let content = rest
            .get(header..length)
            .ok_or("a box is longer than its file")?;
        if &kind == b"jp2c" {
            return Ok(content);
        }
        rest = rest.get(length.max(8)..).unwrap_or(&[]);
    }
    Err("a JP2 file without a codestream".to_owned())
}

struct Declared {
    precision: u32,
    signed: bool,
}

impl Declared {
    fn read(stream: &[u8], width: u16, height: u16) -> Result<Self, Fault> {
        let damaged = |problem: &str| Fault::Damaged(problem.to_owned());
        let cut = || damaged("the codestream ends in its header");
        let mut at = 0;
        let mut declared = None;
        let mut n_pixels_per_block = None;
        if word(stream, 0) != Some(START) {
            return Err(damaged("expected a JPEG 2000 codestream"));
        }
        at += 2;
        loop {
            let marker = word(stream, at).ok_or_else(cut)?;
            if marker == TILE_PART {
                break;
            }
            let length = usize::from(word(stream, at + 2).ok_or_else(cut)?);
            let body = stream.get(at + 4..at + 2 + length.max(2)).ok_or_else(cut)?;
            match marker {
                SIZE => declared = Some(Self::of_size(body, width, height)?),
                EXTENDED => {
                    return Err(Fault::Format(
                        "a DICOM file of high-throughput JPEG 2000, which is not read: convert it to an uncompressed one".to_owned(),
                    ));
                }
                CODING | COMPONENT_CODING => {
                    // A component of its own begins with its number; the rest is the same.
                    let parameters = if marker == CODING { 5 } else { 2 };
                    let pixels = pixels_per_block(body, parameters).ok_or_else(cut)?;
                    let least = n_pixels_per_block.map_or(pixels, |least: u64| least.min(pixels));
                    n_pixels_per_block = Some(least);
                }
                _ => {}
            }
            at += 2 + length.max(2);
        }
        let declared = declared.ok_or_else(|| damaged("the codestream declares no size"))?;
        let pixels = n_pixels_per_block.ok_or_else(|| damaged("it declares no coding"))?;
        if u64::from(width) * u64::from(height) / pixels > MAX_BLOCKS {
            return Err(damaged("its code blocks are too many"));
        }
        check_tile_parts(stream, at)?;
        Ok(declared)
    }

    fn of_size(body: &[u8], width: u16, height: u16) -> Result<Self, Fault> {
        let cut = || Fault::Damaged("the codestream ends in its size".to_owned());
        let long = |at: usize| -> Option<u64> {
            Some(u64::from(word(body, at)?) << 16 | u64::from(word(body, at + 2)?))
        };
        // Width, height, where the image begins, the tiles, and where they begin.
        let fields: Option<Vec<u64>> = (0..8).map(|field| long(2 + 4 * field)).collect();
        let fields = fields.ok_or_else(cut)?;
        let &[
            right,
            bottom,
            left,
            top,
            tile_width,
            tile_height,
            tile_left,
            tile_top,
        ] = fields.as_slice()
        else {
            return Err(cut());
        };
        let size = (right.saturating_sub(left), bottom.saturating_sub(top));
        if size != (u64::from(width), u64::from(height)) {
            return Err(Fault::Damaged(format!(
                "expected a frame of {width}×{height} pixels, got {}×{}",
                size.0, size.1
            )));
        }
        let along = |end: u64, begin: u64, length: u64| {
            end.saturating_sub(begin)
                .checked_div(length)
                .unwrap_or(u64::MAX)
                .saturating_add(1)
        };
        let n_tiles = along(right, tile_left, tile_width).saturating_mul(along(
            bottom,
            tile_top,
            tile_height,
        ));
        if n_tiles > MAX_TILES {
            return Err(Fault::Damaged("its tiles are too many".to_owned()));
        }
        let &[0, 1, kind, 1, 1] = body.get(34..).unwrap_or(&[]) else {
            return Err(Fault::Damaged(
                "expected one component in full resolution".to_owned(),
            ));
        };
        let precision = u32::from(kind & 0x7f) + 1;
        if precision > 16 {
            return Err(Fault::Format(format!(
                "a DICOM file of JPEG 2000 with {precision} bits, which is not read: convert it to an uncompressed one"
            )));
        }
        Ok(Self {
            precision,
            signed: kind & 0x80 != 0,
        })
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = *bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(bytes))
}

/// The least number of pixels that a code block or a precinct holds, given where the parameters of the coding begin:
/// levels, width and height of blocks, style, wavelet, and then maybe the precincts of each level.
fn pixels_per_block(body: &[u8], begin: usize) -> Option<u64> {
    let &[
        _levels,
        block_width,
        block_height,
        _style,
        _wavelet,
        ref precincts @ ..,
    ] = body.get(begin..)?
    else {
        return None;
    };
    let block = u32::from(block_width & 15) + u32::from(block_height & 15) + 4;
    // Whether precincts follow, which no component does in other places, shows by their being there.
    let precincts = precincts
        .iter()
        .map(|&sizes| u32::from(sizes & 15) + u32::from(sizes >> 4));
    let least = precincts.fold(block, u32::min);
    1_u64.checked_shl(least)
}

/// Tiles may change how blocks are coded, past what was bounded; no writer of radiographs does.
fn check_tile_parts(stream: &[u8], mut at: usize) -> Result<(), Fault> {
    let problem = |text: &str| Fault::Damaged(text.to_owned());
    while word(stream, at) == Some(TILE_PART) {
        let cut = || problem("the codestream ends in a tile");
        let long = |at: usize| -> Option<usize> {
            Some(usize::from(word(stream, at)?) << 16 | usize::from(word(stream, at + 2)?))
        };
        let length = long(at + 6).ok_or_else(cut)?;
        let mut inner = at + 12;
        loop {
            match word(stream, inner).ok_or_else(cut)? {
                DATA => break,
                CODING | COMPONENT_CODING => {
                    return Err(problem("a tile of its own coding, which is not read"));
                }
                _ => {
                    let skipped = usize::from(word(stream, inner + 2).ok_or_else(cut)?);
                    inner += 2 + skipped.max(2);
                }
            }
        }
        // The last tile may leave its length open.
        if length == 0 {
            return Ok(());
        }
        at = at.saturating_add(length.max(14));
    }
    Ok(())
}
