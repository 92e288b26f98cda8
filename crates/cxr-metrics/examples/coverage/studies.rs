//! The settings, what is asked in each, and within which bounds the answer must lie.

use cxr_metrics::{
    AucEstimate, BootstrapConfig, ClusteredRates, Confusion, Interval, Level, MultiLabel, Scored,
    bootstrap, clustered_delong, delong, paired_delong,
};

use crate::population::{Films, Finding, Label, Random, Scores, TestSet};
use crate::tally::{Percent, Tally, mean, replicate, width_with_known_error};

/// The patients of ChestX-ray14's test list.
const N_PATIENTS: usize = 2_797;
/// What an interval of 95 % must cover, in percent, and how wide it may be, as a multiple of one for
/// which the error were known.
const COVERAGE: [f64; 2] = [93.5, 96.5];
const WIDTH: f64 = 1.5;

/// Hernia in the test list: 32 of 2,797 patients.
const HERNIA: Finding = Finding::Rare {
    patients: 32.0 / 2_797.0,
};
/// One film in five, as Effusion there.
const EFFUSION: Finding = Finding::Common { films: 0.18 };
/// One film in a hundred, in about 120 patients.
const ONE_PERCENT: Finding = Finding::Common { films: 0.01 };

struct Setting {
    name: String,
    n_patients: usize,
    films: Films,
    label: Label,
}

fn setting(
    name: &str,
    n_patients: usize,
    films: Films,
    finding: Finding,
    scores: Scores,
) -> Setting {
    Setting {
        name: format!("{name}, AUC {:.2}", scores.auc()),
        n_patients,
        films,
        label: Label {
            finding,
            scores,
            other: None,
        },
    }
}

fn within(scores: Scores, within_patient: f64) -> Scores {
    Scores {
        within_patient,
        ..scores
    }
}

fn rounded(scores: Scores, step: f64) -> Scores {
    Scores { step, ..scores }
}

fn auc_settings() -> Vec<Setting> {
    use Films::{One, Skewed, TwoTo184};
    let mut all = Vec::new();
    let mut push = |name: &str, n_patients, films, finding, scores| {
        all.push(setting(name, n_patients, films, finding, scores));
    };
    let normal = |auc| Scores::normal(auc, 1.0);
    for auc in [0.65, 0.8, 0.9, 0.97] {
        push(
            "32 positive patients",
            N_PATIENTS,
            Skewed,
            HERNIA,
            normal(auc),
        );
    }
    for auc in [0.65, 0.8, 0.9, 0.97] {
        push(
            "8 positive patients",
            N_PATIENTS / 4,
            Skewed,
            HERNIA,
            normal(auc),
        );
    }
    for auc in [0.8, 0.97] {
        push("1 % of films", N_PATIENTS, Skewed, ONE_PERCENT, normal(auc));
        push("18 % of films", N_PATIENTS, Skewed, EFFUSION, normal(auc));
        push(
            "18 % of films of 150 patients",
            150,
            Skewed,
            EFFUSION,
            normal(auc),
        );
    }
    for auc in [0.8, 0.97] {
        let one = Finding::Rare { patients: 0.02 };
        push("32 positives, one film each", 1_600, One, one, normal(auc));
        let many = Finding::Rare { patients: 0.05 };
        push(
            "20 of 400 patients with 2 to 184 films",
            400,
            TwoTo184,
            many,
            normal(auc),
        );
        push(
            "32 patients, films alike (0.8)",
            N_PATIENTS,
            Skewed,
            HERNIA,
            within(normal(auc), 0.8),
        );
        push(
            "32 patients, films less alike (0.2)",
            N_PATIENTS,
            Skewed,
            HERNIA,
            within(normal(auc), 0.2),
        );
        push(
            "32 patients, positives spread by 1.5",
            N_PATIENTS,
            Skewed,
            HERNIA,
            Scores::normal(auc, 1.5),
        );
        push(
            "32 patients, easy and hard cases",
            N_PATIENTS,
            Skewed,
            HERNIA,
            Scores::mixture(auc),
        );
        push(
            "32 patients, ties (step 0.5)",
            N_PATIENTS,
            Skewed,
            HERNIA,
            rounded(normal(auc), 0.5),
        );
    }
    push(
        "18 % of films, easy and hard, ties",
        N_PATIENTS / 4,
        Skewed,
        EFFUSION,
        rounded(Scores::mixture(0.85), 0.5),
    );
    all
}

