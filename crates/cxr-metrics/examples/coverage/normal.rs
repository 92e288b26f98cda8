//! The standard normal distribution: the crate's own is private, and a check needs another anyway.

use std::f64::consts::SQRT_2;

/// Φ(x): Marsaglia's (2004) series in the middle and a continued fraction in the tails.
pub(crate) fn cumulative(x: f64) -> f64 {
    let z = x.abs();
    let upper = if z < 3.0 {
        // 1/2 − φ(z)·(z + z³/3 + z⁵/15 + …)
        let (mut term, mut sum, mut k) = (z, z, 1.0);
        while term > 1e-18 {
            k += 2.0;
            term *= z * z / k;
            sum += term;
        }
        0.5 - density(z) * sum
    } else {
        let mut tail = z;
        for k in (1..=80).rev() {
            tail = z + f64::from(k) / tail;
        }
        density(z) / tail
    };
    if x < 0.0 { upper } else { 1.0 - upper }
}

fn density(z: f64) -> f64 {
    (-z * z / 2.0).exp() / (SQRT_2 * std::f64::consts::PI.sqrt())
}

/// Φ⁻¹(p), by bisection: it is asked for a handful of times.
pub(crate) fn quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-10.0, 10.0);
    for _ in 0..80 {
        let middle = (low + high) / 2.0;
        if cumulative(middle) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low + high) / 2.0
}
