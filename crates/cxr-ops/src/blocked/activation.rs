//! Activations and their slopes, written so that the compiler makes vectors of them: no branches, no calls.

/// A function applied to every value of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Nonlinearity {
    /// `x`.
    #[default]
    Identity,
    /// `max(x, 0)`; its slope at 0 is 0.
    Relu,
    /// `min(max(x, 0), 6)` (Howard et al. 2017); its slope at 0 and 6 is 0.
    Relu6,
    /// `x · sigmoid(x)`, also called swish (Ramachandran et al. 2017).
    Silu,
    /// `x · Φ(x)` with the normal distribution function Φ itself (Hendrycks & Gimpel 2016), not its approximation by
    /// a hyperbolic tangent.
    Gelu,
    /// `x · relu6(x + 3) / 6` (Howard et al. 2019).
    HardSwish,
    /// `1 / (1 + exp(−x))`.
    Sigmoid,
    /// `relu6(x + 3) / 6` (Howard et al. 2019).
    HardSigmoid,
}

impl Nonlinearity {
    /// Whether its slope takes longer than to write and read it.
    pub(crate) fn is_costly(self) -> bool {
        matches!(self, Self::Silu | Self::Gelu | Self::Sigmoid)
    }
}

/// A nonlinearity as a type, for loops that are compiled for it.
pub(crate) trait Curve {
    fn value(x: f32) -> f32;
    fn slope(x: f32) -> f32;
}

pub(crate) struct Identity;
pub(crate) struct Relu;
pub(crate) struct Relu6;
pub(crate) struct Silu;
pub(crate) struct Gelu;
pub(crate) struct HardSwish;
pub(crate) struct Sigmoid;
pub(crate) struct HardSigmoid;

/// Evaluates an expression with `$curve` naming the type of a [`Nonlinearity`].
macro_rules! with_curve {
    ($nonlinearity:expr, $curve:ident => $body:expr) => {{
        use $crate::blocked::activation as curves;
        match $nonlinearity {
            $crate::Nonlinearity::Identity => {
                type $curve = curves::Identity;
                $body
            }
            $crate::Nonlinearity::Relu => {
                type $curve = curves::Relu;
                $body
            }
            $crate::Nonlinearity::Relu6 => {
                type $curve = curves::Relu6;
                $body
            }
            $crate::Nonlinearity::Silu => {
                type $curve = curves::Silu;
                $body
            }
            $crate::Nonlinearity::Gelu => {
                type $curve = curves::Gelu;
                $body
            }
            $crate::Nonlinearity::HardSwish => {
                type $curve = curves::HardSwish;
                $body
            }
            $crate::Nonlinearity::Sigmoid => {
                type $curve = curves::Sigmoid;
                $body
            }
            $crate::Nonlinearity::HardSigmoid => {
                type $curve = curves::HardSigmoid;
                $body
            }
        }
    }};
}
pub(crate) use with_curve;

impl Curve for Identity {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        x
    }

    #[inline(always)]
    fn slope(_: f32) -> f32 {
        1.
    }
}

impl Curve for Relu {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        // A NaN passes, so that a broken training step is noticed.
        if x <= 0. { 0. } else { x }
    }

    #[inline(always)]
    fn slope(x: f32) -> f32 {
        if x > 0. { 1. } else { 0. }
    }
}

impl Curve for Relu6 {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        let x = if x <= 0. { 0. } else { x };
        if x >= 6. { 6. } else { x }
    }

    #[inline(always)]
    fn slope(x: f32) -> f32 {
        if x > 0. && x < 6. { 1. } else { 0. }
    }
}

impl Curve for Silu {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        x * sigmoid(x)
    }

    #[inline(always)]
    fn slope(x: f32) -> f32 {
        let s = sigmoid(x);
        s * (1. + x * (1. - s))
    }
}

impl Curve for Gelu {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        x * normal(x)
    }

    #[inline(always)]
    fn slope(x: f32) -> f32 {
        // 1/√(2π)
        const DENSITY: f32 = 0.398_942_3;
        normal(x) + x * DENSITY * exp(-0.5 * x * x)
    }
}

impl Curve for HardSwish {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        x * HardSigmoid::value(x)
    }

    #[inline(always)]
    fn slope(x: f32) -> f32 {
        let inside = x * (1. / 3.) + 0.5;
        let low = if x < -3. { 0. } else { inside };
        if x > 3. { 1. } else { low }
    }
}

impl Curve for Sigmoid {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        sigmoid(x)
    }

    #[inline(always)]
    fn slope(x: f32) -> f32 {
        let s = sigmoid(x);
        s * (1. - s)
    }
}

impl Curve for HardSigmoid {
    #[inline(always)]
    fn value(x: f32) -> f32 {
        Relu6::value(x + 3.) * (1. / 6.)
    }

    #[inline(always)]
    fn slope(x: f32) -> f32 {
        if x > -3. && x < 3. { 1. / 6. } else { 0. }
    }
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    // Beyond, the reciprocal would be no normal number. A NaN passes.
    reciprocal(1. + exp(-x.clamp(-80., 80.)))
}

