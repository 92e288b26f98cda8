//! Activations and their slopes, on vectors.

use crate::simd::Vectors;

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

/// A nonlinearity as a type, for loops that are compiled for it. It works on vectors: of loops over lanes the compiler
/// makes vectors of pixels, gathered and scattered, where a body is as long as these.
pub(crate) trait Curve {
    fn value<S: Vectors>(simd: S, x: S::f32s) -> S::f32s;
    fn slope<S: Vectors>(simd: S, x: S::f32s) -> S::f32s;
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
    fn value<S: Vectors>(_: S, x: S::f32s) -> S::f32s {
        x
    }

    #[inline(always)]
    fn slope<S: Vectors>(simd: S, _: S::f32s) -> S::f32s {
        simd.splat_f32s(1.)
    }
}

impl Curve for Relu {
    #[inline(always)]
    fn value<S: Vectors>(simd: S, x: S::f32s) -> S::f32s {
        at_least(simd, 0., x)
    }

    #[inline(always)]
    fn slope<S: Vectors>(simd: S, x: S::f32s) -> S::f32s {
        within(simd, 0., f32::INFINITY, 1., x)
    }
}

impl Curve for Relu6 {
    #[inline(always)]
    fn value<S: Vectors>(simd: S, x: S::f32s) -> S::f32s {
        at_most(simd, 6., at_least(simd, 0., x))
    }

    #[inline(always)]
    fn slope<S: Vectors>(simd: S, x: S::f32s) -> S::f32s {
        within(simd, 0., 6., 1., x)
    }
}

impl Curve for Silu {
    #[inline(always)]
    fn value<S: Vectors>(simd: S, x: S::f32s) -> S::f32s {
        simd.mul_f32s(x, sigmoid(simd, x))
    }

    #[inline(always)]
    fn slope<S: Vectors>(simd: S, x: S::f32s) -> S::f32s {
        // s·(1 + x·(1 − s))
        let one = simd.splat_f32s(1.);
        let s = sigmoid(simd, x);
        simd.mul_f32s(s, simd.mul_add_e_f32s(x, simd.sub_f32s(one, s), one))
    }
}

impl Curve for Gelu {
    #[inline(always)]
    fn value<S: Vectors>(simd: S, x: S::f32s) -> S::f32s {
        simd.mul_f32s(x, normal(simd, x))
    }

    #[inline(always)]
    fn slope<S: Vectors>(simd: S, x: S::f32s) -> S::f32s {
        // 1/√(2π)
        const DENSITY: f32 = 0.398_942_3;
        let square = simd.mul_f32s(simd.mul_f32s(x, x), simd.splat_f32s(-0.5));
        let density = simd.mul_f32s(simd.splat_f32s(DENSITY), exp(simd, square));
        simd.mul_add_e_f32s(x, density, normal(simd, x))
    }
}

impl Curve for HardSwish {
    #[inline(always)]
    fn value<S: Vectors>(simd: S, x: S::f32s) -> S::f32s {
        simd.mul_f32s(x, HardSigmoid::value(simd, x))
    }

    #[inline(always)]
    fn slope<S: Vectors>(simd: S, x: S::f32s) -> S::f32s {
        let (zero, one) = (simd.splat_f32s(0.), simd.splat_f32s(1.));
        let inside = simd.mul_add_e_f32s(x, simd.splat_f32s(1. / 3.), simd.splat_f32s(0.5));
        let low = simd.select_f32s(simd.less_than_f32s(x, simd.splat_f32s(-3.)), zero, inside);
        simd.select_f32s(simd.greater_than_f32s(x, simd.splat_f32s(3.)), one, low)
    }
}

impl Curve for Sigmoid {
    #[inline(always)]
    fn value<S: Vectors>(simd: S, x: S::f32s) -> S::f32s {
        sigmoid(simd, x)
    }

    #[inline(always)]
    fn slope<S: Vectors>(simd: S, x: S::f32s) -> S::f32s {
        let s = sigmoid(simd, x);
        simd.mul_f32s(s, simd.sub_f32s(simd.splat_f32s(1.), s))
    }
}

impl Curve for HardSigmoid {
    #[inline(always)]
    fn value<S: Vectors>(simd: S, x: S::f32s) -> S::f32s {
        let moved = simd.add_f32s(x, simd.splat_f32s(3.));
        simd.mul_f32s(Relu6::value(simd, moved), simd.splat_f32s(1. / 6.))
    }

    #[inline(always)]
    fn slope<S: Vectors>(simd: S, x: S::f32s) -> S::f32s {
        within(simd, -3., 3., 1. / 6., x)
    }
}

/// `x`, or `least` where it is no more than that. A NaN passes, so that a broken training step is noticed.
#[inline(always)]
pub(super) fn at_least<S: Vectors>(simd: S, least: f32, x: S::f32s) -> S::f32s {
    let least = simd.splat_f32s(least);
    simd.select_f32s(simd.less_than_or_equal_f32s(x, least), least, x)
}

/// `x`, or `most` where it is no less than that. A NaN passes.
#[inline(always)]
fn at_most<S: Vectors>(simd: S, most: f32, x: S::f32s) -> S::f32s {
    let most = simd.splat_f32s(most);
    simd.select_f32s(simd.greater_than_or_equal_f32s(x, most), most, x)
}

/// `inside` where x is between two values, 0 elsewhere.
#[inline(always)]
fn within<S: Vectors>(simd: S, low: f32, high: f32, inside: f32, x: S::f32s) -> S::f32s {
    let (zero, inside) = (simd.splat_f32s(0.), simd.splat_f32s(inside));
    let above = simd.select_f32s(
        simd.greater_than_f32s(x, simd.splat_f32s(low)),
        inside,
        zero,
    );
    simd.select_f32s(simd.less_than_f32s(x, simd.splat_f32s(high)), above, zero)
}

