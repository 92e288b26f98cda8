//! Student's t distribution with any real number of degrees of freedom from 1 up.
//!
//! The two-sided tail is a regularised incomplete beta function, P(|T| > t) = I_x(ν/2, 1/2) with
//! x = ν/(ν + t²), evaluated by its continued fraction (Lentz's method; Abramowitz & Stegun 26.5.8).

use std::f64::consts::PI;

use crate::normal;

/// From so many degrees of freedom on, two terms of Cornish and Fisher's expansion about the normal
/// distribution are exact, and the continued fraction begins to lose digits.
const EXPANSION_FROM: f64 = 1e6;

/// P(|T| > |t|): the p-value of a two-sided test.
pub(crate) fn two_sided_p(t: f64, degrees_of_freedom: f64) -> f64 {
    let t = t.abs();
    if degrees_of_freedom >= EXPANSION_FROM {
        let nu = degrees_of_freedom;
        let first = (t.powi(3) + t) / (4.0 * nu);
        let second = (13.0 * t.powi(5) + 8.0 * t.powi(3) + 3.0 * t) / (96.0 * nu * nu);
        // Beyond 40 the tail is 0 in `f64` and the expansion need not hold.
        return normal::two_sided_p(if t > 40.0 { t } else { t - first + second });
    }
    if t == 0.0 {
        return 1.0;
    }
    let (a, b) = (degrees_of_freedom / 2.0, 0.5);
    let x = 1.0 / (1.0 + t / degrees_of_freedom * t);
    let one_minus_x = 1.0 / (1.0 + degrees_of_freedom / t / t);
    // x^a (1−x)^b / B(a, b); ln x through the smaller of x and 1−x, so that no digit is lost.
    let ln_x = if x > 0.5 {
        (-one_minus_x).ln_1p()
    } else {
        x.ln()
    };
    let front = (a * ln_x).exp() * one_minus_x.sqrt() * half_step_of_gamma(a) / PI.sqrt();
    if x < (a + 1.0) / (a + b + 2.0) {
        front * continued_fraction(a, b, x) / a
    } else {
        1.0 - front * continued_fraction(b, a, one_minus_x) / b
    }
}

/// The t with P(|T| > t) = `p`, for 0 < p < 1: Newton's method, kept between the quantiles of the
/// normal distribution and of one degree of freedom.
pub(crate) fn two_sided_quantile(p: f64, degrees_of_freedom: f64) -> f64 {
    let normal = -normal::quantile(p / 2.0);
    // The first two terms of Cornish and Fisher's expansion.
    let (z, nu) = (normal, degrees_of_freedom);
    let expansion = z
        + (z.powi(3) + z) / (4.0 * nu)
        + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * nu * nu);
    if degrees_of_freedom >= EXPANSION_FROM {
        return expansion;
    }
    let cauchy = 1.0 / (PI * p / 2.0).tan();
    let (mut low, mut high) = (normal.min(cauchy), normal.max(cauchy));
    let mut t = expansion.clamp(low, high);
    for _ in 0..200 {
        let excess = two_sided_p(t, degrees_of_freedom) - p;
        if excess > 0.0 {
            low = t;
        } else {
            high = t;
        }
        let newton = t + excess / (2.0 * density(t, degrees_of_freedom));
        let next = if newton > low && newton < high {
            newton
        } else {
            (low + high) / 2.0
        };
        if (next - t).abs() <= 1e-15 * t.abs() {
            return next;
        }
        t = next;
    }
    t
}

fn density(t: f64, degrees_of_freedom: f64) -> f64 {
    let tail = -(degrees_of_freedom + 1.0) / 2.0 * (t * t / degrees_of_freedom).ln_1p();
    tail.exp() * half_step_of_gamma(degrees_of_freedom / 2.0) / (PI * degrees_of_freedom).sqrt()
}

/// Γ(a + 1/2) / Γ(a): the asymptotic series for large a, brought down by Γ(a + 1) = a·Γ(a).
fn half_step_of_gamma(a: f64) -> f64 {
    let (mut a, mut factor) = (a, 1.0);
    while a < 20.0 {
        factor *= a / (a + 0.5);
        a += 1.0;
    }
    let squared = 1.0 / (a * a);
    // ln Γ(a+½) − ln Γ(a) = ½ ln a − 1/(8a) + 1/(192a³) − 1/(640a⁵) + 17/(14336a⁷) − …
    let series = -1.0 / 8.0
        + squared * (1.0 / 192.0 + squared * (-1.0 / 640.0 + squared * (17.0 / 14_336.0)));
    factor * (series / a).exp() * a.sqrt()
}

