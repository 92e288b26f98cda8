//! A report's content before it has a form, written once and rendered as Markdown and as a page. Sentences use
//! a little Markdown (`**bold**`, `` `code` ``, `[text](address)`, `<address>`); a table's cells are data.

use crate::explanations::Explanations;
use crate::figures::Figure;
use crate::ranks::Rank;

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
    pub(crate) rows: Vec<Vec<TableCell>>,
    /// So many of the last rows stay last however the others are sorted: means.
    pub(crate) feet: usize,
    /// The name of the file under `tables` that holds the same with all digits.
    pub(crate) file: Option<String>,
}

/// What one cell of a table shows. Its texts are taken as they are: each form escapes what it must.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TableCell {
    pub(crate) text: String,
    /// The best of a row is bold, the runner-up underlined, as in the paper.
    pub(crate) rank: Option<Rank>,
    /// In brackets behind the text, without them: an interval, a p-value.
    pub(crate) aside: Option<String>,
    /// Behind both: a spread over seeds, how many labels a mean is over.
    pub(crate) after: String,
    /// Whether the text is a name of the command line or of a file.
    pub(crate) is_code: bool,
    /// A file beside the report that the text leads to; the page, which is sent alone, has no such links.
    pub(crate) target: Option<String>,
}

impl TableCell {
    pub(crate) fn code(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            is_code: true,
            ..Self::default()
        }
    }

    pub(crate) fn ranked(mut self, rank: Option<Rank>) -> Self {
        self.rank = rank;
        self
    }

    /// Bold where `is_clear`: an interval without zero, a small p-value.
    pub(crate) fn bold_if(self, is_clear: bool) -> Self {
        self.ranked(is_clear.then_some(Rank::Best))
    }

    pub(crate) fn aside(mut self, aside: impl Into<String>) -> Self {
        self.aside = Some(aside.into());
        self
    }

    pub(crate) fn after(mut self, after: &str) -> Self {
        if !self.after.is_empty() {
            self.after.push(' ');
        }
        self.after.push_str(after);
        self
    }

    pub(crate) fn leading_to(mut self, target: String) -> Self {
        self.target = Some(target);
        self
    }
}

impl From<String> for TableCell {
    fn from(text: String) -> Self {
        Self {
            text,
            ..Self::default()
        }
    }
}

impl From<&str> for TableCell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
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

    pub(crate) fn table(&mut self, rows: Vec<Vec<TableCell>>) {
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

/// Somebody's text within a sentence or a cell of Markdown: it ends no cell, and begins no element and no line.
pub(crate) fn plain(text: &str) -> String {
    text.replace('|', r"\|")
        .replace('<', "&lt;")
        .replace(['\n', '\r'], " ")
}
