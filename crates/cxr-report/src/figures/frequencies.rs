//! Figure 3: how often each label occurs, sorted.

use super::Figure;
use super::plot::{Frame, ticks};
use super::svg::{Anchor, Svg};
use crate::report::Report;
use crate::sections::count;

/// Training, validation, test.
const PARTS: [(&str, usize); 3] = [("training", 3), ("validation", 1), ("test", 2)];

pub(super) fn draw(report: &Report) -> Option<Figure> {
    let frequencies = report.evidence.frequencies.as_ref()?;
    let total = |counts: &[usize; 3]| counts.iter().sum::<usize>();
    let mut bars: Vec<(String, [usize; 3])> = frequencies.labels.clone();
    bars.push(("No finding".to_owned(), frequencies.without_finding));
    bars.sort_by(|a, b| total(&b.1).cmp(&total(&a.1)).then_with(|| a.0.cmp(&b.0)));

    let row = 24.0;
    let most = bars.iter().map(|(_, counts)| total(counts)).max()?.max(1) as f64;
    let frame = Frame {
        left: 150.0,
        top: 40.0,
        width: 460.0,
        height: row * bars.len() as f64,
        x: (0.0, most * 1.02),
        y: (0.0, 1.0),
    };
    let mut svg = Svg::default();
    let mut x = frame.left;
    for (part, series) in PARTS {
        svg.rect(&format!("fill{series}"), (x, 14.0), (14.0, 12.0));
        svg.text("label", (x + 20.0, 24.0), Anchor::Start, part);
        x += 40.0 + 7.5 * part.len() as f64;
    }
    let (values, decimals) = ticks(0.0, most, 5);
    for &tick in &values {
        let x = frame.at_x(tick);
        svg.line("grid", (x, frame.top), (x, frame.bottom()));
        let text = match decimals {
            0 => count(tick as usize),
            _ => tick.to_string(),
        };
        let place = (x, frame.bottom() + 17.0);
        svg.text("tick", place, Anchor::Middle, &text);
    }
    frame.name_x(&mut svg, "images");
    let images = total(&frequencies.images).max(1) as f64;
    for (at, (label, counts)) in bars.iter().enumerate() {
        let top = frame.top + row * at as f64 + 4.0;
        let middle = top + 12.0;
        let place = (frame.left - 8.0, middle);
        svg.text("label", place, Anchor::End, &label.replace('_', " "));
        let mut done = 0;
        for ((part, series), &n) in PARTS.iter().zip(counts) {
            let from = frame.at_x(done as f64);
            done += n;
            let size = (frame.at_x(done as f64) - from, row - 8.0);
            let title = format!("{label}: {} {part} images", count(n));
            svg.titled_rect(&format!("fill{series}"), (from, top), size, &title);
        }
        let share = done as f64 / images * 100.0;
        let text = format!("{} ({share:.1} %)", count(done));
        let place = (frame.at_x(done as f64) + 6.0, middle);
        svg.text("small", place, Anchor::Start, &text);
    }
    svg.line(
        "axis",
        (frame.left, frame.top),
        (frame.left, frame.bottom()),
    );
    Some(Figure {
        name: "figure3".to_owned(),
        title: "Figure 3. Label frequencies".to_owned(),
        caption: format!(
            "Images with each label among the {} that are available, sorted. An image may have several labels; \
             percentages are of all images.",
            count(total(&frequencies.images))
        ),
        width: 740.0,
        height: frame.bottom() + 52.0,
        body: svg.into_body(),
    })
}
