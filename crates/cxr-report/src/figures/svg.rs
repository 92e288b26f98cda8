//! SVG as text: shapes with classes, whose colours a style sheet gives, so that one drawing serves a
//! file, a PNG, and a page in light or dark.

use std::fmt::Write as _;

/// A drawing in the making. Lengths are in pixels of the drawing's own size.
#[derive(Clone, Debug, Default)]
pub(super) struct Svg {
    body: String,
}

/// Where a text stands relative to its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    pub(super) fn open_group(&mut self, attributes: &str) {
        let _ = write!(self.body, "<g {attributes}>");
    }

    pub(super) fn close_group(&mut self) {
        self.body.push_str("</g>");
    }

    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let _ = write!(
            self.body,
            r#"<line class="{class}" x1="{}" y1="{}" x2="{}" y2="{}"/>"#,
            number(from.0),
            number(from.1),
            number(to.0),
            number(to.1)
        );
    }

    pub(super) fn rect(&mut self, class: &str, corner: (f64, f64), size: (f64, f64)) {
        self.titled_rect(class, corner, size, "");
    }

    /// With a text that a page shows on hover.
    pub(super) fn titled_rect(
        &mut self,
        class: &str,
        corner: (f64, f64),
        size: (f64, f64),
        title: &str,
    ) {
        let _ = write!(
            self.body,
            r#"<rect class="{class}" x="{}" y="{}" width="{}" height="{}""#,
            number(corner.0),
            number(corner.1),
            number(size.0),
            number(size.1)
        );
        self.end_with_title("rect", title);
    }

    pub(super) fn circle(&mut self, class: &str, centre: (f64, f64), radius: f64, title: &str) {
        let _ = write!(
            self.body,
            r#"<circle class="{class}" cx="{}" cy="{}" r="{}""#,
            number(centre.0),
            number(centre.1),
            number(radius)
        );
        self.end_with_title("circle", title);
    }

    /// A line through points, with further attributes.
    pub(super) fn path(&mut self, class: &str, points: &[(f64, f64)], attributes: &str) {
        let mut line = String::new();
        for (at, &(x, y)) in points.iter().enumerate() {
            let command = if at == 0 { 'M' } else { 'L' };
            let _ = write!(line, "{command}{} {}", number(x), number(y));
        }
        let space = if attributes.is_empty() { "" } else { " " };
        let _ = write!(
            self.body,
            r#"<path class="{class}"{space}{attributes} d="{line}"/>"#
        );
    }

    pub(super) fn text(&mut self, class: &str, at: (f64, f64), anchor: Anchor, text: &str) {
        self.turned_text(class, at, anchor, 0.0, text);
    }

    /// Text turned about its point, in degrees clockwise.
    pub(super) fn turned_text(
        &mut self,
        class: &str,
        at: (f64, f64),
        anchor: Anchor,
        degrees: f64,
        text: &str,
    ) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => r#" text-anchor="middle""#,
            Anchor::End => r#" text-anchor="end""#,
        };
        let (x, y) = (number(at.0), number(at.1));
        let turn = if degrees == 0.0 {
            String::new()
        } else {
            format!(r#" transform="rotate({} {x} {y})""#, number(degrees))
        };
        let _ = write!(
            self.body,
            r#"<text class="{class}" x="{x}" y="{y}"{anchor}{turn}>{}</text>"#,
            escape(text)
        );
    }

    /// A picture, given as the bytes of a PNG.
    pub(super) fn image(&mut self, corner: (f64, f64), size: (f64, f64), png: &[u8]) {
        let _ = write!(
            self.body,
            r#"<image x="{}" y="{}" width="{}" height="{}" href="{}"/>"#,
            number(corner.0),
            number(corner.1),
            number(size.0),
            number(size.1),
            data_uri("image/png", png)
        );
    }

    pub(super) fn raw(&mut self, text: &str) {
        self.body.push_str(text);
    }

    pub(super) fn into_body(self) -> String {
        self.body
    }

    fn end_with_title(&mut self, element: &str, title: &str) {
        if title.is_empty() {
            self.body.push_str("/>");
        } else {
            let _ = write!(self.body, "><title>{}</title></{element}>", escape(title));
        }
    }
}

/// A file as part of an address.
pub(crate) fn data_uri(kind: &str, bytes: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    format!("data:{kind};base64,{text}")
}

/// Text that ends neither an element nor an attribute.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// Two decimals at most: a hundredth of a pixel.
pub(super) fn number(value: f64) -> String {
    let rounded = (value * 100.0).round() / 100.0;
    // No minus before a zero.
    let rounded = if rounded == 0.0 { 0.0 } else { rounded };
    rounded.to_string()
}