/// The intervals of single AUCs.
pub(crate) fn aucs(replicates: usize, out_of_bounds: &mut Vec<String>) {
    println!("## The interval of an AUC\n");
    println!(
        "| setting | positive patients | df | by patient | truth below / above | width | by image | undefined |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (at, setting) in auc_settings().into_iter().enumerate() {
        let truth = setting.label.scores.auc();
        let results = replicate(replicates, |stream| {
            let mut random = Random::new(1_000 + at as u64, stream);
            let set = TestSet::draw(
                setting.n_patients,
                setting.films,
                &[setting.label],
                &mut random,
            );
            let scored = scored(&set);
            let by_patient = clustered_delong(scored, &set.patients).ok().flatten();
            (by_patient, delong(scored), positive_patients(&set))
        });
        let tally = |intervals: Vec<Option<Interval>>| Tally::of(intervals.into_iter(), truth);
        let of = |auc: &Option<AucEstimate>| auc.and_then(|auc| auc.interval(Level::P95));
        let by_patient = tally(results.iter().map(|result| of(&result.0)).collect());
        let by_image = tally(results.iter().map(|result| of(&result.1)).collect());
        let estimates: Vec<f64> = results
            .iter()
            .filter_map(|result| {
                Some(
                    result
                        .0
                        .filter(|auc| auc.interval(Level::P95).is_some())?
                        .auc,
                )
            })
            .collect();
        let width = by_patient.width / width_with_known_error(&estimates, truth);
        let df = mean(results.iter().map(|result| result.0?.degrees_of_freedom));
        let with = mean(results.iter().map(|result| Some(result.2 as f64)));
        println!(
            "| {} | {with:.0} | {df:.1} | {} | {:.1} / {:.1} | {width:.2} | {} | {} |",
            setting.name,
            by_patient.coverage,
            by_patient.below.value,
            by_patient.above.value,
            by_image.coverage,
            by_patient.undefined,
        );
        // Few patients with very unequal numbers of films and an AUC near 1: too wide, as films are
        // taken as copies there that are not.
        let is_cautious = setting.n_patients == 150 && truth > 0.95;
        let bounds = if is_cautious { [93.5, 98.0] } else { COVERAGE };
        check(
            &setting.name,
            by_patient.coverage,
            bounds,
            by_patient.defined,
            out_of_bounds,
        );
        if width > WIDTH {
            out_of_bounds.push(format!(
                "{}: width {width:.2}, at most {WIDTH}",
                setting.name
            ));
        }
    }
}

/// False alarms of the paired test between two models with the same AUC.
pub(crate) fn tests(replicates: usize, out_of_bounds: &mut Vec<String>) {
    println!("\n## False alarms of the paired test at 5 %\n");
    println!("| setting | df | by patient | by image | undefined |");
    println!("|---|---|---|---|---|");
    let mut settings = Vec::new();
    for auc in [0.65, 0.8, 0.9, 0.97] {
        let scores = Scores::normal(auc, 1.0);
        for (name, n_patients, finding) in [
            ("32 positive patients", N_PATIENTS, HERNIA),
            ("1 % of films", N_PATIENTS, ONE_PERCENT),
            ("18 % of films", N_PATIENTS, EFFUSION),
            ("8 positive patients", N_PATIENTS / 4, HERNIA),
        ] {
            settings.push((
                setting(name, n_patients, Films::Skewed, finding, scores),
                scores,
            ));
        }
    }
    for auc in [0.8, 0.97] {
        let (scores, wider) = (Scores::normal(auc, 1.0), Scores::normal(auc, 1.5));
        let unlike = "32 patients, the other model's positives spread by 1.5";
        settings.push((
            setting(unlike, N_PATIENTS, Films::Skewed, HERNIA, scores),
            wider,
        ));
        let tied = rounded(scores, 0.5);
        let ties = "32 patients, ties (step 0.5)";
        settings.push((setting(ties, N_PATIENTS, Films::Skewed, HERNIA, tied), tied));
    }
    for (at, (mut setting, other)) in settings.into_iter().enumerate() {
        setting.label.other = Some((other, 0.7));
        let results = replicate(replicates, |stream| {
            let mut random = Random::new(2_000 + at as u64, stream);
            let set = TestSet::draw(
                setting.n_patients,
                setting.films,
                &[setting.label],
                &mut random,
            );
            let test = |patients| {
                let test = paired_delong(&set.labels, &set.scores, &set.other, patients);
                test.ok().flatten()
            };
            (test(Some(&set.patients)), test(None))
        });
        let rejected = |p_values: &[f64]| {
            let rejected = p_values.iter().filter(|&&p| p < 0.05).count();
            Percent::of(rejected, p_values.len())
        };
        let by_patient: Vec<f64> = results
            .iter()
            .filter_map(|result| result.0?.p_value)
            .collect();
        let by_image: Vec<f64> = results
            .iter()
            .filter_map(|result| result.1?.p_value)
            .collect();
        let df = mean(results.iter().map(|result| result.0?.degrees_of_freedom));
        let alarms = rejected(&by_patient);
        println!(
            "| {} | {df:.1} | {alarms} | {} | {} |",
            setting.name,
            rejected(&by_image),
            replicates - by_patient.len(),
        );
        let name = format!("paired test, {}", setting.name);
        // Never above 6 %. Eight patients' differences come in steps, fewer near an AUC of 1: there the
        // test says too little rather than too much.
        let lowest = if setting.n_patients == N_PATIENTS {
            4.0
        } else {
            1.5
        };
        check(
            &name,
            alarms,
            [lowest, 6.0],
            by_patient.len(),
            out_of_bounds,
        );
    }
}

