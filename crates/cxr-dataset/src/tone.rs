//! From stored values to 8-bit grey levels: all of them through one table, so that every format is stretched, and
//! checked for levels that it leaves unused, in the same way.

use crate::ImageWarning;

/// How the values of an image become grey levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Tone {
    /// As the file says: the whole range of its bits is shown, or what its window or table picks.
    #[default]
    AsStored,
    /// As the file says, then stretched so that the darkest value in use becomes 0 and the brightest 255. Values that
    /// stand for padding are left out.
    Stretched,
}

/// Levels between which almost all pixels of an image lie when it is taken for one whose values use a part of their
/// range: 14 bits in 16 use 64.
const NARROW: u8 = 64;
/// The share of pixels, one in so many, that may be darker or brighter: marks of the side are often white whatever the
/// values of the image.
const OUTLIERS: usize = 200;

/// Where values are looked up: `gray[value]` from 0 to 255, before rounding.
pub(crate) struct Shades<'a> {
    pub(crate) gray: &'a [f64],
    /// Whether black and white are exchanged after rounding.
    pub(crate) inverted: bool,
    /// Values that stand for what is no part of the image.
    pub(crate) is_padding: &'a dyn Fn(u16) -> bool,
}

impl Shades<'_> {
    /// The grey levels of an image, and a warning if they are few.
    pub(crate) fn apply<T: Copy + Into<u16>>(
        &self,
        values: &[T],
        tone: Tone,
    ) -> (Vec<u8>, Option<ImageWarning>) {
        let mut counts = vec![0_usize; self.gray.len()];
        for &value in values {
            if let Some(count) = counts.get_mut(usize::from(value.into())) {
                *count += 1;
            }
        }
        for (value, count) in (0_u16..=u16::MAX).zip(&mut counts) {
            if *count > 0 && (self.is_padding)(value) {
                *count = 0;
            }
        }
        let in_use = || {
            let pairs = self.gray.iter().zip(&counts);
            pairs.filter(|(_, count)| **count > 0)
        };
        let darkest = in_use()
            .map(|(gray, _)| *gray)
            .fold(f64::INFINITY, f64::min);
        let brightest = in_use()
            .map(|(gray, _)| *gray)
            .fold(f64::NEG_INFINITY, f64::max);
        let stretched = tone == Tone::Stretched && brightest > darkest;
        let levels: Vec<u8> = (self.gray.iter())
            .map(|&gray| match stretched {
                true => 255.0 * (gray - darkest) / (brightest - darkest),
                false => gray,
            })
            .map(|gray| gray.round().clamp(0.0, 255.0) as u8)
            .map(|level| if self.inverted { 255 - level } else { level })
            .collect();
        let pixels = (values.iter())
            .map(|&value| levels.get(usize::from(value.into())).copied().unwrap_or(0))
            .collect();
        (pixels, narrow(&levels, &counts))
    }
}

/// The grey levels of an image whose values are levels already.
pub(crate) fn eight_bit(values: Vec<u8>, tone: Tone) -> (Vec<u8>, Option<ImageWarning>) {
    let gray: Vec<f64> = (0..=255_u8).map(f64::from).collect();
    let shades = Shades {
        gray: &gray,
        inverted: false,
        is_padding: &|_| false,
    };
    shades.apply(&values, tone)
}

/// The grey levels of an image of 16-bit values.
pub(crate) fn sixteen_bit(values: &[u16], tone: Tone) -> (Vec<u8>, Option<ImageWarning>) {
    let gray: Vec<f64> = (0..=u16::MAX)
        .map(|value| f64::from(value) / 257.0)
        .collect();
    let shades = Shades {
        gray: &gray,
        inverted: false,
        is_padding: &|_| false,
    };
    shades.apply(values, tone)
}

/// A warning if almost all pixels share few levels.
fn narrow(levels: &[u8], counts: &[usize]) -> Option<ImageWarning> {
    let mut histogram = [0_usize; 256];
    for (&level, &count) in levels.iter().zip(counts) {
        if let Some(bin) = histogram.get_mut(usize::from(level)) {
            *bin += count;
        }
    }
    let n_outliers = histogram.iter().sum::<usize>() / OUTLIERS;
    let bins = || (0..=255_u8).zip(histogram);
    let darkest = first_inlier(bins(), n_outliers)?;
    let brightest = first_inlier(bins().rev(), n_outliers)?;
    (brightest.saturating_sub(darkest) <= NARROW)
        .then_some(ImageWarning::NarrowRange { darkest, brightest })
}

/// The first level beyond so many outliers.
fn first_inlier(bins: impl Iterator<Item = (u8, usize)>, n_outliers: usize) -> Option<u8> {
    let mut n_seen = 0;
    let mut bins = bins;
    bins.find_map(|(level, count)| {
        n_seen += count;
        (n_seen > n_outliers).then_some(level)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_levels_are_found_beside_a_white_mark_and_stretched_without_it() {
        let values: Vec<u16> = (0..4096_u16).chain([65_535; 20]).collect();
        let (pixels, warning) = sixteen_bit(&values, Tone::AsStored);
        assert_eq!(pixels[4095], 16);
        assert_eq!(
            warning,
            Some(ImageWarning::NarrowRange {
                darkest: 0,
                brightest: 16
            })
        );
        // The mark is a value in use: stretching changes nothing, and the warning stays.
        assert_eq!(sixteen_bit(&values, Tone::Stretched), (pixels, warning));
        let (pixels, warning) = sixteen_bit(&values[..4096], Tone::Stretched);
        assert_eq!((pixels[0], pixels[2048], pixels[4095]), (0, 128, 255));
        assert_eq!(warning, None);
    }

    #[test]
    fn an_image_of_one_value_is_not_stretched() {
        let (pixels, warning) = eight_bit(vec![7; 100], Tone::Stretched);
        assert!(pixels.iter().all(|&pixel| pixel == 7));
        assert!(warning.is_some());
    }
}
