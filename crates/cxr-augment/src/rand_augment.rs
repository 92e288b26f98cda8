//! RandAugment.

use serde::{Deserialize, Serialize};

use crate::augmentation::center;
use crate::transform::check;
use crate::{Affine, AugmentError, KeyedRng, Transform};

/// Steps of strength, from none to the strongest, as torchvision counts them.
const BINS: usize = 31;

/// Some operations out of fourteen, drawn with replacement, all of one strength: RandAugment (Cubuk et al., CVPR Workshops 2020)
/// with torchvision's operations and magnitudes.
///
/// Here the geometry of all drawn operations is composed, so that the image is interpolated once and its reflection shows at the
/// border; their changes of grey follow in the order of the draw, on the cropped image. "Color" is nothing on a grey image, and
/// is drawn all the same.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawRandAugment", into = "RawRandAugment")]
pub struct RandAugment {
    operations: usize,
    magnitude: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRandAugment {
    #[serde(default = "two")]
    operations: usize,
    #[serde(default = "nine")]
    magnitude: usize,
}

fn two() -> usize {
    2
}

fn nine() -> usize {
    9
}

impl Default for RandAugment {
    /// Two operations of strength 9, torchvision's default.
    fn default() -> Self {
        Self {
            operations: two(),
            magnitude: nine(),
        }
    }
}

/// One operation; the number is its signed strength.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Operation {
    /// Identity, and "Color" of a grey image.
    Nothing,
    ShearX(f64),
    ShearY(f64),
    /// In pixels.
    TranslateX(f64),
    TranslateY(f64),
    /// In degrees, counter-clockwise.
    Rotate(f64),
    Brightness(f64),
    Contrast(f64),
    Sharpness(f64),
    /// Bits that are kept.
    Posterize(u32),
    /// Grey level from which on the image is inverted.
    Solarize(f64),
    AutoContrast,
    Equalize,
}

impl RandAugment {
    /// `operations` from 0 to 14, of strength `magnitude` from 0 to 30.
    ///
    /// # Errors
    /// [`AugmentError::Setting`] names the setting that is out of range.
    pub fn new(operations: usize, magnitude: usize) -> Result<Self, AugmentError> {
        check("operations", operations as f64, 0.0, 14.0)?;
        check("magnitude", magnitude as f64, 0.0, (BINS - 1) as f64)?;
        Ok(Self {
            operations,
            magnitude,
        })
    }

    /// Operations that are drawn for each image.
    pub fn operations(&self) -> usize {
        self.operations
    }

    /// Their strength, from 0 to 30.
    pub fn magnitude(&self) -> usize {
        self.magnitude
    }

    /// What is drawn for one image; the stream itself stays where it is, so that geometry and grey levels draw alike.
    fn draw(&self, rng: &KeyedRng, width: usize, height: usize) -> Vec<Operation> {
        let mut rng = rng.clone();
        let drawn = (0..self.operations).map(|_| {
            let number = rng.below(14);
            let sign = if rng.chance(0.5) { -1.0 } else { 1.0 };
            self.operation(number, sign, width, height)
        });
        drawn.collect()
    }

    /// The operation of this number in torchvision's order.
    fn operation(&self, number: u64, sign: f64, width: usize, height: usize) -> Operation {
        let share = self.magnitude as f64 / (BINS - 1) as f64;
        let up_to = |most: f64| sign * share * most;
        // torchvision takes whole pixels, rounded towards zero.
        let pixels = |side: usize| up_to(150.0 / 331.0 * side as f64).trunc();
        match number {
            1 => Operation::ShearX(up_to(0.3)),
            2 => Operation::ShearY(up_to(0.3)),
            3 => Operation::TranslateX(pixels(width)),
            4 => Operation::TranslateY(pixels(height)),
            5 => Operation::Rotate(up_to(30.0)),
            6 => Operation::Brightness(1.0 + up_to(0.9)),
            8 => Operation::Contrast(1.0 + up_to(0.9)),
            9 => Operation::Sharpness(1.0 + up_to(0.9)),
            10 => Operation::Posterize(8 - (4.0 * share).round_ties_even() as u32),
            11 => Operation::Solarize(255.0 * (1.0 - share)),
            12 => Operation::AutoContrast,
            13 => Operation::Equalize,
            _ => Operation::Nothing,
        }
    }
}

