//! The colours of all figures, and what has which.

/// Colours by role, as hexadecimal RGB.
///
/// The series are those of Okabe and Ito (*Color Universal Design*, 2008) without its yellow, which a
/// white page swallows, with an indigo and a grey instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Palette {
    /// Behind everything.
    pub ground: &'static str,
    /// Text and axes.
    pub ink: &'static str,
    /// Text of less weight.
    pub muted: &'static str,
    /// Grid lines.
    pub grid: &'static str,
    /// Lines, bars and points.
    pub series: [&'static str; 8],
}

/// Colours that need not be distinguished by hue alone: lines of a higher number are dashed.
pub(super) const N_SERIES: usize = 8;

impl Palette {
    /// For white paper.
    pub const LIGHT: Self = Self {
        ground: "#ffffff",
        ink: "#1c1f24",
        muted: "#5b6370",
        grid: "#e3e6ea",
        series: [
            "#555b66", "#e69f00", "#009e73", "#0072b2", "#56b4e9", "#cc79a7", "#d55e00", "#4b3fa0",
        ],
    };
    /// For a dark screen.
    pub const DARK: Self = Self {
        ground: "#15181d",
        ink: "#e8eaed",
        muted: "#a3abb8",
        grid: "#2d333c",
        series: [
            "#b4bac4", "#f2b134", "#2bc196", "#3d9be0", "#a5dcff", "#e59fc6", "#ff8540", "#9d90f5",
        ],
    };

    /// A style sheet with its variables replaced by the colours.
    pub(super) fn resolve(&self, style: &str) -> String {
        let mut text = style.to_owned();
        for (name, colour) in self.variables() {
            text = text.replace(&format!("var(--{name})"), colour);
        }
        text
    }

    /// The colours as a style sheet's variables.
    pub(crate) fn declarations(&self) -> String {
        let declare = |(name, colour): (String, &str)| format!("--{name}:{colour};");
        self.variables().into_iter().map(declare).collect()
    }

    fn variables(&self) -> Vec<(String, &'static str)> {
        let series = self.series.into_iter().enumerate();
        [
            ("ground", self.ground),
            ("ink", self.ink),
            ("muted", self.muted),
            ("grid", self.grid),
        ]
        .into_iter()
        .map(|(name, colour)| (name.to_owned(), colour))
        .chain(series.map(|(at, colour)| (format!("series{at}"), colour)))
        .collect()
    }
}

/// What the classes of a drawing look like: `line3` is a line of series 3, `fill3` an area.
pub(crate) const STYLE: &str = "\
.drawing text{font-family:'DejaVu Sans',Verdana,Arial,sans-serif;font-size:12px;fill:var(--ink)}\
.drawing .ground{fill:var(--ground)}\
.drawing .tick{fill:var(--muted)}\
.drawing .small{font-size:11px;fill:var(--muted)}\
.drawing .axis-name{font-size:13px}\
.drawing .head{font-size:13px;font-weight:bold}\
.drawing .grid{stroke:var(--grid);stroke-width:1}\
.drawing .axis{stroke:var(--muted);stroke-width:1;fill:none}\
.drawing .chance{stroke:var(--muted);stroke-width:1;stroke-dasharray:3 4}\
.drawing .curve{fill:none;stroke-width:2;stroke-linejoin:round}\
.drawing .error{stroke-width:1.5;fill:none}\
.drawing .published{stroke-dasharray:5 4;stroke-width:1.5}\
.drawing .dashed{stroke-dasharray:7 4}\
.drawing .right{fill:var(--series2)}\
.drawing .wrong{fill:var(--series6)}\
.drawing .hit{fill:none;stroke:transparent;stroke-width:14}\
.drawing .line0{stroke:var(--series0)}.drawing .fill0{fill:var(--series0)}\
.drawing .line1{stroke:var(--series1)}.drawing .fill1{fill:var(--series1)}\
.drawing .line2{stroke:var(--series2)}.drawing .fill2{fill:var(--series2)}\
.drawing .line3{stroke:var(--series3)}.drawing .fill3{fill:var(--series3)}\
.drawing .line4{stroke:var(--series4)}.drawing .fill4{fill:var(--series4)}\
.drawing .line5{stroke:var(--series5)}.drawing .fill5{fill:var(--series5)}\
.drawing .line6{stroke:var(--series6)}.drawing .fill6{fill:var(--series6)}\
.drawing .line7{stroke:var(--series7)}.drawing .fill7{fill:var(--series7)}";

/// The series of a loss of the paper, the same in all figures; another loss shares the first one's.
pub(super) fn of_loss(loss: &str, tau: Option<f64>) -> usize {
    match loss {
        "focal" => 1,
        "zlpr" => 2,
        "fzlpr" => of_tau(tau.unwrap_or(f64::NAN)),
        _ => 0,
    }
}

/// The series of FZLPR with this τ; τ = 1 is ZLPR.
pub(super) fn of_tau(tau: f64) -> usize {
    const KNOWN: [(f64, usize); 6] = [(0.1, 4), (0.2, 3), (0.4, 5), (0.6, 6), (0.8, 7), (1.0, 2)];
    let known = KNOWN.iter().find(|(known, _)| *known == tau);
    known.map_or(0, |&(_, series)| series)
}
