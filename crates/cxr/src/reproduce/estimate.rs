//! `--plan`: what the runs that are not finished will take. The rates are those of `cxr plan`, measured in a few
//! seconds on this machine.

use cxr_train::Experiment;

use super::runs::State;
use crate::device::DeviceArgs;
use crate::plan::{self, Data, Images, Plan};
use crate::progress::say;

/// Seconds of a report for each test image of each run: paired tests, mostly.
const REPORT: f64 = 1.4e-3;

/// One line of the estimate.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    /// `phantoms`, `prepare`, a run's name, `explain RUN`, `report`, `together`.
    pub(super) part: String,
    pub(super) seconds: f64,
    /// In bytes.
    pub(super) memory: Option<f64>,
    bytes: f64,
}

/// Measures, and gives a line for each part that is not finished, and one for all together.
pub(super) fn measure(
    experiment: &Experiment,
    data: &Data,
    device: &DeviceArgs,
    states: &[(String, State)],
    explains: Option<String>,
) -> anyhow::Result<Vec<Line>> {
    say("measuring");
    let plans = Plans::measure(experiment, data, device, states)?;
    Ok(lines(&plans, states, explains, 1))
}

/// Measures, and prints a line for each part that is not finished.
pub(super) fn print(
    experiment: &Experiment,
    data: Data,
    device: &DeviceArgs,
    states: &[(String, State)],
    explains: Option<String>,
    jobs: u16,
) -> anyhow::Result<()> {
    say("measuring");
    let plans = Plans::measure(experiment, &data, device, states)?;
    let lines = lines(&plans, states, explains, jobs.into());
    let plan = &plans.common;
    let Images {
        train,
        validation,
        test,
        from,
        ..
    } = &plan.images;
    let mut text = format!(
        "\n{train} training, {validation} validation and {test} test images, by {from}\n\n{}",
        table(&lines)
    );
    text += "\nMeasured now, on this machine:\n";
    for stage in &plan.stages {
        text += &format!(
            "  {}: {:.1} images/s\n",
            stage.name, stage.images_per_second
        );
    }
    text += "Time is images × epochs ÷ these rates, validation, predictions of four views and metrics\n\
             included; reading images is taken to be hidden behind the training.\n\
             A network on images of more than 256 pixels is measured at 224, and counted up by its products.\n\
             Memory is of the largest training step. A run that has begun is counted whole.\n";
    crate::scoring::print(&text)
}

/// What runs cost: most are alike, but for variants with a network or a training of their own.
struct Plans {
    common: Plan,
    own: Vec<OwnPlan>,
}

struct OwnPlan {
    variant: String,
    /// The side of its images.
    side: usize,
    /// Whether its images are of another size than those before it, so that they are prepared apart.
    prepares: bool,
    plan: Plan,
}

impl Plans {
    fn measure(
        experiment: &Experiment,
        data: &Data,
        device: &DeviceArgs,
        states: &[(String, State)],
    ) -> anyhow::Result<Self> {
        let again = || Data {
            folder: data.folder.clone(),
            metadata: data.metadata.clone(),
            allow_missing: data.allow_missing,
        };
        let opened = device.open()?;
        let mut measured = plan::Measured::default();
        let mut own: Vec<OwnPlan> = Vec::new();
        for variant in experiment.variants.iter().filter(|v| v.has_tables()) {
            let waits = |(name, state): &(String, State)| {
                *state != State::Finished && is_run_of(name, &variant.name)
            };
            if states.iter().any(waits) {
                let alone = experiment.variant(&variant.name)?;
                let side = alone.experiment().augmentation.image_size();
                // Images of one size are prepared once.
                let is_prepared = side == experiment.augmentation.image_size()
                    || own.iter().any(|other| other.side == side);
                own.push(OwnPlan {
                    variant: variant.name.clone(),
                    side,
                    prepares: !is_prepared,
                    plan: plan::estimate(alone.experiment(), again(), &opened, &mut measured)?,
                });
            }
        }
        // The experiment's own tables, as a variant without any has them.
        let plain = experiment.variants.iter().find(|v| !v.has_tables());
        let common = match plain {
            Some(variant) => {
                let alone = experiment.variant(&variant.name)?;
                plan::estimate(alone.experiment(), again(), &opened, &mut measured)?
            }
            None => plan::estimate(experiment, again(), &opened, &mut measured)?,
        };
        Ok(Self { common, own })
    }

