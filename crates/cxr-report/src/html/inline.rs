//! The little Markdown of a document's sentences, and a table's cells, as HTML.

use crate::document::TableCell;
use crate::figures::escape;
use crate::ranks::Rank;

/// The text as HTML. Links to files beside the report are given as plain text: the page is sent alone.
pub(super) fn html(text: &str) -> String {
    let mut html = String::new();
    let mut rest = text;
    let mut is_bold = false;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix(r"\|") {
            html.push('|');
            rest = after;
        } else if let Some(after) = rest.strip_prefix("**") {
            html.push_str(if is_bold { "</strong>" } else { "<strong>" });
            is_bold = !is_bold;
            rest = after;
        } else if let Some((code, after)) = between(rest, "`", "`") {
            html.push_str(&format!("<code>{}</code>", escape(code)));
            rest = after;
        } else if let Some((address, after)) =
            between(rest, "<", ">").filter(|(address, _)| address.starts_with("https://"))
        {
            let address = escape(address);
            html.push_str(&format!("<a href=\"{address}\">{address}</a>"));
            rest = after;
        } else if let Some((words, after)) = between(rest, "[", "]")
            .and_then(|(words, after)| Some((words, between(after, "(", ")")?.1)))
        {
            html.push_str(&self::html(words));
            rest = after;
        } else if let Some(after) = rest.strip_prefix("&lt;") {
            html.push_str("&lt;");
            rest = after;
        } else {
            html.push_str(&escape(c.encode_utf8(&mut [0; 4])));
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
        }
    }
    if is_bold {
        html.push_str("</strong>");
    }
    html
}

/// A cell: what is in brackets goes to a line of its own, in smaller letters.
pub(super) fn cell(cell: &TableCell) -> String {
    let mut html = escape(&cell.text);
    if cell.is_code {
        html = format!("<code>{html}</code>");
    }
    html = match cell.rank {
        Some(Rank::Best) => format!("<strong>{html}</strong>"),
        Some(Rank::RunnerUp) => format!("<u>{html}</u>"),
        None => html,
    };
    if let Some(aside) = &cell.aside {
        html = format!("{html} <small>({})</small>", escape(aside));
    }
    if !cell.after.is_empty() {
        html = format!("{html} {}", escape(&cell.after));
    }
    html
}

/// The text without its marks.
pub(super) fn text(text: &str) -> String {
    text.replace("**", "").replace('`', "")
}

/// What stands between two marks at the beginning, and what follows.
fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<(&'a str, &'a str)> {
    let inside = text.strip_prefix(open)?;
    let at = inside.find(close)?;
    let (inside, after) = inside.split_at_checked(at)?;
    Some((inside, after.strip_prefix(close)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_become_elements_and_everything_else_is_escaped() {
        for (given, expected) in [
            ("**a** b", "<strong>a</strong> b"),
            ("`x<y`", "<code>x&lt;y</code>"),
            ("a < b & c", "a &lt; b &amp; c"),
            ("&lt;script>", "&lt;script&gt;"),
            (r"a\|b", "a|b"),
            ("[`bce`](bce/metrics.json)", "<code>bce</code>"),
            (
                "<https://a.example/x>",
                "<a href=\"https://a.example/x\">https://a.example/x</a>",
            ),
            (
                "<script>alert(1)</script>",
                "&lt;script&gt;alert(1)&lt;/script&gt;",
            ),
            ("τ − 0.2", "τ − 0.2"),
        ] {
            assert_eq!(html(given), expected);
        }
    }

    #[test]
    fn a_cell_s_bracket_is_set_apart() {
        let best = TableCell::from("0.8").ranked(Some(Rank::Best));
        assert_eq!(
            cell(&best.aside("0.7–0.9").after("± 0.1")),
            "<strong>0.8</strong> <small>(0.7–0.9)</small> ± 0.1"
        );
        let run = TableCell::code("a<b").leading_to("a/metrics.json".to_owned());
        assert_eq!(cell(&run), "<code>a&lt;b</code>");
        assert_eq!(cell(&"–".into()), "–");
        assert_eq!(cell(&"**a** `b`".into()), "**a** `b`");
    }
}