#[inline(always)]
fn sigmoid<S: Vectors>(simd: S, x: S::f32s) -> S::f32s {
    // Beyond, the reciprocal would be no normal number.
    let x = at_most(simd, 80., at_least(simd, -80., x));
    reciprocal(
        simd,
        simd.add_f32s(simd.splat_f32s(1.), exp_within(simd, simd.neg_f32s(x))),
    )
}

/// `1/x` of a normal `x` below 1e38, within two units in the last place. A division takes a processor four times as long.
#[inline(always)]
fn reciprocal<S: Vectors>(simd: S, x: S::f32s) -> S::f32s {
    // A line through the logarithm: within an eighth. Each of Newton's steps squares the error.
    let bits = simd.transmute_u32s_f32s(x);
    let guess = simd.sub_u32s(simd.splat_u32s(0x7EF3_11C7), bits);
    let mut inverse = simd.transmute_f32s_u32s(guess);
    let (one, minus) = (simd.splat_f32s(1.), simd.neg_f32s(x));
    for _ in 0..3 {
        let error = simd.mul_add_e_f32s(minus, inverse, one);
        inverse = simd.mul_add_e_f32s(inverse, error, inverse);
    }
    // What a NaN's bits make of the guess is a number, but the product with it is none.
    inverse
}

/// The standard normal distribution function.
#[inline(always)]
fn normal<S: Vectors>(simd: S, x: S::f32s) -> S::f32s {
    let half = simd.splat_f32s(0.5);
    let scaled = simd.mul_f32s(x, simd.splat_f32s(std::f32::consts::FRAC_1_SQRT_2));
    simd.mul_add_e_f32s(half, erf(simd, scaled), half)
}

/// `e^x`, within two units in the last place between the least normal number and the largest; beyond it is that of the
/// nearest such `x`.
#[inline(always)]
pub(super) fn exp<S: Vectors>(simd: S, x: S::f32s) -> S::f32s {
    exp_within(simd, at_most(simd, 88., at_least(simd, -87.3, x)))
}

/// The same of an `x` between -87.3 and 88.
#[inline(always)]
fn exp_within<S: Vectors>(simd: S, x: S::f32s) -> S::f32s {
    // 1.5 · 2²³: adding it rounds to a whole number, which is then in the lowest bits.
    const ROUND: f32 = 12_582_912.;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let round = simd.splat_f32s(ROUND);
    let log2_e = simd.splat_f32s(std::f32::consts::LOG2_E);
    let shifted = simd.mul_add_e_f32s(x, log2_e, round);
    let n = simd.sub_f32s(shifted, round);
    // |r| ≤ ln 2 / 2, where eight terms of the series leave 5e-9.
    let r = simd.mul_add_e_f32s(n, simd.splat_f32s(-LN2_HIGH), x);
    let r = simd.mul_add_e_f32s(n, simd.splat_f32s(-LN2_LOW), r);
    let mut series = simd.splat_f32s(1. / 5040.);
    for factor in [1. / 720., 1. / 120., 1. / 24., 1. / 6., 0.5, 1., 1.] {
        series = simd.mul_add_e_f32s(series, r, simd.splat_f32s(factor));
    }
    let exponent =
        simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    let power = simd.add_u32s(exponent, simd.splat_u32s(127 << 23));
    simd.mul_f32s(series, simd.transmute_f32s_u32s(power))
}

/// The error function, by a quotient of polynomials in `x²` on ±4, beyond which single precision has no other value
/// than ±1 (the coefficients are those of the Eigen library, negated).
#[inline(always)]
fn erf<S: Vectors>(simd: S, x: S::f32s) -> S::f32s {
    const ABOVE: [f32; 7] = [
        2.726_142_3e-10,
        -2.770_681_4e-8,
        2.101_024e-6,
        5.692_506_5e-5,
        7.349_906_3e-4,
        2.954_6e-3,
        1.609_603_3e-2,
    ];
    const BELOW: [f32; 5] = [
        1.456_606_2e-5,
        2.133_740_5e-4,
        1.682_827e-3,
        7.373_329_3e-3,
        1.426_473_9e-2,
    ];
    let x = at_most(simd, 4., at_least(simd, -4., x));
    let square = simd.mul_f32s(x, x);
    let mut above = simd.splat_f32s(0.);
    for coefficient in ABOVE {
        above = simd.mul_add_e_f32s(above, square, simd.splat_f32s(coefficient));
    }
    let mut below = simd.splat_f32s(0.);
    for coefficient in BELOW {
        below = simd.mul_add_e_f32s(below, square, simd.splat_f32s(coefficient));
    }
    simd.mul_f32s(simd.mul_f32s(x, above), reciprocal(simd, below))
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
        let simd = pulp::Scalar::new();
        for (x, expected_exp, expected_erf) in ORACLE {
            let relative = (f64::from(exp(simd, x)) - expected_exp).abs() / expected_exp;
            assert!(relative < 2.4e-7, "exp({x}): {relative:e}");
            let error = (f64::from(erf(simd, x)) - expected_erf).abs();
            assert!(error < 3e-7, "erf({x}): {error:e}");
        }
        assert!(exp(simd, f32::NAN).is_nan() && erf(simd, f32::NAN).is_nan());
        assert!(exp(simd, f32::NEG_INFINITY) < 1.3e-38 && exp(simd, f32::INFINITY) > 1e38);
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
                    let simd = pulp::Scalar::new();
                    (h, C::slope(simd, x), C::value(simd, x + h) - C::value(simd, x - h))
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
