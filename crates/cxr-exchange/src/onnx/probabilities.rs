//! From logits to calibrated probabilities, inside the graph.

use cxr_model::{LabelCalibration, ModelCard};

use super::graph::{Attribute, Graph};

/// Writes `probabilities` of `logits` `N×L`.
///
/// Labels that are calibrated by a factor and a summand go together; curves, column by column.
pub(super) fn write(graph: &mut Graph, card: &ModelCard, logits: &str) {
    let count = card.labels.len();
    let none = LabelCalibration::None {};
    let of_label: Vec<&LabelCalibration> = (0..count)
        .map(|label| {
            let calibration = card.calibration.as_ref();
            calibration
                .and_then(|all| all.labels.get(label))
                .unwrap_or(&none)
        })
        .collect();
    let (mut factors, mut summands) = (vec![1.; count], vec![0.; count]);
    for (label, calibration) in of_label.iter().enumerate() {
        match calibration {
            LabelCalibration::Temperature { temperature } => {
                factors[label] = (1. / temperature) as f32;
            }
            LabelCalibration::Platt { slope, intercept } => {
                (factors[label], summands[label]) = (*slope as f32, *intercept as f32);
            }
            _ => {}
        }
    }
    let is_plain = factors.iter().all(|&factor| factor == 1.) && summands.iter().all(|&s| s == 0.);
    let mut x = logits.to_owned();
    if !is_plain {
        let factors = graph.constant("calibration.factor", &[1, count], &factors);
        let summands = graph.constant("calibration.summand", &[1, count], &summands);
        x = graph.add("Mul", &[&x, &factors], &[]);
        x = graph.add("Add", &[&x, &summands], &[]);
    }
    let has_curve = |calibration: &&&LabelCalibration| {
        matches!(
            calibration,
            LabelCalibration::Isotonic { .. } | LabelCalibration::OperatingPoint { .. }
        )
    };
    if of_label.iter().find(has_curve).is_none() {
        graph.giving("probabilities", "probabilities", "Sigmoid", &[&x], &[]);
        return;
    }
    let sigmoid = graph.add("Sigmoid", &[&x], &[]);
    let mut columns = Vec::with_capacity(count);
    for (label, calibration) in of_label.iter().enumerate() {
        let (source, curve) = match calibration {
            LabelCalibration::Isotonic {
                logits: xs,
                probabilities: ys,
            } => (logits, Some((xs.clone(), ys.clone()))),
            LabelCalibration::OperatingPoint { probability } => {
                let (xs, ys) = (vec![0., *probability, 1.], vec![0., 0.5, 1.]);
                (sigmoid.as_str(), Some((xs, ys)))
            }
            _ => (sigmoid.as_str(), None),
        };
        let (begin, end) = (graph.integers(&[label]), graph.integers(&[label + 1]));
        let axis = graph.integers(&[1]);
        let column = graph.add("Slice", &[source, &begin, &end, &axis], &[]);
        columns.push(match curve {
            None => column,
            Some((xs, ys)) => interpolate(graph, &column, &xs, &ys),
        });
    }
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let axis = Attribute::Int("axis", 1);
    graph.giving(
        "probabilities",
        "probabilities",
        "Concat",
        &columns,
        &[axis],
    );
}

/// A curve that is linear between its points and constant beyond them, of a column `N×1`: its first value and, for each
/// piece, slope times the way within the piece.
fn interpolate(graph: &mut Graph, column: &str, xs: &[f64], ys: &[f64]) -> String {
    let pieces = xs.len().saturating_sub(1);
    let first = ys.first().copied().unwrap_or(0.5) as f32;
    let first = graph.unnamed_constant(&[1, 1], &[first]);
    if pieces == 0 {
        // A column of one value, however many rows there are.
        let zero = graph.unnamed_constant(&[1, 1], &[0.]);
        let zeros = graph.add("Mul", &[column, &zero], &[]);
        return graph.add("Add", &[&zeros, &first], &[]);
    }
    // Points that single precision cannot tell apart move to the next number.
    let mut points: Vec<f32> = Vec::with_capacity(xs.len());
    for &x in xs {
        let least = points.last().map_or(f32::NEG_INFINITY, |x| x.next_up());
        points.push((x as f32).max(least));
    }
    let slopes: Vec<f32> = (0..pieces)
        .map(|piece| {
            let width = f64::from(points[piece + 1]) - f64::from(points[piece]);
            ((ys[piece + 1] - ys[piece]) / width) as f32
        })
        .collect();
    let sides = [1, pieces];
    let low = graph.unnamed_constant(&sides, &points[..pieces]);
    let high = graph.unnamed_constant(&sides, &points[1..]);
    let slopes = graph.unnamed_constant(&sides, &slopes);
    let above = graph.add("Max", &[column, &low], &[]);
    let within = graph.add("Min", &[&above, &high], &[]);
    let way = graph.add("Sub", &[&within, &low], &[]);
    let rises = graph.add("Mul", &[&way, &slopes], &[]);
    let axis = graph.integers(&[1]);
    let rise = graph.add(
        "ReduceSum",
        &[&rises, &axis],
        &[Attribute::Int("keepdims", 1)],
    );
    graph.add("Add", &[&rise, &first], &[])
}
