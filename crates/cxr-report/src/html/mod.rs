//! A document as one page: style, script, drawings and pictures are inside it, so that it can be sent
//! to anybody and opens without a network.

mod inline;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::document::{Block, Document, Table};
use crate::explanations::{Example, ExampleKind, Explanations};
use crate::figures::{Figure, Palette, STYLE, data_uri, escape};
use crate::report::Report;
use crate::sections::labels_or_none;

const PAGE_STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// `tables` are the files below `tables`, by name.
pub(crate) fn render(
    report: &Report,
    document: &Document,
    tables: Vec<(&'static str, String)>,
) -> String {
    let page = Page {
        files: tables.into_iter().collect(),
        pictures: report.evidence.pictures.as_ref().map(|made| &made.files),
    };
    let title = document.blocks.iter().find_map(|block| match block {
        Block::Title(title) => Some(inline::text(title)),
        _ => None,
    });
    let title = title.unwrap_or_else(|| "report".to_owned());
    let mut text =
        String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    text.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    // No icon: a browser would ask for one.
    text.push_str("<link rel=\"icon\" href=\"data:,\">\n");
    let _ = writeln!(text, "<title>{}</title>", escape(&title));
    let _ = writeln!(
        text,
        "<style>\n:root{{{}}}\n@media (prefers-color-scheme: dark){{:root{{{}}}}}\n{STYLE}\n{PAGE_STYLE}</style>",
        Palette::LIGHT.declarations(),
        Palette::DARK.declarations()
    );
    text.push_str("</head>\n<body>\n");
    text.push_str(&page.body(document));
    let _ = write!(text, "<script>\n{SCRIPT}</script>\n</body>\n</html>\n");
    text
}

struct Page<'a> {
    /// CSV by name.
    files: BTreeMap<&'static str, String>,
    /// PNG by name.
    pictures: Option<&'a BTreeMap<String, Vec<u8>>>,
}

impl Page<'_> {
    fn body(&self, document: &Document) -> String {
        let mut text = String::new();
        let mut in_section = false;
        for block in &document.blocks {
            match block {
                Block::Title(title) => {
                    let _ = writeln!(text, "<header><h1>{}</h1></header>", inline::html(title));
                    text.push_str(&contents(document));
                    text.push_str("<main>\n");
                }
                Block::Heading(heading) => {
                    if in_section {
                        text.push_str("</section>\n");
                    }
                    in_section = true;
                    let _ = writeln!(
                        text,
                        "<section id=\"{}\">\n<h2>{}</h2>",
                        anchor(heading),
                        inline::html(heading)
                    );
                }
                other => text.push_str(&self.block(other)),
            }
        }
        if in_section {
            text.push_str("</section>\n");
        }
        text.push_str("</main>\n");
        text
    }

    fn block(&self, block: &Block) -> String {
        match block {
            Block::Title(_) | Block::Heading(_) => String::new(),
            Block::Warning(warning) => {
                format!(
                    "<p class=\"warning\" role=\"note\">{}</p>\n",
                    inline::html(warning)
                )
            }
            Block::Text(text) => format!("<p>{}</p>\n", inline::html(text)),
            Block::List(items) => {
                let items: String = items
                    .iter()
                    .map(|item| format!("<li>{}</li>\n", inline::html(item)))
                    .collect();
                format!("<ul>\n{items}</ul>\n")
            }
            Block::Table(table) => self.table(table),
            Block::Code(lines) => {
                format!("<pre><code>{}</code></pre>\n", escape(&lines.join("\n")))
            }
            Block::Figure(figure) => draw(figure),
            Block::Gallery(explanations) => self.gallery(explanations).unwrap_or_default(),
        }
    }

    fn table(&self, table: &Table) -> String {
        let Some((header, rows)) = table.rows.split_first() else {
            return String::new();
        };
        let mut text = String::from(
            "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"table\"><table>\n<thead><tr>",
        );
        for heading in header {
            let _ = write!(
                text,
                "<th scope=\"col\" aria-sort=\"none\"><button type=\"button\">{}</button></th>",
                inline::cell(heading)
            );
        }
        text.push_str("</tr></thead>\n");
        let (body, feet) = rows.split_at(rows.len().saturating_sub(table.feet));
        for (element, rows) in [("tbody", body), ("tfoot", feet)] {
            if rows.is_empty() {
                continue;
            }
            let _ = writeln!(text, "<{element}>");
            for row in rows {
                text.push_str("<tr>");
                for (column, cell) in row.iter().enumerate() {
                    let _ = match column {
                        0 => write!(text, "<th scope=\"row\">{}</th>", inline::cell(cell)),
                        _ => write!(text, "<td>{}</td>", inline::cell(cell)),
                    };
                }
                text.push_str("</tr>\n");
            }
            let _ = writeln!(text, "</{element}>");
        }
        text.push_str("</table></div>\n");
        let file = table.file.as_ref();
        if let Some((name, csv)) =
            file.and_then(|name| Some((name, self.files.get(name.as_str())?)))
        {
            let _ = writeln!(
                text,
                "<p class=\"download\"><a download=\"{name}\" href=\"{}\">{name}</a>, all digits</p>",
                data_uri("text/csv", csv.as_bytes())
            );
        }
        text
    }

    fn gallery(&self, explanations: &Explanations) -> Option<String> {
        let files = self.pictures?;
        if explanations.panel.is_empty() {
            return None;
        }
        let mut text = String::from(
            "<div class=\"gallery\">\n<label class=\"strength\">strength of the heat maps \
             <input type=\"range\" min=\"0\" max=\"100\" value=\"100\"></label>\n",
        );
        for kind in ExampleKind::ALL {
            let of_kind = explanations
                .panel
                .iter()
                .filter(|example| example.kind == kind);
            let cards: Option<String> = of_kind.map(|example| card(example, files)).collect();
            let cards = cards.filter(|cards| !cards.is_empty());
            if let Some(cards) = cards {
                let words = kind.words();
                let _ = write!(
                    text,
                    "<h3>{words}</h3>\n<div class=\"cards\">\n{cards}</div>\n"
                );
            }
        }
        text.push_str("</div>\n");
        Some(text)
    }
}

