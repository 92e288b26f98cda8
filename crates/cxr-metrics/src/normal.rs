//! The standard normal distribution, as exact as `f64` allows: 13 digits of Φ⁻¹, and of the tails
//! as many as the rounding of z² leaves.

use std::f64::consts::{PI, SQRT_2};

/// Where the series of erf and the continued fraction of erfc meet.
const SERIES_UP_TO: f64 = 2.0;

/// 2·(1 − Φ(|z|)): the p-value of a two-sided test.
pub(crate) fn two_sided_p(z: f64) -> f64 {
    erfc(z.abs() / SQRT_2).min(1.0)
}

/// Φ(z).
pub(crate) fn cumulative(z: f64) -> f64 {
    if z < 0.0 {
        0.5 * erfc(-z / SQRT_2)
    } else {
        1.0 - 0.5 * erfc(z / SQRT_2)
    }
}

/// Φ⁻¹(p) for 0 < p < 1: a rational first guess (Abramowitz & Stegun 26.2.23, error below
/// 4.5e-4), then Halley's iteration, which triples the digits each time.
pub(crate) fn quantile(p: f64) -> f64 {
    if p > 0.5 {
        return -quantile(1.0 - p);
    }
    let t = (-2.0 * p.ln()).sqrt();
    let numerator = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let denominator = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    let mut z = numerator / denominator - t;
    for _ in 0..3 {
        let density = (-z * z / 2.0).exp() / (2.0 * PI).sqrt();
        let step = (cumulative(z) - p) / density;
        z -= step / (1.0 + z * step / 2.0);
    }
    z
}

/// P(X > h and Y > h) for standard normal X and Y with correlation 1/2, h ≥ 0:
/// (1/π)·∫ exp(−h²/(2cos²θ)) dθ over θ from π/6 to π/2 (Owen 1956), by Gauss and Legendre's rule.
pub(crate) fn both_above(h: f64) -> f64 {
    const PANELS: u32 = 24;
    // Nodes and weights of five points on [−1, 1].
    let root = (10.0_f64 / 7.0).sqrt();
    let (inner, outer) = (
        (5.0 - 2.0 * root).sqrt() / 3.0,
        (5.0 + 2.0 * root).sqrt() / 3.0,
    );
    let (heavy, light) = (
        (322.0 + 13.0 * 70.0_f64.sqrt()) / 900.0,
        (322.0 - 13.0 * 70.0_f64.sqrt()) / 900.0,
    );
    let rule = [
        (0.0, 128.0 / 225.0),
        (-inner, heavy),
        (inner, heavy),
        (-outer, light),
        (outer, light),
    ];
    let half_width = PI / 3.0 / f64::from(PANELS) / 2.0;
    let mut sum = 0.0;
    for panel in 0..PANELS {
        let centre = PI / 6.0 + (2.0 * f64::from(panel) + 1.0) * half_width;
        for (node, weight) in rule {
            let cosine = (centre + half_width * node).cos();
            sum += weight * (-h * h / (2.0 * cosine * cosine)).exp();
        }
    }
    sum * half_width / PI
}

/// The complementary error function for x ≥ 0.
fn erfc(x: f64) -> f64 {
    if x < SERIES_UP_TO {
        // erf x = 2/√π · e^(−x²) · Σ 2ⁿ x^(2n+1) / (2n+1)!!: all terms positive, nothing cancels.
        let (mut term, mut sum, mut odd) = (x, x, 1.0);
        while term > sum * 1e-17 {
            odd += 2.0;
            term *= 2.0 * x * x / odd;
            sum += term;
        }
        1.0 - 2.0 / PI.sqrt() * (-x * x).exp() * sum
    } else {
        // e^(−x²)/√π · 1/(x + (1/2)/(x + (2/2)/(x + (3/2)/(x + …)))), from the inside out.
        let mut tail = x;
        for depth in (1..=120).rev() {
            tail = x + f64::from(depth) / 2.0 / tail;
        }
        (-x * x).exp() / PI.sqrt() / tail
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// scipy 1.17: `2 * norm.sf(z)` and `norm.ppf(p)`.
    #[test]
    fn agrees_with_scipy() {
        for (z, p) in [
            (0.0, 1.0),
            (0.1, 0.920_344_325_445_942),
            (1.0, 0.317_310_507_862_914_15),
            (1.959_963_984_540_054, 0.05),
            (2.8, 0.005_110_260_660_855_864),
            (2.9, 0.003_731_626_600_768_075),
            (5.0, 5.733_031_437_583_866e-7),
            (10.0, 1.523_970_604_832_094e-23),
            (30.0, 9.813_427_854_295_815e-198),
        ] {
            // Far out, the rounding of z² alone moves e^(−z²/2) by z²/2 units in the last place.
            let tolerance = f64::max(1e-13, z * z * f64::EPSILON);
            let ours = two_sided_p(z);
            assert!((ours / p - 1.0).abs() < tolerance, "z = {z}: {ours}");
        }
        for (p, z) in [
            (0.5, 0.0),
            (0.025, -1.959_963_984_540_054_5),
            (0.975, 1.959_963_984_540_054),
            (0.95, 1.644_853_626_951_472_2),
            (1.0e-10, -6.361_340_902_404_056),
            (0.999_9, 3.719_016_485_455_709),
        ] {
            assert!((quantile(p) - z).abs() < 1e-13, "p = {p}: {}", quantile(p));
        }
    }

    /// scipy: `quad` of φ(x)·P(Y > h | X = x) from h up, held to `multivariate_normal.cdf`.
    #[test]
    fn two_normals_agree_with_scipy() {
        for (h, both) in BOTH_ABOVE {
            let ours = both_above(h);
            assert!(
                (ours / both - 1.0).abs() < 1e-9,
                "h = {h}: {ours} against {both}"
            );
        }
    }

    #[rustfmt::skip]
    const BOTH_ABOVE: [(f64, f64); 9] = [
        (0.0, 0.333_333_333_333_333_4),
        (0.5, 0.163_319_521_309_063_4),
        (1.0, 0.062_514_094_709_663_83),
        (1.281_551_565_544_600_4, 0.032_401_523_218_343_53),
        (1.644_853_626_951_472_2, 0.012_189_428_767_174_928),
        (1.880_793_608_151_251, 0.005_961_470_259_597_188),
        (2.326_347_874_040_840_8, 0.001_293_924_418_264_657),
        (3.090_232_306_167_813, 5.425_916_819_456_72e-05),
        (4.0, 4.870_547_622_838_418e-07),
    ];
}
