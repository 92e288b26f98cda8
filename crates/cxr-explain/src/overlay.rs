//! A heat map over the radiograph it explains.

use crate::{ExplainError, HeatMap, Region};

/// How a heat map is coloured and how it covers the radiograph.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OverlayStyle {
    /// From black through violet and orange to yellow (the colours of matplotlib's *inferno*), the
    /// more opaque the hotter: what is cold stays a radiograph. Lightness rises with heat, so that
    /// it reads alike for colour-blind readers and in grey print.
    #[default]
    Inferno,
    /// From blue through green to red, evenly half transparent: what Grad-CAM papers show.
    Jet,
}

/// Colours of *inferno* at eighths of the scale.
const INFERNO: [[f32; 3]; 9] = [
    [0., 0., 4.],
    [31., 12., 72.],
    [85., 15., 109.],
    [136., 34., 106.],
    [186., 54., 85.],
    [227., 89., 51.],
    [249., 140., 10.],
    [249., 201., 50.],
    [252., 255., 164.],
];
/// Opacity of the hottest cell, and of every cell in [`OverlayStyle::Jet`].
const INFERNO_OPACITY: f32 = 0.75;
const JET_OPACITY: f32 = 0.4;

impl OverlayStyle {
    /// Colour in 0 … 255 and opacity for a heat in [0, 1].
    fn at(self, heat: f32) -> ([f32; 3], f32) {
        match self {
            Self::Inferno => {
                let place = heat * (INFERNO.len() - 1) as f32;
                let below = (place as usize).min(INFERNO.len() - 2);
                let share = place - below as f32;
                let mix = |channel: usize| {
                    INFERNO[below][channel] * (1. - share) + INFERNO[below + 1][channel] * share
                };
                ([mix(0), mix(1), mix(2)], heat * INFERNO_OPACITY)
            }
            Self::Jet => {
                let ramp = |centre: f32| (1.5 - (4. * heat - centre).abs()).clamp(0., 1.) * 255.;
                ([ramp(3.), ramp(2.), ramp(1.)], JET_OPACITY)
            }
        }
    }
}

/// The radiograph, `height`×`width` grey values row by row, with the heat map over it: three bytes
/// (red, green, blue) a pixel. The map is stretched over `window`, bilinearly, and its
/// largest value is as hot as can be; a map that is zero everywhere leaves the radiograph as cold as
/// the style has it. Outside the window, where the network did not look, the radiograph stays grey.
///
/// # Errors
/// Another number of pixels than height times width.
pub fn overlay(
    pixels: &[u8],
    (height, width): (usize, usize),
    map: &HeatMap,
    window: &Region,
    style: OverlayStyle,
) -> Result<Vec<u8>, ExplainError> {
    if pixels.len() != height * width {
        return Err(ExplainError::Pixels {
            expected: height * width,
            found: pixels.len(),
        });
    }
    let peak = map.peak();
    let scale = if peak > 0. { 1. / peak } else { 0. };
    let map = map.within(height, width, window);
    let mut coloured = Vec::with_capacity(3 * pixels.len());
    for (place, (&grey, &value)) in pixels.iter().zip(map.values()).enumerate() {
        if !window.has_pixel((place / width, place % width), (height, width)) {
            coloured.extend([grey; 3]);
            continue;
        }
        let (colour, opacity) = style.at((value * scale).clamp(0., 1.));
        let mix = |colour: f32| f32::from(grey) * (1. - opacity) + colour * opacity;
        coloured.extend(colour.map(|colour| mix(colour).round() as u8));
    }
    Ok(coloured)
}