impl Operation {
    /// Where the pixels of the changed image lie in an image of `width × height`.
    fn map(self, width: usize, height: usize) -> Affine {
        match self {
            // Shears are about the upper left corner, half a pixel off the first pixel's centre.
            Self::ShearX(by) => Affine {
                xy: by,
                x0: by / 2.0,
                ..Affine::IDENTITY
            },
            Self::ShearY(by) => Affine {
                yx: by,
                y0: by / 2.0,
                ..Affine::IDENTITY
            },
            Self::TranslateX(by) => Affine::translation(by, 0.0),
            Self::TranslateY(by) => Affine::translation(0.0, by),
            Self::Rotate(degrees) => {
                let (x, y) = center(width, height);
                Affine::rotation(degrees.to_radians(), x, y)
            }
            _ => Affine::IDENTITY,
        }
    }

    /// The grey levels, 0 to 255, as the operation leaves them.
    fn change_gray(self, gray: &mut [f32], width: usize) {
        match self {
            Self::Brightness(factor) => blend(gray, factor, |_| 0.0),
            Self::Contrast(factor) => {
                let sum: f64 = gray.iter().map(|&gray| f64::from(gray)).sum();
                let mean = (sum / gray.len() as f64) as f32;
                blend(gray, factor, |_| mean);
            }
            Self::Sharpness(factor) => {
                let smooth = smoothed(gray, width);
                blend(gray, factor, |at| smooth[at]);
            }
            Self::Posterize(bits) => {
                let mask = !(0xFF_u8 >> bits);
                for gray in gray {
                    *gray = f32::from(level(*gray) & mask);
                }
            }
            Self::Solarize(threshold) => {
                for gray in gray {
                    if f64::from(*gray) >= threshold {
                        *gray = 255.0 - *gray;
                    }
                }
            }
            Self::AutoContrast => {
                let least = gray.iter().copied().fold(f32::INFINITY, f32::min);
                let most = gray.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                if most > least {
                    for gray in gray {
                        *gray = (*gray - least) * (255.0 / (most - least));
                    }
                }
            }
            Self::Equalize => equalize(gray),
            _ => {}
        }
    }
}

/// Between another image and this one, or beyond it: `other + factor · (gray − other)`, clamped.
fn blend(gray: &mut [f32], factor: f64, other: impl Fn(usize) -> f32) {
    for (at, gray) in gray.iter_mut().enumerate() {
        let other = other(at);
        *gray = (other + factor as f32 * (*gray - other)).clamp(0.0, 255.0);
    }
}

/// The mean over 3×3 pixels, of which the middle one counts five times; the border is left as it is.
fn smoothed(gray: &[f32], width: usize) -> Vec<f32> {
    let mut smooth = gray.to_vec();
    let height = gray.len() / width;
    for row in 1..height.saturating_sub(1) {
        for column in 1..width.saturating_sub(1) {
            let at = row * width + column;
            let mut sum = 4.0 * gray[at];
            for line in [at - width, at, at + width] {
                sum += gray[line - 1] + gray[line] + gray[line + 1];
            }
            smooth[at] = sum / 13.0;
        }
    }
    smooth
}

/// The nearest of 256 levels.
fn level(gray: f32) -> u8 {
    gray.round_ties_even().clamp(0.0, 255.0) as u8
}

/// Spreads the levels so that each is about as frequent as the others, as Pillow does.
fn equalize(gray: &mut [f32]) {
    let mut counts = [0_usize; 256];
    for &gray in gray.iter() {
        counts[usize::from(level(gray))] += 1;
    }
    let Some(&last) = counts.iter().rev().find(|&&count| count > 0) else {
        return;
    };
    let step = (gray.len() - last) / 255;
    if step == 0 {
        return;
    }
    let mut below = step / 2;
    let new = counts.map(|count| {
        let new = (below / step).min(255);
        below += count;
        new as f32
    });
    for gray in gray {
        *gray = new[usize::from(level(*gray))];
    }
}

impl TryFrom<RawRandAugment> for RandAugment {
    type Error = AugmentError;

    fn try_from(raw: RawRandAugment) -> Result<Self, AugmentError> {
        Self::new(raw.operations, raw.magnitude)
    }
}

impl From<RandAugment> for RawRandAugment {
    fn from(
        RandAugment {
            operations,
            magnitude,
        }: RandAugment,
    ) -> Self {
        Self {
            operations,
            magnitude,
        }
    }
}

