//! A report's content before it has a form: blocks whose texts use a little Markdown (`**bold**`,
//! `` `code` ``, `<u>underlined</u>`, `[text](address)`, `<address>`, `\|`), written once and rendered
//! as Markdown and as a page.

use crate::explanations::Explanations;
use crate::figures::Figure;

/// Blocks in reading order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Document {
    pub(crate) blocks: Vec<Block>,
}

#[derive(Clone, Debug)]
pub(crate) enum Block {
    /// The document's title.
    Title(String),
    /// A section.
    Heading(String),
    /// What must be read before any figure.
    Warning(String),
    Text(String),
    List(Vec<String>),
    Table(Table),
    /// Lines for a shell.
    Code(Vec<String>),
    Figure(Figure),
    /// The heat maps, one by one: in Markdown the figure stands for them.
    Gallery(Explanations),
}

/// The first row is the header; the first column is text, the others figures.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) rows: Vec<Vec<String>>,
    /// So many of the last rows stay last however the others are sorted: means.
    pub(crate) feet: usize,
    /// The name of the file under `tables` that holds the same with all digits.
    pub(crate) file: Option<String>,
}

impl Document {
    pub(crate) fn add(&mut self, block: Block) {
        self.blocks.push(block);
    }

    pub(crate) fn heading(&mut self, text: impl Into<String>) {
        self.add(Block::Heading(text.into()));
    }

    pub(crate) fn text(&mut self, text: impl Into<String>) {
        self.add(Block::Text(text.into()));
    }

    pub(crate) fn list(&mut self, items: Vec<String>) {
        if !items.is_empty() {
            self.add(Block::List(items));
        }
    }

    pub(crate) fn table(&mut self, rows: Vec<Vec<String>>) {
        self.add(Block::Table(Table {
            rows,
            ..Table::default()
        }));
    }

    pub(crate) fn figure(&mut self, figures: &[Figure], name: &str) {
        let figure = figures.iter().find(|figure| figure.name == name);
        self.blocks.extend(figure.cloned().map(Block::Figure));
    }
}

/// Text for a table's cell: it does not end the cell, and is not read as Markdown.
pub(crate) fn plain(text: &str) -> String {
    text.replace('|', r"\|")
        .replace('<', "&lt;")
        .replace(['\n', '\r'], " ")
}