/// Sensitivity, specificity and predictive values at a fixed threshold.
pub(crate) fn rates(replicates: usize, out_of_bounds: &mut Vec<String>) {
    println!("\n## Wilson intervals of a decision's rates\n");
    println!("| setting | rate | truth | df | by patient | by image | undefined |");
    println!("|---|---|---|---|---|---|---|");
    for (at, (name, finding)) in [
        ("32 positive patients", HERNIA),
        ("1 % of films", ONE_PERCENT),
        ("18 % of films", EFFUSION),
    ]
    .into_iter()
    .enumerate()
    {
        let scores = Scores::normal(0.85, 1.0);
        let setting = setting(name, N_PATIENTS, Films::Skewed, finding, scores);
        let threshold = scores.kinds[0].1 / 2.0;
        let results = replicate(replicates, |stream| {
            let mut random = Random::new(3_000 + at as u64, stream);
            let set = TestSet::draw(
                setting.n_patients,
                setting.films,
                &[setting.label],
                &mut random,
            );
            let called: Vec<bool> = set
                .scores
                .iter()
                .map(|&x| f64::from(x) >= threshold)
                .collect();
            let by_patient = ClusteredRates::of_calls(&called, &set.labels, &set.patients).ok();
            let by_image = Confusion::of_calls(&called, &set.labels).ok();
            (by_patient, by_image)
        });
        let prevalence = prevalence(&setting);
        let (found, alarms) = scores.called(threshold);
        let called = prevalence * found + (1.0 - prevalence) * alarms;
        let truths = [
            ("sensitivity", found),
            ("specificity", 1.0 - alarms),
            ("PPV", prevalence * found / called),
            ("NPV", (1.0 - prevalence) * (1.0 - alarms) / (1.0 - called)),
        ];
        for (which, (rate, truth)) in truths.into_iter().enumerate() {
            let of_patient = |rates: &ClusteredRates| {
                [rates.sensitivity, rates.specificity, rates.ppv, rates.npv][which]
            };
            let by_patient = results
                .iter()
                .map(|(rates, _)| of_patient(rates.as_ref()?)?.wilson(Level::P95));
            let by_patient = Tally::of(by_patient, truth);
            let by_image = results.iter().map(|(_, counts)| {
                let counts = counts.as_ref()?;
                let rates = [
                    counts.sensitivity(),
                    counts.specificity(),
                    counts.ppv(),
                    counts.npv(),
                ];
                Some(rates[which]?.wilson(Level::P95))
            });
            let df = mean(
                results
                    .iter()
                    .map(|(rates, _)| of_patient(rates.as_ref()?)?.degrees_of_freedom),
            );
            println!(
                "| {name} | {rate} | {truth:.4} | {df:.1} | {} | {} | {} |",
                by_patient.coverage,
                Tally::of(by_image, truth).coverage,
                by_patient.undefined,
            );
            let name = format!("{rate}, {name}");
            check(
                &name,
                by_patient.coverage,
                COVERAGE,
                by_patient.defined,
                out_of_bounds,
            );
        }
    }
}