/// `1/x` of a normal `x` below 1e38, within two units in the last place. A division takes a processor four times as long.
#[inline(always)]
fn reciprocal(x: f32) -> f32 {
    // A line through the logarithm: within an eighth. Each of Newton's steps squares the error.
    let guess = f32::from_bits(0x7EF3_11C7_u32.wrapping_sub(x.to_bits()));
    let mut inverse = guess;
    for _ in 0..3 {
        inverse += inverse * (1. - x * inverse);
    }
    // What a NaN's bits make of the guess is a number, but the product with it is none.
    inverse
}

/// The standard normal distribution function.
#[inline(always)]
fn normal(x: f32) -> f32 {
    0.5 + 0.5 * erf(x * std::f32::consts::FRAC_1_SQRT_2)
}

/// `e^x`, within two units in the last place between the least normal number and the largest; beyond it is that of the
/// nearest such `x`.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // 1.5 · 2²³: adding it rounds to a whole number, which is then in the lowest bits.
    const ROUND: f32 = 12_582_912.;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.3, 88.);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // |r| ≤ ln 2 / 2, where eight terms of the series leave 5e-9.
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut series = 1. / 5040.;
    for factor in [1. / 720., 1. / 120., 1. / 24., 1. / 6., 0.5, 1., 1.] {
        series = series * r + factor;
    }
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    series * power
}

/// The error function, by a quotient of polynomials in `x²` on ±4, beyond which single precision has no other value
/// than ±1 (the coefficients are those of the Eigen library, negated).
#[inline(always)]
fn erf(x: f32) -> f32 {
    const ABOVE: [f32; 6] = [
        -2.770_681_4e-8,
        2.101_024e-6,
        5.692_506_5e-5,
        7.349_906_3e-4,
        2.954_6e-3,
        1.609_603_3e-2,
    ];
    const BELOW: [f32; 4] = [2.133_740_5e-4, 1.682_827e-3, 7.373_329_3e-3, 1.426_473_9e-2];
    let x = x.clamp(-4., 4.);
    let square = x * x;
    let (mut above, mut below) = (2.726_142_3e-10, 1.456_606_2e-5);
    for coefficient in ABOVE {
        above = above * square + coefficient;
    }
    for coefficient in BELOW {
        below = below * square + coefficient;
    }
    x * above * reciprocal(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(x, e^x, erf x)` from Python's `math`.
    const ORACLE: [(f32, f64, f64); 8] = [
        (-6., 0.002_478_752_176_666_358_5, -1.),
        (-2.5, 0.082_084_998_623_898_8, -0.999_593_047_982_555),
        (-0.75, 0.472_366_552_741_014_7, -0.711_155_633_653_515_1),
        (-0.0625, 0.939_413_062_813_475_8, -0.070_431_977_722_387_07),
        (0.125, 1.133_148_453_066_826_3, 0.140_316_204_801_333_83),
        (1.5, 4.481_689_070_338_064_5, 0.966_105_146_475_310_8),
        (3., 20.085_536_923_187_668, 0.999_977_909_503_001_4),
        (20., 485_165_195.409_790_3, 1.),
    ];

    #[test]
    fn exponential_and_error_function_agree_with_an_oracle() {
        for (x, expected_exp, expected_erf) in ORACLE {
            let relative = (f64::from(exp(x)) - expected_exp).abs() / expected_exp;
            assert!(relative < 2.4e-7, "exp({x}): {relative:e}");
            let error = (f64::from(erf(x)) - expected_erf).abs();
            assert!(error < 3e-7, "erf({x}): {error:e}");
        }
        assert!(exp(f32::NAN).is_nan() && erf(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 1.3e-38 && exp(f32::INFINITY) > 1e38);
    }

    /// A slope is what differences of values say, away from corners.
    #[test]
    fn slopes_are_those_of_the_values() {
        let all = [
            Nonlinearity::Identity,
            Nonlinearity::Relu,
            Nonlinearity::Relu6,
            Nonlinearity::Silu,
            Nonlinearity::Gelu,
            Nonlinearity::HardSwish,
            Nonlinearity::Sigmoid,
            Nonlinearity::HardSigmoid,
        ];
        for nonlinearity in all {
            for step in 0..160 {
                let x = -8.03 + 0.1 * step as f32;
                if [0f32, 6., -3., 3.]
                    .iter()
                    .any(|corner| (x - corner).abs() < 0.02)
                {
                    continue;
                }
                let (h, slope, difference) = with_curve!(nonlinearity, C => {
                    let h = 0.01;
                    (h, C::slope(x), C::value(x + h) - C::value(x - h))
                });
                let expected = difference / (2. * h);
                assert!(
                    (slope - expected).abs() < 2e-4,
                    "{nonlinearity:?} at {x}: {slope}, differences say {expected}"
                );
            }
        }
    }
}
