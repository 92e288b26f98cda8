//! A document as Markdown.

use crate::document::{Block, Document, Table};

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
    let ruler: Vec<String> = (0..header.len())
        .map(|column| if column == 0 { ":--" } else { "--:" }.to_owned())
        .collect();
    let mut lines = vec![row(header), row(&ruler)];
    lines.extend(table.rows.iter().skip(1).map(|cells| row(cells)));
    lines.join("\n")
}
