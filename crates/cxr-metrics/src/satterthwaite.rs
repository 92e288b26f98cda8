//! The degrees of freedom of a sum of variances.

/// A variance that was estimated, and with how many degrees of freedom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Component {
    pub(crate) variance: f64,
    pub(crate) degrees_of_freedom: f64,
}

/// Those of the sum, (ΣV)²/Σ(V²/ν), by Satterthwaite (1946); `None` when all variances are 0.
pub(crate) fn satterthwaite(components: &[Component]) -> Option<f64> {
    let (mut sum, mut squares) = (0.0, 0.0);
    for component in components {
        sum += component.variance;
        squares += component.variance * component.variance / component.degrees_of_freedom;
    }
    (sum > 0.0).then(|| (sum * sum / squares).max(1.0))
}