fn card(example: &Example, files: &BTreeMap<String, Vec<u8>>) -> Option<String> {
    let picture = data_uri("image/png", files.get(&example.picture)?);
    let overlay = data_uri("image/png", files.get(&example.overlay)?);
    let verdict = match example.kind {
        ExampleKind::Wrong => "wrong",
        ExampleKind::RightSingle | ExampleKind::RightSeveralOrNone => "right",
    };
    let (name, explained) = (
        escape(&example.image),
        escape(&example.explained.replace('_', " ")),
    );
    Some(format!(
        "<figure class=\"card\"><div class=\"stack\"><img src=\"{picture}\" alt=\"{name}\">\
         <img class=\"heat\" src=\"{overlay}\" alt=\"heat map of {explained}\"></div>\
         <figcaption>true: {}<br><span class=\"{verdict}\">predicted: {}</span><br>\
         <small>{}<br>{name}</small></figcaption></figure>\n",
        escape(&labels_or_none(&example.labels)),
        escape(&labels_or_none(&example.predicted)),
        escape(&example.about_map())
    ))
}

fn draw(figure: &Figure) -> String {
    let title = escape(&figure.title);
    format!(
        "<figure id=\"{}\"><div class=\"frame\" tabindex=\"0\" role=\"region\" aria-label=\"{title}\">{}</div>\
         <p class=\"readout\" aria-live=\"polite\"></p>\
         <figcaption><strong>{title}.</strong> {}</figcaption></figure>\n",
        figure.name,
        figure.to_inline_svg(),
        inline::html(&figure.caption)
    )
}

/// Links to the sections.
fn contents(document: &Document) -> String {
    let links = document.blocks.iter().filter_map(|block| match block {
        Block::Heading(heading) => {
            // The number says enough.
            let short = match heading.split_once(". ") {
                Some((table, _)) if table.starts_with("Table") => table,
                _ => heading.split("; ").next().unwrap_or(heading),
            };
            Some(format!(
                "<a href=\"#{}\">{}</a>",
                anchor(heading),
                inline::html(short)
            ))
        }
        _ => None,
    });
    let links: Vec<String> = links.collect();
    format!("<nav aria-label=\"sections\">{}</nav>\n", links.join(" "))
}

/// A heading as a name within the page.
fn anchor(heading: &str) -> String {
    let mut name = String::new();
    for c in heading.chars() {
        if c.is_alphanumeric() {
            name.extend(c.to_lowercase());
        } else if !name.ends_with('-') && !name.is_empty() {
            name.push('-');
        }
    }
    name.trim_end_matches('-').to_owned()
}