/// Fourteen labels, from one in five films to Hernia, with the AUCs of a good classifier.
fn fourteen_labels(other: bool) -> Vec<Label> {
    let commons = [
        0.13, 0.04, 0.18, 0.24, 0.07, 0.06, 0.022, 0.1, 0.07, 0.036, 0.043, 0.017, 0.045,
    ];
    let aucs = [
        0.77, 0.88, 0.83, 0.70, 0.83, 0.77, 0.73, 0.86, 0.75, 0.84, 0.92, 0.82, 0.77, 0.91,
    ];
    let findings = commons
        .map(|films| Finding::Common { films })
        .into_iter()
        .chain([HERNIA]);
    findings
        .zip(aucs)
        .map(|(finding, auc)| {
            let scores = Scores::normal(auc, 1.0);
            Label {
                finding,
                scores,
                other: other.then_some((scores, 0.7)),
            }
        })
        .collect()
}

/// The mean over fourteen labels, and the difference of two models' means.
pub(crate) fn means(replicates: usize, out_of_bounds: &mut Vec<String>) {
    println!("\n## The mean AUC of 14 labels\n");
    println!("| setting | df | by patient | by image | patient bootstrap | undefined |");
    println!("|---|---|---|---|---|---|");
    let names = || (0..14).map(|label| format!("label {label}"));
    let multi =
        |scores: &[f32], set: &TestSet| MultiLabel::new(names(), scores, &set.labels, None).ok();
    let truth = fourteen_labels(false)
        .iter()
        .map(|label| label.scores.auc())
        .sum::<f64>()
        / 14.0;
    for (at, n_patients) in [N_PATIENTS, N_PATIENTS / 4].into_iter().enumerate() {
        let labels = fourteen_labels(false);
        let resampled = n_patients < N_PATIENTS;
        let results = replicate(replicates, |stream| {
            let mut random = Random::new(4_000 + at as u64, stream);
            let set = TestSet::draw(n_patients, Films::Skewed, &labels, &mut random);
            let data = multi(&set.scores, &set)?;
            let by_patient = data.macro_auc_estimate(Some(&set.patients)).ok()??;
            // A set in which a label is absent has another truth.
            (by_patient.mean.n_labels == 14).then_some(())?;
            let by_image = data.macro_auc_estimate(None).ok()??.interval(Level::P95);
            let config = BootstrapConfig {
                replicates: 300,
                seed: stream,
                ..Default::default()
            };
            // Resampling takes a hundred times as long as the closed form: a fifth must do.
            let is_resampled = resampled && stream % 5 == 0;
            let patients = is_resampled.then_some(&set.patients[..]);
            let bootstrap = patients.and_then(|patients| {
                let estimate = bootstrap(&data, Some(patients), &config, |resample| {
                    resample.macro_auc()
                });
                estimate.ok()??.interval
            });
            Some((by_patient, by_image, bootstrap))
        });
        let tally = |intervals: Vec<Option<Interval>>| Tally::of(intervals.into_iter(), truth);
        let drawn = || results.iter().map(|result| result.as_ref());
        let by_patient = drawn().map(|result| result?.0.interval(Level::P95));
        let by_patient = tally(by_patient.collect());
        let by_image = tally(drawn().map(|result| result?.1).collect());
        let df = mean(
            results
                .iter()
                .map(|result| result.as_ref()?.0.degrees_of_freedom),
        );
        let of_bootstrap = if resampled {
            let of_some = drawn().step_by(5).map(|result| result?.2);
            tally(of_some.collect()).coverage.to_string()
        } else {
            "–".to_owned()
        };
        let name = format!("{n_patients} patients");
        println!(
            "| {name} | {df:.1} | {} | {} | {of_bootstrap} | {} |",
            by_patient.coverage, by_image.coverage, by_patient.undefined,
        );
        check(
            &format!("mean, {name}"),
            by_patient.coverage,
            COVERAGE,
            by_patient.defined,
            out_of_bounds,
        );

        let labels = fourteen_labels(true);
        let results = replicate(replicates, |stream| {
            let mut random = Random::new(4_100 + at as u64, stream);
            let set = TestSet::draw(n_patients, Films::Skewed, &labels, &mut random);
            let (a, b) = (multi(&set.scores, &set)?, multi(&set.other, &set)?);
            let test = |patients| a.paired_macro_auc(&b, patients).ok()?;
            Some((test(Some(&set.patients[..]))?, test(None)?))
        });
        let interval = |by_patient: bool| {
            let of_each = results.iter().map(move |result| {
                let (patient, image) = result.as_ref()?;
                let test = if by_patient { patient } else { image };
                test.test.interval(Level::P95)
            });
            Tally::of(of_each, 0.0)
        };
        let by_patient = interval(true);
        let df = mean(
            results
                .iter()
                .map(|result| result.as_ref()?.0.test.degrees_of_freedom),
        );
        println!(
            "| {name}, difference of two models | {df:.1} | {} | {} | – | {} |",
            by_patient.coverage,
            interval(false).coverage,
            by_patient.undefined,
        );
        let name = format!("difference of means, {name}");
        check(
            &name,
            by_patient.coverage,
            COVERAGE,
            by_patient.defined,
            out_of_bounds,
        );
    }
}

