//! An image as the network sees it, and as a file.

use std::path::Path;

use candle_core::Tensor;
use cxr_dataset::GrayImage;
use cxr_explain::{HeatMap, OverlayStyle, Region, overlay};
use cxr_model::{Predictor, PreparedImage, View};

use crate::output::SIGNATURE;

/// The central window of a prepared image: what the network sees in single view.
pub(super) struct Picture {
    side: usize,
    pixels: Vec<u8>,
    /// `1×3×S×S`, normalised.
    pub(super) tensor: Tensor,
    /// What the network asks for beside it, `1×2K`.
    pub(super) non_image: Option<Tensor>,
}

impl Picture {
    /// Of an image of the model's size.
    pub(super) fn new(predictor: &Predictor, prepared: &PreparedImage) -> anyhow::Result<Self> {
        let tensor = predictor.batch(&[prepared], View::Center)?;
        let side = predictor.card().crop_size;
        let margin = (prepared.side() - side) / 2;
        let rows = prepared
            .pixels()
            .chunks_exact(prepared.side())
            .skip(margin)
            .take(side);
        let pixels = rows
            .filter_map(|row| row.get(margin..margin + side))
            .flatten()
            .copied()
            .collect();
        Ok(Self {
            side,
            pixels,
            tensor,
            non_image: predictor.non_image(&[prepared])?,
        })
    }

    /// Writes it as a grey PNG.
    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        Ok(cxr_fs::write(path, &self.to_png()?)?)
    }

    /// A grey PNG.
    pub(super) fn to_png(&self) -> anyhow::Result<Vec<u8>> {
        png_bytes(
            &self.pixels,
            (self.side, self.side),
            png::ColorType::Grayscale,
        )
    }

    /// Writes it as a coloured PNG with the heat map over it.
    pub(super) fn write_overlay(
        &self,
        path: &Path,
        map: &HeatMap,
        style: OverlayStyle,
    ) -> anyhow::Result<()> {
        Ok(cxr_fs::write(path, &self.overlay_png(map, style)?)?)
    }

    /// A coloured PNG with the heat map over it.
    pub(super) fn overlay_png(
        &self,
        map: &HeatMap,
        style: OverlayStyle,
    ) -> anyhow::Result<Vec<u8>> {
        let size = (self.side, self.side);
        let coloured = overlay(&self.pixels, size, map, &Region::WHOLE, style)?;
        png_bytes(&coloured, size, png::ColorType::Rgb)
    }
}

/// A radiograph at its own resolution, of which the network saw a window.
pub(super) struct Original<'a> {
    pub(super) image: &'a GrayImage,
    pub(super) window: Region,
}

impl Original<'_> {
    /// Height and width.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.image.height(), self.image.width())
    }

    /// Three bytes a pixel, the heat map over the window.
    pub(super) fn overlay(&self, map: &HeatMap, style: OverlayStyle) -> anyhow::Result<Vec<u8>> {
        let pixels = self.image.pixels();
        Ok(overlay(pixels, self.size(), map, &self.window, style)?)
    }

    /// The heat map's values as NumPy's file of a matrix of `f32` (its format 1.0).
    pub(super) fn npy(&self, map: &HeatMap) -> Vec<u8> {
        let (height, width) = self.size();
        let values = map.within(height, width, &self.window);
        let mut header =
            format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({height}, {width}), }}");
        // Magic, version and length are ten bytes; numbers begin at a multiple of 64.
        let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
        header += &" ".repeat(padded - header.len() - 1);
        header.push('\n');
        let mut file = NPY.to_vec();
        file.extend([1, 0]);
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.bytes());
        file.extend(values.values().iter().flat_map(|value| value.to_le_bytes()));
        file
    }
}

/// How NumPy's files begin.
pub(super) const NPY: &[u8] = b"\x93NUMPY";

/// A PNG that `explain` knows as its own.
pub(super) fn png_bytes(
    pixels: &[u8],
    (height, width): (usize, usize),
    color: png::ColorType,
) -> anyhow::Result<Vec<u8>> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, u32::try_from(width)?, u32::try_from(height)?);
    encoder.set_color(color);
    encoder.set_depth(png::BitDepth::Eight);
    let (keyword, text) = SIGNATURE;
    encoder.add_text_chunk(keyword.to_owned(), text.to_owned())?;
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(file)
}

/// The same picture with the chunk by which `explain` knows its own.
pub(super) fn signed(png: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info()?;
    let mut pixels = vec![0; reader.output_buffer_size().unwrap_or_default()];
    let info = reader.next_frame(&mut pixels)?;
    let size = (info.height as usize, info.width as usize);
    png_bytes(&pixels[..info.buffer_size()], size, info.color_type)
}
