//! `--plan`: what the runs that are not finished will take. The rates are `cxr plan`'s, measured in a few
//! seconds on this machine.

use std::process::Stdio;

use anyhow::{Context, bail};
use cxr_report::explanations::{EXPLANATIONS_FILE, EXPLANATIONS_FOLDER};
use cxr_terminal::tell;
use serde::Deserialize;

use super::runs::{Run, State, explained};
use super::work::Work;
use crate::process::Ending;

/// Seconds of a report for each test image of each run: paired tests with their bootstraps, mostly.
const REPORT: f64 = 1.4e-3;

/// What `cxr plan --json` says; seconds and bytes.
#[derive(Debug, Deserialize)]
struct Plan {
    images: Images,
    phantoms: Option<Cost>,
    prepare: Cost,
    stages: Vec<Stage>,
    predict_seconds: f64,
    run_bytes: f64,
    run_memory: Option<f64>,
    explain_seconds: f64,
}

#[derive(Debug, Deserialize)]
struct Images {
    train: usize,
    validation: usize,
    test: usize,
    from: String,
}

#[derive(Debug, Deserialize)]
struct Cost {
    seconds: f64,
    bytes: f64,
}

#[derive(Debug, Deserialize)]
struct Stage {
    name: String,
    seconds: f64,
    images_per_second: f64,
}

/// One line of the estimate.
#[derive(Debug, PartialEq)]
struct Line {
    part: String,
    seconds: f64,
    memory: Option<f64>,
    bytes: f64,
}

/// Measures, and prints a line for each part that is not finished.
pub(super) fn print(work: &Work<'_>, runs: &[Run], jobs: usize) -> anyhow::Result<Ending> {
    let mut command = work.cxr("plan");
    command.args(["--json", "--device", work.device.name()]);
    work.add_experiment(&mut command)?;
    if !work.data.as_os_str().is_empty() {
        work.add_data(&mut command)?;
    }
    tell!("\nmeasuring");
    let (ended, text) = work.interrupt.output(command.stderr(Stdio::inherit()))?;
    match ended.ending {
        Ending::Done => {}
        Ending::Failed => bail!("no estimate: `cxr plan` ended with {}", ended.status),
        Ending::Interrupted => return Ok(Ending::Interrupted),
    }
    let plan: Plan = serde_json::from_str(&text).context("`cxr plan` is of another version")?;
    let states: Vec<(String, State)> = runs
        .iter()
        .map(|run| (run.name(), State::of(&work.folder(run))))
        .collect();
    let explains = explained(work.experiment, runs).filter(|run| {
        let file = work.folder(run).join(EXPLANATIONS_FOLDER);
        !file.join(EXPLANATIONS_FILE).is_file()
    });
    let lines = lines(&plan, &states, explains.map(Run::name), jobs);
    let Images {
        train,
        validation,
        test,
        from,
    } = &plan.images;
    tell!("\n{train} training, {validation} validation and {test} test images, by {from}\n");
    tell!("{}", table(&lines).trim_end());
    tell!("\nMeasured now, on this machine:");
    for stage in &plan.stages {
        tell!("  {}: {:.1} images/s", stage.name, stage.images_per_second);
    }
    tell!(
        "Time is images × epochs ÷ these rates, validation, predictions of four views and bootstraps\n\
         included; reading images is taken to be hidden behind the training, and the build is not counted.\n\
         Memory is of the largest training step. A run that has begun is counted whole."
    );
    Ok(Ending::Done)
}

fn lines(
    plan: &Plan,
    states: &[(String, State)],
    explains: Option<String>,
    jobs: usize,
) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut add = |part: &str, seconds: f64, memory: Option<f64>, bytes: f64| {
        lines.push(Line {
            part: part.to_owned(),
            seconds,
            memory,
            bytes,
        });
    };
    if let Some(cost) = &plan.phantoms {
        add("phantoms", cost.seconds, None, cost.bytes);
    }
    let waiting = states.iter().filter(|(_, state)| *state != State::Finished);
    let waiting: Vec<&str> = waiting.map(|(name, _)| name.as_str()).collect();
    if !waiting.is_empty() {
        add("prepare", plan.prepare.seconds, None, plan.prepare.bytes);
    }
    let training: f64 = plan.stages.iter().map(|stage| stage.seconds).sum();
    for name in &waiting {
        let seconds = training + plan.predict_seconds;
        add(name, seconds, plan.run_memory, plan.run_bytes);
    }
    if let Some(name) = explains {
        add(&format!("explain {name}"), plan.explain_seconds, None, 0.);
    }
    let report = REPORT * (plan.images.test * states.len()) as f64;
    add("report", report, None, 0.);
    let at_once = jobs.min(waiting.len()).max(1) as f64;
    let seconds = lines.iter().map(|line| line.seconds).sum();
    let memory = lines.iter().filter_map(|line| line.memory);
    let memory = memory.reduce(f64::max).map(|memory| memory * at_once);
    let bytes = lines.iter().map(|line| line.bytes).sum();
    lines.push(Line {
        part: "together".to_owned(),
        seconds,
        memory,
        bytes,
    });
    lines
}

