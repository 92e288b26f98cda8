//! Axes and legends.

use super::svg::{Anchor, Svg};

/// The rectangle that data are drawn in, and the values at its edges.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) x: (f64, f64),
    pub(super) y: (f64, f64),
}

impl Frame {
    pub(super) fn at_x(&self, value: f64) -> f64 {
        self.left + (value - self.x.0) / (self.x.1 - self.x.0) * self.width
    }

    pub(super) fn at_y(&self, value: f64) -> f64 {
        self.top + (self.y.1 - value) / (self.y.1 - self.y.0) * self.height
    }

    pub(super) fn at(&self, x: f64, y: f64) -> (f64, f64) {
        (self.at_x(x), self.at_y(y))
    }

    pub(super) fn right(&self) -> f64 {
        self.left + self.width
    }

    pub(super) fn bottom(&self) -> f64 {
        self.top + self.height
    }

    /// Grid lines and numbers along the lower edge.
    pub(super) fn draw_x(&self, svg: &mut Svg, ticks: &[f64], decimals: usize) {
        for &tick in ticks {
            let x = self.at_x(tick);
            svg.line("grid", (x, self.top), (x, self.bottom()));
            let place = (x, self.bottom() + 17.0);
            svg.text("tick", place, Anchor::Middle, &shown(tick, decimals));
        }
    }

    /// Grid lines and numbers along the left edge.
    pub(super) fn draw_y(&self, svg: &mut Svg, ticks: &[f64], decimals: usize) {
        for &tick in ticks {
            let y = self.at_y(tick);
            svg.line("grid", (self.left, y), (self.right(), y));
            let place = (self.left - 8.0, y + 4.0);
            svg.text("tick", place, Anchor::End, &shown(tick, decimals));
        }
    }

    pub(super) fn name_x(&self, svg: &mut Svg, name: &str) {
        let place = (self.left + self.width / 2.0, self.bottom() + 38.0);
        svg.text("axis-name", place, Anchor::Middle, name);
    }

    pub(super) fn name_y(&self, svg: &mut Svg, distance: f64, name: &str) {
        let place = (self.left - distance, self.top + self.height / 2.0);
        svg.turned_text("axis-name", place, Anchor::Middle, -90.0, name);
    }

    /// Cuts off what is drawn until the group is closed at the frame's edges.
    pub(super) fn open_clipped(&self, svg: &mut Svg, id: &str) {
        svg.raw(&format!(
            r#"<clipPath id="{id}"><rect x="{}" y="{}" width="{}" height="{}"/></clipPath>"#,
            self.left, self.top, self.width, self.height
        ));
        svg.open_group(&format!(r#"clip-path="url(#{id})""#));
    }
}

/// A number as it stands at an axis, with a true minus.
pub(super) fn shown(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let is_zero = text.chars().all(|c| c == '0' || c == '.');
    if value < 0.0 && !is_zero {
        format!("−{text}")
    } else {
        text
    }
}

/// Round numbers from `low` to `high`, about `wanted` of them, and the decimals they need.
pub(super) fn ticks(low: f64, high: f64, wanted: usize) -> (Vec<f64>, usize) {
    let rough = (high - low) / wanted.max(1) as f64;
    // Written so that a NaN ends here too.
    if !(rough > 0.0 && rough.is_finite()) {
        return (vec![low], 2);
    }
    let power = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    let step = steps
        .into_iter()
        .map(|step| step * power)
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(10.0 * power);
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    let values = (first..=last).map(|n| n as f64 * step).collect();
    let decimals = (-step.log10().floor()).max(0.0) as usize;
    (values, decimals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(
            ticks(0.0, 1.0, 5),
            (vec![0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0], 1)
        );
        let (values, decimals) = ticks(-0.013, 0.152, 6);
        assert_eq!(decimals, 2);
        assert!(values.iter().all(|v| (-0.013..=0.152).contains(v)));
        assert_eq!(values.len(), 4, "{values:?}");
        assert_eq!(ticks(0.0, 63_212.0, 6).0.last(), Some(&60_000.0));
        assert_eq!(ticks(1.0, 1.0, 5).0, [1.0]);
    }

    #[test]
    fn a_minus_is_a_minus_and_zero_has_none() {
        assert_eq!(shown(-0.5, 1), "−0.5");
        assert_eq!(shown(-0.01, 1), "0.0");
    }
}
