//! Do the intervals hold? Test sets whose truth is known are drawn again and again, and what the crate
//! says of each is counted.
//!
//! `cargo run --release -p cxr-metrics --example coverage -- [REPLICATES] [STUDY …]` prints the tables of
//! `docs/statistics.md`, or those of some studies (aucs, tests, rates, means, average-precision), and ends
//! with an error when something is out of bounds; `cargo xtask verify coverage` runs it.

mod normal;
mod population;
mod studies;
mod tally;

use std::process::ExitCode;

/// As many give a Monte-Carlo error of half a percentage point.
const REPLICATES: usize = 2000;

type Study = fn(usize, &mut Vec<String>);

/// Each with the share of the replicates that it can afford.
const STUDIES: [(&str, Study, usize); 5] = [
    ("aucs", studies::aucs, 1),
    ("tests", studies::tests, 1),
    ("rates", studies::rates, 1),
    ("means", studies::means, 2),
    ("average-precision", studies::average_precision, 4),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let replicates = match arguments.next().map(|text| text.parse()) {
        None => REPLICATES,
        Some(Ok(replicates)) if replicates >= 100 => replicates,
        Some(_) => {
            eprintln!("expected a number of replicates, at least 100");
            return ExitCode::from(2);
        }
    };
    let wanted: Vec<String> = arguments.collect();
    let names = STUDIES.map(|(name, ..)| name);
    if let Some(unknown) = wanted.iter().find(|name| !names.contains(&name.as_str())) {
        eprintln!("expected one of {}, got `{unknown}`", names.join(", "));
        return ExitCode::from(2);
    }
    let mut out_of_bounds = Vec::new();
    for (name, study, divisor) in STUDIES {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            study(replicates / divisor, &mut out_of_bounds);
        }
    }
    for line in &out_of_bounds {
        eprintln!("out of bounds: {line}");
    }
    if out_of_bounds.is_empty() {
        println!("\neverything is within its bounds");
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
