//! The paper's figures, drawn from runs: SVG for pages and print, PNG for the rest.
//!
//! One palette runs through all of them ([`Palette`]), chosen so that its colours stay apart for
//! colour-blind readers; a loss or τ has the same colour everywhere, and where colours alone would not
//! do, lines differ by dashes too.

mod frequencies;
mod losses;
mod network;
mod palette;
mod pictures;
mod plot;
mod roc;
mod svg;
mod tau;

use std::sync::{Arc, LazyLock};

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{self, fontdb};

pub use losses::{focal_loss, fzlpr_loss};
pub use palette::Palette;
pub(crate) use palette::STYLE;
pub use pictures::heat_map_grid;
pub(crate) use svg::{data_uri, escape};

use crate::error::ReportError;
use crate::report::Report;

/// A drawing with its words.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// The name of its files without extension, such as `figure5`.
    pub name: String,
    /// Its heading, such as `Figure 5. ROC curve per finding`.
    pub title: String,
    /// What a reader must know to read it.
    pub caption: String,
    width: f64,
    height: f64,
    body: String,
}

/// The names that figures may have.
pub(crate) const NAMES: [&str; 8] = [
    "figure1",
    "figure2",
    "figure3",
    "figure4",
    "figure5",
    "figure6",
    "figure7",
    "figure-tau",
];

/// All figures for which the report has what they show, in the paper's order.
pub fn figures(report: &Report) -> Vec<Figure> {
    let mut figures = vec![losses::draw(report)];
    figures.extend(network::draw(report));
    figures.extend(frequencies::draw(report));
    figures.extend(pictures::draw_samples(report));
    figures.extend(roc::draw(report));
    figures.extend(tau::draw_differences(report));
    figures.extend(tau::draw_means(report));
    figures.extend(pictures::draw_grad_cam(report));
    figures
}

impl Figure {
    /// The file: complete, with light colours, naming no other file.
    pub fn to_svg(&self) -> String {
        let (width, height) = (self.width, self.height);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" class=\"drawing\"><title>{}</title><style>{}</style>\
             <rect class=\"ground\" width=\"{width}\" height=\"{height}\"/>{}</svg>\n",
            svg::escape(&self.title),
            Palette::LIGHT.resolve(STYLE),
            self.body
        )
    }

    /// The element for a page whose style sheet has the palette.
    pub(crate) fn to_inline_svg(&self) -> String {
        let (width, height) = (self.width, self.height);
        format!(
            "<svg viewBox=\"0 0 {width} {height}\" class=\"drawing\" role=\"img\" \
             aria-label=\"{}\">{}</svg>",
            svg::escape(&self.title),
            self.body
        )
    }

    /// The same at twice the size in pixels, with the bundled font.
    ///
    /// # Errors
    /// [`ReportError::Draw`].
    pub fn to_png(&self) -> Result<Vec<u8>, ReportError> {
        const SCALE: f32 = 2.0;
        let refuse = |problem: String| ReportError::Draw {
            figure: self.name.clone(),
            problem,
        };
        let options = usvg::Options {
            font_family: "DejaVu Sans".to_owned(),
            fontdb: Arc::clone(&FONTS),
            ..usvg::Options::default()
        };
        let tree = usvg::Tree::from_str(&self.to_svg(), &options)
            .map_err(|error| refuse(error.to_string()))?;
        let size = tree.size().to_int_size();
        let (width, height) = (size.width() * SCALE as u32, size.height() * SCALE as u32);
        let mut pixels = Pixmap::new(width, height)
            .ok_or_else(|| refuse(format!("{width}×{height} pixels are no picture")))?;
        resvg::render(
            &tree,
            Transform::from_scale(SCALE, SCALE),
            &mut pixels.as_mut(),
        );
        pixels
            .encode_png()
            .map_err(|error| refuse(error.to_string()))
    }
}

/// The only fonts: those of the machine are never looked at.
static FONTS: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| {
    let mut fonts = fontdb::Database::new();
    fonts.load_font_data(dejavu::sans::regular().to_vec());
    fonts.load_font_data(dejavu::sans::bold().to_vec());
    Arc::new(fonts)
});
