//! Figure 2: the network, from images to logits.

use super::Figure;
use super::svg::{Anchor, Svg};
use crate::report::Report;
use crate::sections::count;
use cxr_run::NetworkPart;

/// Sides of a part's box, and the arrow from it to the next.
const BOX: (f64, f64) = (440.0, 46.0);
const ARROW: f64 = 18.0;
const LEFT: f64 = 20.0;
const TOP: f64 = 34.0;
/// Where the columns of numbers end.
const COLUMNS: [(&str, f64); 3] = [
    ("maps", 560.0),
    ("parameters", 650.0),
    ("million products", 770.0),
];

/// The network of the first run that says what it has; `None` where none does.
pub(super) fn draw(report: &Report) -> Option<Figure> {
    let run = report.runs.iter().find(|run| !run.network.is_empty())?;
    let parts = &run.network;
    let others = report
        .runs
        .iter()
        .any(|other| !other.network.is_empty() && other.network != *parts);
    let mut svg = Svg::default();
    for (name, x) in COLUMNS {
        svg.text("small", (x, TOP - 12.0), Anchor::End, name);
    }
    let mut top = TOP;
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            arrow(&mut svg, top);
            top += ARROW;
        }
        draw_part(&mut svg, top, part);
        top += BOX.1;
    }
    let total = |of: fn(&NetworkPart) -> u64| parts.iter().map(of).sum::<u64>();
    let numbers = [
        String::new(),
        count(total(|part| part.parameters) as usize),
        millions(total(|part| part.multiply_adds)),
    ];
    let place = top + 24.0;
    svg.text("head", (LEFT, place), Anchor::Start, "in all");
    for ((_, x), text) in COLUMNS.into_iter().zip(numbers) {
        svg.text("head", (x, place), Anchor::End, &text);
    }
    let mut caption = "From an image to the logits. Of each part, its layers with products or pooling, the channels, rows and \
                       columns of its output, the values of its parameters with running statistics, and the \
                       multiplications that an image takes."
        .to_owned();
    if others {
        caption += &format!(
            " This is the network of `{}`; other runs have others.",
            run.variant
        );
    }
    Some(Figure {
        name: "figure2".to_owned(),
        title: "Figure 2. The network".to_owned(),
        caption,
        width: 790.0,
        height: top + 44.0,
        body: svg.into_body(),
    })
}

/// From the box above to the one below, which begins an arrow's length under `top`.
fn arrow(svg: &mut Svg, top: f64) {
    let (x, tip) = (LEFT + BOX.0 / 2.0, top + ARROW - 2.0);
    svg.line("axis", (x, top + 2.0), (x, tip));
    svg.path(
        "axis",
        &[(x - 4.0, tip - 5.0), (x, tip), (x + 4.0, tip - 5.0)],
        "",
    );
}

fn draw_part(svg: &mut Svg, top: f64, part: &NetworkPart) {
    let layers: Vec<String> = (part.layers.iter())
        .map(|(kind, count)| match count {
            1 => kind.clone(),
            _ => format!("{count} × {kind}"),
        })
        .collect();
    let layers = match layers.is_empty() {
        true => "normalisation and activation".to_owned(),
        false => layers.join(", "),
    };
    let name = match (part.name.as_str(), part.is_head) {
        ("", true) => "head",
        ("", false) => "last layers",
        (name, _) => name,
    };
    // The series of training and of test images, which are apart on paper too.
    let class = if part.is_head {
        "axis line2"
    } else {
        "axis line3"
    };
    svg.titled_rect(class, (LEFT, top), BOX, &format!("{name}: {layers}"));
    svg.text("head", (LEFT + 12.0, top + 19.0), Anchor::Start, name);
    let shown = shortened(&layers, 68);
    svg.text("small", (LEFT + 12.0, top + 36.0), Anchor::Start, &shown);
    let numbers = [
        format!("{}×{}×{}", part.channels, part.height, part.width),
        count(part.parameters as usize),
        millions(part.multiply_adds),
    ];
    for ((_, x), text) in COLUMNS.into_iter().zip(numbers) {
        svg.text("label", (x, top + 27.0), Anchor::End, &text);
    }
}

/// What fits a box; a page shows all of it on hover.
fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most - 1).collect();
    format!("{}…", kept.trim_end_matches([',', ' ']))
}

fn millions(products: u64) -> String {
    let millions = products as f64 / 1e6;
    match millions {
        millions if millions >= 10.0 => count(millions.round() as usize),
        millions => format!("{millions:.1}"),
    }
}
