//! A report of runs that nobody trained: their labels, logits and pictures come from formulas. It
//! shows what a report looks like, and `cargo xtask verify` opens it in a browser.
//!
//! ```sh
//! cargo run -p cxr-report --example made_report -- FOLDER            # as if of phantoms
//! cargo run -p cxr-report --example made_report -- FOLDER published  # beside the published figures
//! ```

#[path = "../tests/made/experiment.rs"]
mod experiment;

use std::path::PathBuf;

use cxr_report::report::Report;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or("expected a folder to write to")?;
    let origin = match std::env::args().nth(2).as_deref() {
        Some("published") => experiment::Origin::Complete,
        _ => experiment::Origin::Phantom,
    };
    experiment::write(&folder, &experiment::EIGHT, origin)?;
    let written = Report::read(&folder)?.write(&folder)?;
    for path in written {
        println!("{}", path.display());
    }
    Ok(())
}