/// Average precision has no closed form here: the patient bootstrap.
pub(crate) fn average_precision(replicates: usize, out_of_bounds: &mut Vec<String>) {
    println!("\n## The patient bootstrap of an average precision\n");
    println!("| setting | truth | by patient | truth below / above | by image | undefined |");
    println!("|---|---|---|---|---|---|");
    let settings = [
        ("18 % of films", EFFUSION, [92.0, 96.5]),
        ("1 % of films", ONE_PERCENT, [85.0, 96.5]),
        ("32 positive patients", HERNIA, [75.0, 96.5]),
    ];
    for (at, (name, finding, bounds)) in settings.into_iter().enumerate() {
        let scores = Scores::normal(0.85, 1.0);
        let setting = setting(name, N_PATIENTS / 2, Films::Skewed, finding, scores);
        let truth = scores.average_precision(prevalence(&setting));
        let results = replicate(replicates, |stream| {
            let mut random = Random::new(5_000 + at as u64, stream);
            let set = TestSet::draw(
                setting.n_patients,
                setting.films,
                &[setting.label],
                &mut random,
            );
            let data = MultiLabel::new(["one"], &set.scores, &set.labels, None).ok();
            let interval = |patients: Option<&[u64]>| {
                let config = BootstrapConfig {
                    replicates: 400,
                    seed: stream,
                    ..Default::default()
                };
                let estimate = bootstrap(data.as_ref()?, patients, &config, |resample| {
                    resample.average_precision(0)
                });
                estimate.ok()??.interval
            };
            (interval(Some(&set.patients)), interval(None))
        });
        let by_patient = Tally::of(results.iter().map(|result| result.0), truth);
        println!(
            "| {name} of {} patients | {truth:.4} | {} | {:.1} / {:.1} | {} | {} |",
            setting.n_patients,
            by_patient.coverage,
            by_patient.below.value,
            by_patient.above.value,
            Tally::of(results.iter().map(|result| result.1), truth).coverage,
            by_patient.undefined,
        );
        let name = format!("average precision, {name}");
        check(
            &name,
            by_patient.coverage,
            bounds,
            by_patient.defined,
            out_of_bounds,
        );
    }
}

fn scored(set: &TestSet) -> Scored<'_> {
    match Scored::new(&set.scores, &set.labels) {
        Ok(scored) => scored,
        Err(error) => unreachable!("made scores are finite: {error}"),
    }
}

fn positive_patients(set: &TestSet) -> usize {
    let mut with: Vec<u64> = set
        .patients
        .iter()
        .zip(&set.labels)
        .filter(|(_, label)| **label)
        .map(|(patient, _)| *patient)
        .collect();
    with.dedup();
    with.len()
}

/// The share of films that are positive, from very many patients.
fn prevalence(setting: &Setting) -> f64 {
    if let Finding::Common { films } = setting.label.finding {
        return films;
    }
    let mut random = Random::new(9_000, 0);
    let set = TestSet::draw(400_000, setting.films, &[setting.label], &mut random);
    let positives = set.labels.iter().filter(|&&label| label).count();
    positives as f64 / set.labels.len() as f64
}

fn check(
    what: &str,
    value: Percent,
    bounds: [f64; 2],
    count: usize,
    out_of_bounds: &mut Vec<String>,
) {
    if !value.is_within(bounds, count) {
        let [low, high] = bounds;
        out_of_bounds.push(format!("{what}: {value}, expected {low} to {high}"));
    }
}