    fn of(&self, run: &str) -> &Plan {
        let own = self.own.iter().find(|own| is_run_of(run, &own.variant));
        own.map_or(&self.common, |own| &own.plan)
    }
}

/// Whether a run is of this variant, with whatever seed.
fn is_run_of(run: &str, variant: &str) -> bool {
    run.strip_prefix(variant)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("-seed"))
}

fn lines(
    plans: &Plans,
    states: &[(String, State)],
    explains: Option<String>,
    jobs: usize,
) -> Vec<Line> {
    let plan = &plans.common;
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
    for own in plans.own.iter().filter(|own| own.prepares) {
        let cost = &own.plan.prepare;
        let part = format!("prepare {}", own.variant);
        add(&part, cost.seconds, None, cost.bytes);
    }
    for name in &waiting {
        let plan = plans.of(name);
        let training: f64 = plan.stages.iter().map(|stage| stage.seconds).sum();
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
    use crate::plan::{Cost, StageCost};

    fn plan() -> Plan {
        let cost = |seconds, bytes| Cost { seconds, bytes };
        let stage = |name: &str, seconds, images_per_second| StageCost {
            name: name.to_owned(),
            seconds,
            images_per_second,
        };
        Plan {
            images: Images {
                train: 900,
                validation: 100,
                test: 500,
                boxes: 3,
                from: "a test".to_owned(),
            },
            phantoms: Some(cost(10., 1000.)),
            prepare: cost(5., 100.),
            network: None,
            stages: vec![
                stage("top network", 20., 90.),
                stage("all layers", 60., 30.),
            ],
            predict_seconds: 7.,
            run_bytes: 50.,
            run_memory: Some(2000.),
            explain_seconds: 4.,
        }
    }

    fn alike() -> Plans {
        Plans {
            common: plan(),
            own: Vec::new(),
        }
    }

    #[test]
    fn a_variant_with_a_network_of_its_own_costs_what_that_costs() {
        let mut large = plan();
        large.stages[1].seconds = 600.;
        large.run_memory = Some(9000.);
        let plans = Plans {
            common: plan(),
            own: vec![OwnPlan {
                variant: "large".to_owned(),
                side: 512,
                prepares: true,
                plan: large,
            }],
        };
        let states =
            ["zlpr", "large", "large-seed1", "larger"].map(|name| (name.to_owned(), State::ToRun));
        let made = lines(&plans, &states, None, 1);
        let seconds = |part: &str| made.iter().find(|line| line.part == part).unwrap().seconds;
        assert_eq!(seconds("prepare large"), 5.);
        assert_eq!(seconds("zlpr"), 87.);
        assert_eq!(seconds("large"), 627.);
        assert_eq!(seconds("large-seed1"), 627.);
        assert_eq!(seconds("larger"), 87.);
        assert_eq!(made.last().unwrap().memory, Some(9000.));
    }

    #[test]
    fn what_is_finished_costs_nothing_and_what_has_begun_counts_whole() {
        let states = [
            ("bce".to_owned(), State::Finished),
            ("focal".to_owned(), State::Begun),
            ("zlpr".to_owned(), State::ToRun),
        ];
        let made = lines(&alike(), &states, Some("focal".to_owned()), 1);
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
        let memory = |jobs| lines(&alike(), &states, None, jobs).last().unwrap().memory;
        assert_eq!(memory(2), Some(4000.));
        assert_eq!(memory(9), Some(4000.), "there are two runs only");
        let finished = [("bce".to_owned(), State::Finished)];
        let made = lines(&alike(), &finished, None, 4);
        assert_eq!(made.last().unwrap().memory, None);
    }

    #[test]
    fn lengths_and_sizes_have_units_that_suit_them() {
        let shown = [59.6, 600., 7_200., 1e6].map(duration);
        assert_eq!(shown, ["60 s", "10 min", "2.0 h", "11.6 days"]);
        assert_eq!([1e6, 5e9].map(size), ["1 MiB", "4.7 GiB"]);
    }
}
