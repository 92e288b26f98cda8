use crate::error::MetricError;

/// Holm's (1979) step-down correction of p-values for testing several hypotheses at once, such as
/// fourteen labels: adjusted p-values in the order given, to compare with the error rate wanted
/// for the whole family. Never less powerful than Bonferroni's.
///
/// ```
/// let adjusted = cxr_metrics::holm(&[0.01, 0.04, 0.03])?;
/// assert_eq!(adjusted, [0.03, 0.06, 0.06]);
/// # Ok::<(), cxr_metrics::MetricError>(())
/// ```
///
/// Tests without a p-value go into [`holm_defined`].
///
/// # Errors
/// [`MetricError::OutOfRange`] for a value that is not in [0, 1].
pub fn holm(p_values: &[f64]) -> Result<Vec<f64>, MetricError> {
    if let Some(&value) = p_values.iter().find(|p| !(0.0..=1.0).contains(*p)) {
        return Err(MetricError::OutOfRange {
            what: "a p-value",
            range: "[0, 1]",
            value,
        });
    }
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut largest: f64 = 0.0;
    for (rank, &at) in order.iter().enumerate() {
        let hypotheses_left = (p_values.len() - rank) as f64;
        largest = largest.max(hypotheses_left * p_values[at]).min(1.0);
        adjusted[at] = largest;
    }
    Ok(adjusted)
}

/// [`holm`] for the tests that have a p-value; the others, such as of labels that lack a class, stay
/// `None` and do not count as hypotheses.
///
/// ```
/// let adjusted = cxr_metrics::holm_defined(&[Some(0.01), None, Some(0.04)])?;
/// assert_eq!(adjusted, [Some(0.02), None, Some(0.04)]);
/// # Ok::<(), cxr_metrics::MetricError>(())
/// ```
///
/// # Errors
/// As for [`holm`].
pub fn holm_defined(p_values: &[Option<f64>]) -> Result<Vec<Option<f64>>, MetricError> {
    let defined: Vec<f64> = p_values.iter().copied().flatten().collect();
    let mut adjusted = holm(&defined)?.into_iter();
    let in_place = p_values
        .iter()
        .map(|p| p.and_then(|_| adjusted.next()))
        .collect();
    Ok(in_place)
}
