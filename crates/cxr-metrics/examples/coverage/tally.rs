//! Counting how often intervals hold, on all cores with the same result.

use cxr_metrics::Interval;

/// The replicates' results in their order, whichever thread computed them.
pub(crate) fn replicate<T: Send>(count: usize, work: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut results: Vec<(usize, T)> = std::thread::scope(|scope| {
        let work = &work;
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || -> Vec<(usize, T)> {
                    let own = (thread..count).step_by(threads);
                    own.map(|at| (at, work(at as u64))).collect()
                })
            })
            .collect();
        let joined = handles.into_iter().map(|handle| match handle.join() {
            Ok(results) => results,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.flatten().collect()
    });
    results.sort_by_key(|&(at, _)| at);
    results.into_iter().map(|(_, result)| result).collect()
}

/// A share in percent with its Monte-Carlo error.
#[derive(Clone, Copy)]
pub(crate) struct Percent {
    pub(crate) value: f64,
    pub(crate) error: f64,
}

impl Percent {
    pub(crate) fn of(hits: usize, count: usize) -> Self {
        let p = hits as f64 / count as f64;
        Self {
            value: 100.0 * p,
            error: 100.0 * (p * (1.0 - p) / count as f64).sqrt(),
        }
    }

    /// Inside the bounds, allowing two Monte-Carlo errors (of a share of 5 %, where it is smaller).
    pub(crate) fn is_within(&self, bounds: [f64; 2], count: usize) -> bool {
        let slack = 2.0 * self.error.max(Self::of(count / 20, count).error);
        bounds[0] - slack <= self.value && self.value <= bounds[1] + slack
    }
}

impl std::fmt::Display for Percent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} ± {:.1}", self.value, self.error)
    }
}

/// How a kind of interval did.
pub(crate) struct Tally {
    pub(crate) defined: usize,
    pub(crate) undefined: usize,
    pub(crate) coverage: Percent,
    /// The truth lies below the interval, or above it.
    pub(crate) below: Percent,
    pub(crate) above: Percent,
    pub(crate) width: f64,
}

impl Tally {
    pub(crate) fn of(intervals: impl Iterator<Item = Option<Interval>>, truth: f64) -> Self {
        let (mut defined, mut undefined, mut below, mut above, mut width) = (0, 0, 0, 0, 0.0);
        for interval in intervals {
            let Some(interval) = interval else {
                undefined += 1;
                continue;
            };
            defined += 1;
            below += usize::from(truth < interval.lower);
            above += usize::from(truth > interval.upper);
            width += interval.upper - interval.lower;
        }
        Self {
            defined,
            undefined,
            coverage: Percent::of(defined - below - above, defined),
            below: Percent::of(below, defined),
            above: Percent::of(above, defined),
            width: width / defined as f64,
        }
    }
}

pub(crate) fn mean(values: impl Iterator<Item = Option<f64>>) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    for value in values.flatten() {
        sum += value;
        count += 1;
    }
    sum / f64::from(count)
}

/// The mean width of intervals for which the error were known: estimate ± one constant on the logit
/// scale, the constant such that 95 % of them hold.
pub(crate) fn width_with_known_error(estimates: &[f64], truth: f64) -> f64 {
    let logit = |p: f64| (p / (1.0 - p)).ln();
    let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
    let mut distances: Vec<f64> = estimates
        .iter()
        .map(|&p| (logit(p) - logit(truth)).abs())
        .collect();
    distances.sort_by(f64::total_cmp);
    let half = distances[(distances.len() * 95).div_ceil(100) - 1];
    let widths = estimates
        .iter()
        .map(|&p| logistic(logit(p) + half) - logistic(logit(p) - half));
    widths.sum::<f64>() / estimates.len() as f64
}
