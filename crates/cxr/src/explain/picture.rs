//! An image as the network sees it, and as a file.

use std::path::Path;

use candle_core::Tensor;
use cxr_explain::{HeatMap, OverlayStyle, overlay};
use cxr_model::{Predictor, PreparedImage, View};

use crate::output::SIGNATURE;

/// The central window of a prepared image: what the network sees in single view.
pub(super) struct Picture {
    side: usize,
    pixels: Vec<u8>,
    /// `1×3×S×S`, normalised.
    pub(super) tensor: Tensor,
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
        })
    }

    /// Writes it as a grey PNG.
    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        self.write_png(path, png::ColorType::Grayscale, &self.pixels)
    }

    /// Writes it as a coloured PNG with the heat map over it.
    pub(super) fn write_overlay(
        &self,
        path: &Path,
        map: &HeatMap,
        style: OverlayStyle,
    ) -> anyhow::Result<()> {
        let coloured = overlay(&self.pixels, (self.side, self.side), map, style)?;
        self.write_png(path, png::ColorType::Rgb, &coloured)
    }

    fn write_png(&self, path: &Path, color: png::ColorType, bytes: &[u8]) -> anyhow::Result<()> {
        let side = u32::try_from(self.side)?;
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, side, side);
        encoder.set_color(color);
        encoder.set_depth(png::BitDepth::Eight);
        let (keyword, text) = SIGNATURE;
        encoder.add_text_chunk(keyword.to_owned(), text.to_owned())?;
        let mut writer = encoder.write_header()?;
        writer.write_image_data(bytes)?;
        writer.finish()?;
        Ok(cxr_fs::write(path, &file)?)
    }
}
