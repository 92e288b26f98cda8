//! A document as Markdown.

use crate::document::{Block, Document, Table, TableCell, plain};
use crate::ranks::Rank;

pub(crate) fn render(document: &Document) -> String {
    let mut text = String::new();
    for block in &document.blocks {
        let lines = match block {
            Block::Title(title) => format!("# {title}"),
            Block::Heading(heading) => format!("## {heading}"),
            Block::Warning(warning) => format!("> {warning}"),
            Block::Text(line) => line.clone(),
            Block::List(items) => {
                let items: Vec<String> = items.iter().map(|item| format!("- {item}")).collect();
                items.join("\n")
            }
            Block::Table(rows) => table(rows),
            Block::Code(lines) => format!("```sh\n{}\n```", lines.join("\n")),
            Block::Figure(figure) => format!(
                "![{}](figures/{}.svg)\n\n*{}.* {}",
                figure.title, figure.name, figure.title, figure.caption
            ),
            Block::Gallery(_) => continue,
        };
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&lines);
        text.push('\n');
    }
    text
}

/// The first column is aligned left, the others right.
fn table(table: &Table) -> String {
    let Some(header) = table.rows.first() else {
        return String::new();
    };
    let row = |cells: &[String]| format!("| {} |", cells.join(" | "));
    let shown = |cells: &[TableCell]| row(&cells.iter().map(cell).collect::<Vec<_>>());
    let ruler: Vec<String> = (0..header.len())
        .map(|column| if column == 0 { ":--" } else { "--:" }.to_owned())
        .collect();
    let mut lines = vec![shown(header), row(&ruler)];
    lines.extend(table.rows.iter().skip(1).map(|cells| shown(cells)));
    lines.join("\n")
}

fn cell(cell: &TableCell) -> String {
    let mut text = plain(&cell.text);
    if cell.is_code {
        text = format!("`{text}`");
    }
    if let Some(target) = &cell.target {
        text = format!("[{text}]({target})");
    }
    text = match cell.rank {
        Some(Rank::Best) => format!("**{text}**"),
        Some(Rank::RunnerUp) => format!("<u>{text}</u>"),
        None => text,
    };
    if let Some(aside) = &cell.aside {
        text = format!("{text} ({})", plain(aside));
    }
    if !cell.after.is_empty() {
        text = format!("{text} {}", plain(&cell.after));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_s_texts_are_escaped_and_its_marks_are_not() {
        let best = TableCell::from("0.8").ranked(Some(Rank::Best));
        assert_eq!(
            cell(&best.aside("0.7–0.9").after("± 0.1")),
            "**0.8** (0.7–0.9) ± 0.1"
        );
        let second = TableCell::from("0.7").ranked(Some(Rank::RunnerUp));
        assert_eq!(cell(&second), "<u>0.7</u>");
        let p_value = TableCell::from("+0.1").aside("p < 0.0001");
        assert_eq!(cell(&p_value), "+0.1 (p &lt; 0.0001)");
        let run = TableCell::code("bce").leading_to("bce/metrics.json".to_owned());
        assert_eq!(cell(&run), "[`bce`](bce/metrics.json)");
        assert_eq!(cell(&"a|b\n<script>".into()), r"a\|b &lt;script>");
    }
}
