//! Tables as people have them: the only reader and the only writer of CSV in the workspace.
//!
//! What it does: reads text files in the encodings that spreadsheets write ([`read_text`]), finds out how their
//! columns are separated ([`Table`]), says which line of the file a row is on, writes CSV ([`csv_line`]), and makes
//! text from files safe to show ([`excerpt`], [`printable`]). What it never does: know what a column means.
//!
//! ```
//! let table = cxr_table::Table::parse("image;Mass\na.png;0,5\n", "made.csv")?;
//! assert_eq!(table.header(), ["image", "Mass"]);
//! let row = &table.rows()[0];
//! assert_eq!((row.line(), row.cell(0), table.decimal(row.cell(1))), (2, "a.png", Some(0.5)));
//! assert_eq!(cxr_table::csv_line(["a", "b, c"]), "a,\"b, c\"\n");
//! # Ok::<(), cxr_table::TableError>(())
//! ```

mod cell;
mod error;
mod separator;
mod show;
mod table;
mod text;
mod write;

pub use cell::{is_missing, whole_number};
pub use error::TableError;
pub use show::{excerpt, printable, printable_json};
pub use table::{Row, Table, read_header};
pub use text::{LARGEST_TEXT, decode_text, numbered_lines, read_text};
pub use write::csv_line;

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