/// The continued fraction of I_x(a, b), which converges quickly for x < (a+1)/(a+b+2).
fn continued_fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away_from_zero = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for step in 1..1_000_000 {
        let m = f64::from(step);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for numerator in [even, odd] {
            d = 1.0 / away_from_zero(1.0 + numerator * d);
            c = away_from_zero(1.0 + numerator / c);
            change = c * d;
            fraction *= change;
        }
        if (change - 1.0).abs() < 1e-16 {
            break;
        }
    }
    fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    /// scipy: `2 * t.sf(x, df)` and `t.isf(p / 2, df)`.
    #[test]
    fn agrees_with_scipy() {
        for (t, df, p) in TAILS {
            let ours = two_sided_p(t, df);
            assert!(
                (ours / p - 1.0).abs() < 2e-12,
                "t = {t}, df = {df}: {ours} against {p}"
            );
            assert_eq!(ours, two_sided_p(-t, df));
        }
        for (p, df, t) in QUANTILES {
            let ours = two_sided_quantile(p, df);
            assert!(
                (ours / t - 1.0).abs() < 1e-12,
                "p = {p}, df = {df}: {ours} against {t}"
            );
        }
    }

    #[test]
    fn few_degrees_have_closed_forms() {
        for p in [0.9, 0.5, 0.05, 0.01, 1e-6] {
            let one = two_sided_quantile(p, 1.0);
            assert!((one * (PI * p / 2.0).tan() - 1.0).abs() < 1e-12);
            let two = (2.0 / (p * (2.0 - p)) - 2.0_f64).sqrt();
            assert!((two_sided_quantile(p, 2.0) / two - 1.0).abs() < 1e-12);
        }
        assert_eq!(two_sided_p(0.0, 3.5), 1.0);
        assert_eq!(two_sided_p(1e200, 3.5), 0.0);
    }

    #[rustfmt::skip]
    const TAILS: [(f64, f64, f64); 15] = [
        (0.1, 1.0, 0.936_548_965_138_893),
        (12.7, 1.0, 0.050_024_327_689_344_165),
        (3.0, 1.5, 0.133_547_754_254_913_28),
        (2.0, 3.3, 0.130_958_864_439_449_4),
        (0.5, 9.7, 0.628_221_936_328_696_5),
        (2.2, 9.7, 0.053_245_904_740_854_18),
        (8.0, 9.7, 1.416_341_070_411_497_7e-05),
        (1.96, 29.5, 0.059_502_273_203_151_74),
        (40.0, 12.25, 2.342_890_236_617_204_4e-14),
        (0.001, 4.0, 0.999_250_000_156_25),
        (2.5, 300.75, 0.012_951_767_520_049_607),
        (5.0, 25595.0, 5.770_887_848_417_141e-07),
        (1.0, 3000000.0, 0.317_310_588_519_815_64),
        (6.5, 1000000.0, 8.035_754_335_303_44e-11),
        (1.97, 5000000000.0, 0.048_838_370_615_544_816),
    ];
    #[rustfmt::skip]
    const QUANTILES: [(f64, f64, f64); 12] = [
        (0.05, 1.0, 12.706_204_736_174_705),
        (0.05, 1.01, 12.412_738_499_102_55),
        (0.05, 2.7, 3.392_148_383_173_752_4),
        (0.1, 4.5, 2.065_575_888_878_525),
        (0.01, 9.7, 3.191_361_258_571_774),
        (0.05, 9.7, 2.237_515_123_700_105),
        (0.05, 14.99, 2.131_573_396_743_962),
        (0.05, 250.3, 1.969_486_911_388_576_5),
        (1e-09, 6.5, 51.336_020_430_049_7),
        (0.9, 3.3, 0.135_590_918_888_784_83),
        (0.05, 1000000.0, 1.959_966_356_814_107_2),
        (0.05, 1000000000000.0, 1.959_963_984_542_426_4),
    ];
}