fn table(lines: &[Line]) -> String {
    let of_names = lines.iter().map(|line| line.part.len());
    let width = of_names.max().unwrap_or(0);
    let mut text = format!(
        "  {:<width$} {:>10} {:>10} {:>10}\n",
        "", "time", "memory", "disk"
    );
    for line in lines {
        let memory = line.memory.map(size).unwrap_or_default();
        let bytes = match line.bytes {
            0. => String::new(),
            bytes => size(bytes),
        };
        text.push_str(&format!(
            "  {:<width$} {:>10} {memory:>10} {bytes:>10}\n",
            line.part,
            duration(line.seconds)
        ));
    }
    text
}

fn duration(seconds: f64) -> String {
    if seconds < 90. {
        format!("{seconds:.0} s")
    } else if seconds < 5_400. {
        format!("{:.0} min", seconds / 60.)
    } else if seconds < 48. * 3_600. {
        format!("{:.1} h", seconds / 3_600.)
    } else {
        format!("{:.1} days", seconds / 86_400.)
    }
}

fn size(bytes: f64) -> String {
    let mib = bytes / f64::from(1 << 20);
    if mib < 1_000. {
        format!("{mib:.0} MiB")
    } else {
        format!("{:.1} GiB", mib / 1_024.)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let text = r#"{
            "images": { "train": 900, "validation": 100, "test": 500, "boxes": 3, "from": "a test" },
            "phantoms": { "seconds": 10.0, "bytes": 1000.0 },
            "prepare": { "seconds": 5.0, "bytes": 100.0 },
            "stages": [
                { "name": "top network", "seconds": 20.0, "images_per_second": 90.0 },
                { "name": "all layers", "seconds": 60.0, "images_per_second": 30.0 }
            ],
            "predict_seconds": 7.0, "run_bytes": 50.0, "run_memory": 2000.0, "explain_seconds": 4.0
        }"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_is_finished_costs_nothing_and_what_has_begun_counts_whole() {
        let states = [
            ("bce".to_owned(), State::Finished),
            ("focal".to_owned(), State::Begun),
            ("zlpr".to_owned(), State::ToRun),
        ];
        let made = lines(&plan(), &states, Some("focal".to_owned()), 1);
        let parts: Vec<(&str, f64)> = made
            .iter()
            .map(|line| (line.part.as_str(), line.seconds))
            .collect();
        let report = REPORT * 1_500.;
        let expected = [
            ("phantoms", 10.),
            ("prepare", 5.),
            ("focal", 87.),
            ("zlpr", 87.),
            ("explain focal", 4.),
            ("report", report),
            ("together", 193. + report),
        ];
        assert_eq!(parts, expected);
        let together = made.last().unwrap();
        assert_eq!((together.memory, together.bytes), (Some(2000.), 1200.));
    }

    #[test]
    fn runs_at_once_take_their_memory_at_once() {
        let states = [
            ("bce".to_owned(), State::ToRun),
            ("zlpr".to_owned(), State::ToRun),
        ];
        let memory = |jobs| lines(&plan(), &states, None, jobs).last().unwrap().memory;
        assert_eq!(memory(2), Some(4000.));
        assert_eq!(memory(9), Some(4000.), "there are two runs only");
        let finished = [("bce".to_owned(), State::Finished)];
        let made = lines(&plan(), &finished, None, 4);
        assert_eq!(made.last().unwrap().memory, None);
    }

    #[test]
    fn lengths_and_sizes_have_units_that_suit_them() {
        let shown = [59.6, 600., 7_200., 1e6].map(duration);
        assert_eq!(shown, ["60 s", "10 min", "2.0 h", "11.6 days"]);
        assert_eq!([1e6, 5e9].map(size), ["1 MiB", "4.7 GiB"]);
    }
}
