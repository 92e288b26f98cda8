//! Figure 1: the loss of one positive label against its logit.

use super::palette::{of_loss, of_tau};
use super::plot::{Frame, ticks};
use super::svg::{Anchor, Svg};
use super::{Figure, escape};
use crate::report::Report;

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

pub(super) fn draw(report: &Report) -> Figure {
    let mut taus = PAPER_TAUS.to_vec();
    for run in &report.runs {
        taus.extend(run.loss_parameters.get("tau").copied());
    }
    taus.sort_by(f64::total_cmp);
    taus.dedup();

    let frame = Frame {
        left: 62.0,
        top: 16.0,
        width: 460.0,
        height: 320.0,
        x: (-3.0, 3.0),
        y: (0.0, 8.0),
    };
    let mut svg = Svg::default();
    let (x_ticks, x_decimals) = ticks(frame.x.0, frame.x.1, 6);
    let (y_ticks, y_decimals) = ticks(frame.y.0, frame.y.1, 4);
    frame.draw_x(&mut svg, &x_ticks, x_decimals);
    frame.draw_y(&mut svg, &y_ticks, y_decimals);
    frame.name_x(&mut svg, "logit of the positive label");
    frame.name_y(&mut svg, 40.0, "loss");

    let mut curves: Vec<(String, usize, bool, Vec<f64>)> = Vec::new();
    let logits: Vec<f64> = (0..=240).map(|n| -3.0 + f64::from(n) / 40.0).collect();
    for &tau in &taus {
        let losses = logits.iter().map(|&logit| fzlpr_loss(logit, tau));
        let name = if tau == 1.0 {
            "FZLPR, τ = 1.0 (ZLPR)".to_owned()
        } else {
            format!("FZLPR, τ = {tau:?}")
        };
        curves.push((name, of_tau(tau), false, losses.collect()));
    }
    let focal = logits.iter().map(|&logit| focal_loss(logit, 2.0));
    let series = of_loss("focal", None);
    curves.push(("focal, γ = 2".to_owned(), series, true, focal.collect()));

    frame.open_clipped(&mut svg, "figure1-frame");
    for (name, series, dashed, losses) in &curves {
        let points: Vec<(f64, f64)> = logits
            .iter()
            .zip(losses)
            .map(|(&logit, &loss)| frame.at(logit, loss))
            // Far above the frame nothing is seen, and a renderer need not cope with it.
            .filter(|&(_, y)| y > -200.0)
            .collect();
        let class = format!("curve line{series}{}", if *dashed { " dashed" } else { "" });
        svg.path(
            &class,
            &points,
            &format!(r#"aria-label="{}""#, escape(name)),
        );
    }
    svg.close_group();
    legend(&mut svg, (frame.right() + 22.0, frame.top + 14.0), &curves);
    Figure {
        name: "figure1".to_owned(),
        title: "Figure 1. Loss of one positive label".to_owned(),
        caption: "Loss of an image with a single, positive label against that label's logit: FZLPR \
                  with each τ, and focal loss with γ = 2. A smaller τ makes a wrong logit cost more \
                  and a right one less. Drawn from the formulas, not from runs."
            .to_owned(),
        width: 740.0,
        height: 396.0,
        body: svg.into_body(),
    }
}

fn legend(svg: &mut Svg, at: (f64, f64), curves: &[(String, usize, bool, Vec<f64>)]) {
    for (place, (name, series, dashed, _)) in curves.iter().enumerate() {
        let y = at.1 + 22.0 * place as f64;
        let class = format!("curve line{series}{}", if *dashed { " dashed" } else { "" });
        svg.line(&class, (at.0, y), (at.0 + 26.0, y));
        svg.text("label", (at.0 + 34.0, y + 4.0), Anchor::Start, name);
    }
}
