//! Figure 1: the loss of one positive label against its logit.

use super::palette::{of_loss, of_tau};
use super::plot::{Frame, ticks};
use super::svg::{Anchor, Svg};
use super::{Figure, escape};
use crate::report::Report;
use cxr_run::RunMetrics;

/// Focal loss (Lin et al. 2017, equation 4) of one positive label at a logit, without α.
pub fn focal_loss(logit: f64, gamma: f64) -> f64 {
    // −ln σ(x) = ln(1 + e^−x), and 1 − σ(x) = σ(−x).
    let log = softplus(-logit);
    let miss = (-softplus(logit)).exp();
    miss.powf(gamma) * log
}

/// FZLPR (Hanif et al. 2025) of an image whose only label is positive, at that label's logit; τ = 1
/// is ZLPR.
pub fn fzlpr_loss(logit: f64, tau: f64) -> f64 {
    softplus(-logit / tau)
}

/// ln(1 + e^x) without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

const PAPER_TAUS: [f64; 6] = [0.1, 0.2, 0.4, 0.6, 0.8, 1.0];

/// A loss over the logits.
struct Curve {
    name: String,
    series: usize,
    dashed: bool,
    /// Whether a run left it, and no formula here.
    is_own: bool,
    points: Vec<(f64, f64)>,
}

/// The losses whose formulas stand here.
const OF_THE_PAPER: [&str; 4] = ["bce", "focal", "zlpr", "fzlpr"];

/// The paper's curves, unless all runs have other losses, and the curve that each other loss has left in its run.
pub(super) fn draw(report: &Report) -> Figure {
    let is_papers =
        |run: &RunMetrics| run.loss_curve.is_empty() && OF_THE_PAPER.contains(&run.loss.as_str());
    let with_paper = report.runs.is_empty() || report.runs.iter().any(is_papers);
    let own = own_curves(report, with_paper);
    let with_paper = with_paper || own.is_empty();
    let mut curves = match with_paper {
        true => paper_curves(report),
        false => Vec::new(),
    };
    curves.extend(own);
    let losses = || curves.iter().flat_map(|curve| &curve.points);
    let frame = Frame {
        left: 62.0,
        top: 16.0,
        width: 460.0,
        height: 320.0,
        x: (-3.0, 3.0),
        y: match with_paper {
            true => (0.0, 8.0),
            // Of other losses nothing is known beforehand.
            false => (
                losses().fold(0.0, |low, &(_, loss)| loss.min(low)),
                losses().fold(1e-3, |high, &(_, loss)| loss.max(high)),
            ),
        },
    };
    let mut svg = Svg::default();
    let (x_ticks, x_decimals) = ticks(frame.x.0, frame.x.1, 6);
    let (y_ticks, y_decimals) = ticks(frame.y.0, frame.y.1, 4);
    frame.draw_x(&mut svg, &x_ticks, x_decimals);
    frame.draw_y(&mut svg, &y_ticks, y_decimals);
    frame.name_x(&mut svg, "logit of the positive label");
    frame.name_y(&mut svg, 40.0, "loss");

    frame.open_clipped(&mut svg, "figure1-frame");
    for curve in &curves {
        let points: Vec<(f64, f64)> = (curve.points.iter())
            .map(|&(logit, loss)| frame.at(logit, loss))
            // Far above the frame nothing is seen, and a renderer need not cope with it.
            .filter(|&(_, y)| y > -200.0)
            .collect();
        let name = format!(r#"aria-label="{}""#, escape(&curve.name));
        svg.path(&curve.class(), &points, &name);
    }
    svg.close_group();
    legend(&mut svg, (frame.right() + 22.0, frame.top + 14.0), &curves);
    Figure {
        name: "figure1".to_owned(),
        title: "Figure 1. Loss of one positive label".to_owned(),
        caption: caption(&curves, with_paper),
        width: 740.0,
        height: 396.0,
        body: svg.into_body(),
    }
}

fn caption(curves: &[Curve], with_paper: bool) -> String {
    const WHAT: &str =
        "Loss of an image with a single, positive label against that label's logit: ";
    const PAPER: &str = "FZLPR with each τ, and focal loss with γ = 2. A smaller τ makes a wrong logit cost more \
                         and a right one less. Drawn from the formulas, not from runs.";
    let has_own = curves.iter().any(|curve| curve.is_own);
    match (with_paper, has_own) {
        (true, false) => format!("{WHAT}{PAPER}"),
        (true, true) => format!(
            "{WHAT}{PAPER} The other losses as the runs that trained with them computed them."
        ),
        (false, _) => {
            format!("{WHAT}each loss as the runs that trained with it computed it.")
        }
    }
}

fn paper_curves(report: &Report) -> Vec<Curve> {
    let mut taus = PAPER_TAUS.to_vec();
    for run in &report.runs {
        taus.extend(run.loss_parameters.get("tau").copied());
    }
    taus.sort_by(f64::total_cmp);
    taus.dedup();
    let logits = || (0..=240).map(|n| -3.0 + f64::from(n) / 40.0);
    let of_tau = |&tau: &f64| Curve {
        name: match tau {
            1.0 => "FZLPR, τ = 1.0 (ZLPR)".to_owned(),
            _ => format!("FZLPR, τ = {tau:?}"),
        },
        series: of_tau(tau),
        dashed: false,
        is_own: false,
        points: logits()
            .map(|logit| (logit, fzlpr_loss(logit, tau)))
            .collect(),
    };
    let focal = Curve {
        name: "focal, γ = 2".to_owned(),
        series: of_loss("focal", None),
        dashed: true,
        is_own: false,
        points: logits()
            .map(|logit| (logit, focal_loss(logit, 2.0)))
            .collect(),
    };
    taus.iter().map(of_tau).chain([focal]).collect()
}

/// The curve of each loss that left one, by the first run that has it.
fn own_curves(report: &Report, beside_paper: bool) -> Vec<Curve> {
    let mut firsts: Vec<&RunMetrics> = Vec::new();
    for run in report.runs.iter().filter(|run| !run.loss_curve.is_empty()) {
        let is_same = |first: &&RunMetrics| {
            (&first.loss, &first.loss_parameters) == (&run.loss, &run.loss_parameters)
        };
        if !firsts.iter().any(is_same) {
            firsts.push(run);
        }
    }
    let curves = firsts.iter().enumerate();
    curves
        .map(|(at, run)| Curve {
            name: name_of(run),
            is_own: true,
            // Beside the paper's curves one colour is free.
            series: if beside_paper { 0 } else { at % 8 },
            dashed: beside_paper && at > 0,
            points: run.loss_curve.iter().map(|&[x, y]| (x, y)).collect(),
        })
        .collect()
}

/// A loss with its parameters.
fn name_of(run: &RunMetrics) -> String {
    let parameters = run.loss_parameters.iter();
    let parameters = parameters.map(|(name, value)| format!(", {name} = {value}"));
    std::iter::once(run.loss.clone())
        .chain(parameters)
        .collect()
}

impl Curve {
    fn class(&self) -> String {
        let dashed = if self.dashed { " dashed" } else { "" };
        format!("curve line{}{dashed}", self.series)
    }
}

fn legend(svg: &mut Svg, at: (f64, f64), curves: &[Curve]) {
    for (place, curve) in curves.iter().enumerate() {
        let y = at.1 + 22.0 * place as f64;
        svg.line(&curve.class(), (at.0, y), (at.0 + 26.0, y));
        svg.text("label", (at.0 + 34.0, y + 4.0), Anchor::Start, &curve.name);
    }
}