impl Transform for RandAugment {
    fn name(&self) -> &str {
        "rand-augment"
    }

    fn map(&self, rng: &mut KeyedRng, width: usize, height: usize) -> Affine {
        let drawn = self.draw(rng, width, height);
        drawn.iter().fold(Affine::IDENTITY, |map, operation| {
            map.then(&operation.map(width, height))
        })
    }

    fn change_gray(&self, rng: &mut KeyedRng, gray: &mut [f32], width: usize) {
        // Sizes matter to the geometry alone.
        for operation in self.draw(rng, 0, 0) {
            operation.change_gray(gray, width);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What torchvision's operations do, from `tests/golden/make_rand_augment.py`.
    const GOLDEN: &str = include_str!("../tests/golden/rand_augment.csv");

    const SIDES: [usize; 2] = [24, 17];

    fn picture() -> Vec<f32> {
        let [width, height] = SIDES;
        (0..width * height)
            .map(|at| ((at * at / 3 + 5 * at) % 180 + 40) as f32)
            .collect()
    }

    fn lines(kind: &str) -> impl Iterator<Item = (u64, usize, f64, Vec<f64>)> {
        let of_kind = GOLDEN
            .lines()
            .filter_map(move |line| line.strip_prefix(kind));
        of_kind.map(|line| {
            let mut cells = line
                .split(',')
                .skip(1)
                .map(|cell| cell.parse::<f64>().unwrap());
            let mut next = || cells.next().unwrap();
            let (number, magnitude, sign) = (next() as u64, next() as usize, next());
            (number, magnitude, sign, cells.collect())
        })
    }

    #[test]
    fn geometry_is_torchvisions() {
        let [width, height] = SIDES;
        let mut n_lines = 0;
        for (number, magnitude, sign, expected) in lines("map") {
            let augment = RandAugment::new(1, magnitude).unwrap();
            let operation = augment.operation(number, sign, width, height);
            let map = operation.map(width, height);
            for (at, expected) in [(0., 0.), (10., 3.)].iter().zip(expected.chunks(2)) {
                let (x, y) = map.at(at.0, at.1);
                assert!(
                    (x - expected[0]).abs() < 1e-4 && (y - expected[1]).abs() < 1e-4,
                    "{operation:?}: ({x}, {y}), expected {expected:?}"
                );
            }
            n_lines += 1;
        }
        assert_eq!(n_lines, 5 * 3 * 2);
    }

    /// Pillow works on whole levels, and cuts off what is behind the point: one level of difference. The mean and the smooth
    /// picture that contrast and sharpness are measured from are rounded too.
    #[test]
    fn grey_levels_are_torchvisions() {
        let mut n_lines = 0;
        for (number, magnitude, sign, expected) in lines("gray") {
            let augment = RandAugment::new(1, magnitude).unwrap();
            let operation = augment.operation(number, sign, 0, 0);
            let mut gray = picture();
            operation.change_gray(&mut gray, SIDES[0]);
            let bound = match operation {
                Operation::Posterize(_) | Operation::Solarize(_) | Operation::Equalize => 0.0,
                Operation::Contrast(factor) | Operation::Sharpness(factor) => {
                    1.0 + 0.5 * (1.0 - factor).abs()
                }
                _ => 1.0,
            };
            for (at, (&got, &expected)) in gray.iter().zip(&expected).enumerate() {
                assert!(
                    (f64::from(got) - expected).abs() <= bound,
                    "{operation:?} at {at}: {got}, expected {expected}"
                );
            }
            n_lines += 1;
        }
        assert_eq!(n_lines, 9 * 3);
    }

    #[test]
    fn geometry_and_grey_draw_the_same_operations() {
        let augment = RandAugment::new(14, 30).unwrap();
        let rng = KeyedRng::new("augment/rand-augment", 1, 2, "a.png");
        let mut used = rng.clone();
        augment.map(&mut used, 40, 30);
        let with_sizes = augment.draw(&used, 40, 30);
        assert_eq!(with_sizes, augment.draw(&rng, 40, 30));
        let kinds = with_sizes.iter().map(std::mem::discriminant);
        let without_sizes = augment.draw(&used, 0, 0);
        assert!(kinds.eq(without_sizes.iter().map(std::mem::discriminant)));
    }
}
