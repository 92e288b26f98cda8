//! `cxr score` and `cxr compare`, run as a user runs them.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// A folder of tables and the program that reads them.
struct Workbench(TempDir);

impl Workbench {
    fn new(files: &[(&str, &str)]) -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            std::fs::write(bench.path(name), text).unwrap();
        }
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cxr"));
        command
            .current_dir(self.0.path())
            .args(arguments)
            .output()
            .unwrap()
    }

    /// What it prints when all goes well.
    #[track_caller]
    fn prints(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it complains about, with its exit code.
    #[track_caller]
    fn complains(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{arguments:?}");
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.path(name)).unwrap()).unwrap()
    }
}

/// Images 0 … 3 of patient `a`, 4 and 5 of `b`, 6 and 7 of `c`; image 7's Mass is not known, and nobody
/// has a hernia.
const LABELS: &str = "image,patient,Mass,Hernia
0.png,a,1,0\n1.png,a,1,0\n2.png,a,0,0\n3.png,a,1,0
4.png,b,0,0\n5.png,b,1,0\n6.png,c,0,0\n7.png,c,,0\n";

const A: &str = "image,prob_Mass,logit_Hernia
0.png,0.9,-3\n1.png,0.8,-2\n2.png,0.3,-4\n3.png,0.4,-3
4.png,0.6,-2\n5.png,0.7,-1\n6.png,0.1,-5\n7.png,0.2,-3\n";

const B: &str = "image,logit_Mass,Hernia
7.png,0,0.1\n6.png,1,0.1\n5.png,-1,0.1\n4.png,2,0.1
3.png,0.5,0.1\n2.png,-2,0.1\n1.png,3,0.1\n0.png,2.5,0.1\n";

fn small() -> Workbench {
    Workbench::new(&[("labels.csv", LABELS), ("a.csv", A), ("b.csv", B)])
}

#[test]
fn score_prints_a_table_and_writes_json() {
    let bench = small();
    let arguments = [
        "score",
        "a.csv",
        "--labels",
        "labels.csv",
        "--json",
        "out.json",
    ];
    let table = bench.prints(&arguments);
    assert!(table.starts_with("8 images of 3 patients"), "{table}");
    assert!(
        table.contains("Mass") && table.contains("0.9167"),
        "{table}"
    );

    let json = bench.json("out.json");
    let mass = &json["labels"][0];
    assert_eq!(mass["label"], "Mass");
    assert_eq!(
        (&mass["positives"], &mass["negatives"]),
        (&4.into(), &3.into())
    );
    assert_eq!(mass["auc"], 11.0 / 12.0); // one of twelve pairs is the wrong way round
    assert!(mass["auc_se"].is_f64() && mass["auc_interval"][1].is_f64());
    assert!(mass["auc_se_clustered"].is_null() && mass["auc_interval_clustered"].is_null());
    let hernia = &json["labels"][1];
    assert!(hernia["auc"].is_null() && hernia["average_precision"].is_null());
    assert!(hernia["brier"].as_f64().unwrap() < 0.02); // logits near −3
    assert_eq!(json["macro"]["n_labels"], 1);
    assert_eq!(json["macro"]["auc"], 11.0 / 12.0);
    assert!(mass["auc_df"].as_f64().unwrap() >= 1.0 && mass["approximate"] == true);
    assert!(mass["no_interval"].is_null() && mass["auc_df_clustered"].is_null());
    assert_eq!(hernia["no_interval"], "one_class");
    // Of one label the mean is the label, up to the scale of the interval near 1.
    let means = &json["macro"];
    assert_eq!(
        (&means["auc_se"], &means["auc_df"]),
        (&mass["auc_se"], &mass["auc_df"])
    );
    assert!(means["auc_interval"][0].is_f64() && means["bootstrap"].is_null());
    assert_eq!(
        (&json["n_images"], &json["n_patients"]),
        (&8.into(), &3.into())
    );
}

#[test]
fn score_by_patient_with_bootstrap_and_threshold() {
    let bench = small();
    let arguments = |json, seed| {
        [
            "score",
            "a.csv",
            "--labels",
            "labels.csv",
            "--by-patient",
            "--bootstrap",
            "300",
            "--seed",
            seed,
            "--threshold",
            "0.5",
            "--json",
            json,
        ]
    };
    let table = bench.prints(&arguments("one.json", "5"));
    assert!(
        table.contains("by patient") && table.contains("sensitivity"),
        "{table}"
    );
    bench.prints(&arguments("two.json", "5"));
    bench.prints(&arguments("three.json", "6"));
    let one = std::fs::read(bench.path("one.json")).unwrap();
    assert_eq!(one, std::fs::read(bench.path("two.json")).unwrap());
    let (one, three) = (bench.json("one.json"), bench.json("three.json"));
    assert!(one["labels"][0]["auc_se_clustered"].is_f64());
    assert!(one["labels"][0]["auc_interval_clustered"][0].is_f64());
    assert!(one["macro"]["auc_interval"][0].is_f64());
    assert_ne!(one["macro"]["bootstrap"], three["macro"]["bootstrap"]);
    // Drawing `a` never, or `c` only, leaves a class out.
    assert!(one["macro"]["bootstrap"]["skipped"].as_u64().unwrap() > 0);
    let decision = &one["labels"][0]["decision"];
    let counts = [
        "true_positives",
        "false_positives",
        "true_negatives",
        "false_negatives",
    ];
    assert_eq!(
        counts.map(|count| decision[count].as_u64().unwrap()),
        [3, 1, 2, 1]
    );
    assert_eq!(decision["sensitivity"], 0.75);
    // `a` has three of the four positives: one degree of freedom, and nothing is known.
    assert_eq!(decision["by_patient"], true);
    assert_eq!(decision["sensitivity_df"], 1.0);
    let ends = |key: &str| [0, 1].map(|end| decision[key][end].as_f64().unwrap());
    let [lower, upper] = ends("sensitivity_interval");
    assert!(lower < 0.1 && upper > 0.95, "{lower} to {upper}");
}

#[test]
fn the_output_says_what_an_interval_by_image_is_worth() {
    let bench = small();
    let unit = [
        "score",
        "a.csv",
        "--labels",
        "labels.csv",
        "--json",
        "out.json",
    ];
    let table = bench.prints(&unit);
    assert!(table.contains("take images as independent"), "{table}");
    assert!(table.contains("use --by-patient"), "{table}");
    assert!(bench.json("out.json")["note"].is_string());
    let mut by_patient = unit.to_vec();
    by_patient.push("--by-patient");
    let table = bench.prints(&by_patient);
    assert!(!table.contains("take images as independent"), "{table}");
    assert!(table.contains("≈ approximate: fewer than 10"), "{table}");
    assert!(bench.json("out.json")["note"].is_null());

    // Without a column of patients nobody can tell.
    let without: String = LABELS
        .lines()
        .map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            format!("{},{},{}\n", cells[0], cells[2], cells[3])
        })
        .collect();
    std::fs::write(bench.path("labels.csv"), without).unwrap();
    let table = bench.prints(&unit);
    assert!(table.contains("patients are not known"), "{table}");
    let table = bench.prints(&["compare", "a.csv", "b.csv", "--labels", "labels.csv"]);
    assert!(table.contains("patients are not known"), "{table}");

    // One image per patient: by image is by patient.
    let one_each: String = LABELS
        .lines()
        .enumerate()
        .map(|(row, line)| {
            let cells: Vec<&str> = line.split(',').collect();
            let patient = if row == 0 {
                "patient".to_owned()
            } else {
                format!("p{row}")
            };
            format!("{},{patient},{},{}\n", cells[0], cells[2], cells[3])
        })
        .collect();
    std::fs::write(bench.path("labels.csv"), one_each).unwrap();
    let table = bench.prints(&unit);
    assert!(!table.contains("independent"), "{table}");
}

/// A perfect model against an inverted one printed the interval "1.0000 to 1.0000" beside the p-value "–".
#[test]
fn a_difference_without_spread_is_undefined_and_says_why() {
    let labels = "image,patient,Mass\n1.png,a,1\n2.png,b,1\n3.png,c,0\n4.png,d,0\n";
    let perfect = "image,Mass\n1.png,0.9\n2.png,0.8\n3.png,0.2\n4.png,0.1\n";
    let inverted = "image,Mass\n1.png,0.1\n2.png,0.2\n3.png,0.8\n4.png,0.9\n";
    let bench = Workbench::new(&[
        ("labels.csv", labels),
        ("a.csv", perfect),
        ("b.csv", inverted),
    ]);
    for unit in [&[][..], &["--by-patient"]] {
        let mut arguments = vec!["compare", "a.csv", "b.csv", "--labels", "labels.csv"];
        arguments.extend(["--json", "out.json"]);
        arguments.extend(unit);
        let table = bench.prints(&arguments);
        assert!(!table.contains("1.0000 to 1.0000"), "{table}");
        assert!(
            table.contains("no interval and no p-value for Mass: the images show no spread"),
            "{table}"
        );
        let json = bench.json("out.json");
        let mass = &json["labels"][0];
        assert_eq!(
            (&mass["difference"], &mass["se"]),
            (&1.0.into(), &0.0.into())
        );
        for undefined in ["interval", "p_value", "p_value_holm", "df"] {
            assert!(mass[undefined].is_null(), "{undefined}: {mass}");
        }
        assert_eq!(mass["no_interval"], "no_spread");
        assert!(json["macro"]["interval"].is_null() && json["macro"]["p_value"].is_null());
    }
    let table = bench.prints(&["score", "a.csv", "--labels", "labels.csv"]);
    assert!(
        table.contains("no interval for Mass: the images show no spread"),
        "{table}"
    );
}

#[test]
fn a_label_can_be_left_out_of_the_mean_and_need_no_scores() {
    let bench = small();
    std::fs::write(
        bench.path("mass.csv"),
        A.replace("logit_Hernia", "logit_Fracture"),
    )
    .unwrap();
    let (code, error) = bench.complains(&["score", "mass.csv", "--labels", "labels.csv"]);
    assert_eq!(code, 1);
    assert!(
        error.contains("`logit_Fracture` is about none of the labels `Mass`, `Hernia`"),
        "{error}"
    );

    let only_mass: String = A
        .lines()
        .map(|line| format!("{}\n", line.rsplit_once(',').unwrap().0))
        .collect();
    std::fs::write(bench.path("mass.csv"), only_mass).unwrap();
    let (code, error) = bench.complains(&["score", "mass.csv", "--labels", "labels.csv"]);
    assert_eq!(
        (code, error.contains("expected a column `Hernia`")),
        (1, true),
        "{error}"
    );
    let arguments = [
        "score",
        "mass.csv",
        "--labels",
        "labels.csv",
        "--without",
        "Hernia",
        "--json",
        "out.json",
    ];
    assert!(bench.prints(&arguments).contains("mean without Hernia"));
    assert_eq!(bench.json("out.json")["macro"]["without"][0], "Hernia");
    let (code, error) = bench.complains(&[
        "score",
        "a.csv",
        "--labels",
        "labels.csv",
        "--without",
        "Hernias",
    ]);
    assert_eq!(code, 1);
    assert!(
        error.contains("expected one of the labels `Mass`, `Hernia`, got `Hernias`"),
        "{error}"
    );
}

/// Predictions are as people have them, like label tables: compressed, from another country's spreadsheet, from pandas.
#[test]
fn predictions_in_every_form_score_the_same() {
    let bench = small();
    let score = |file: &str| bench.prints(&["score", file, "--labels", "labels.csv"]);
    let expected = score("a.csv");
    let utf16 = |text: &str| -> Vec<u8> {
        let text = format!("\u{feff}{text}");
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    };
    let gzip = |text: &str| {
        let level = flate2::Compression::new(6);
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
        std::io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let excel = A
        .replace(',', ";")
        .replace('.', ",")
        .replace(",png", ".png");
    let pandas: String = (A.lines().enumerate())
        .map(|(at, line)| match at {
            0 => format!(",{line}\n"),
            _ => format!("{},{line}\n", at - 1),
        })
        .collect();
    for (form, bytes) in [
        ("gzip", gzip(A)),
        ("semicolons and decimal commas", excel.clone().into_bytes()),
        ("UTF-16", utf16(&A.replace(',', "\t"))),
        (
            "UTF-16 of Excel",
            utf16(&format!("sep=;\r\n{}", excel.replace('\n', "\r\n"))),
        ),
        ("mark", format!("\u{feff}{A}").into_bytes()),
        ("CR", A.replace('\n', "\r").into_bytes()),
        ("index", pandas.into_bytes()),
        ("empty columns", A.replace('\n', ",,\n").into_bytes()),
    ] {
        std::fs::write(bench.path("form.csv"), bytes).unwrap();
        assert_eq!(score("form.csv"), expected, "{form}");
    }
    for (bytes, cause) in [
        (&b"image,\xd6dem\na.png,1\n"[..], "Latin-1"),
        (b"PK\x03\x04", "Excel"),
        (b"image,Mass\n\"a.png,1\n", "a quote is opened"),
    ] {
        std::fs::write(bench.path("form.csv"), bytes).unwrap();
        let (_, error) = bench.complains(&["score", "form.csv", "--labels", "labels.csv"]);
        assert!(error.contains(cause), "{error}");
    }
    // Rows keep their numbers, and what a cell holds is shown without being obeyed.
    let broken = A.replace('\n', "\r\n").replace("-5", "\u{1b}[2J");
    std::fs::write(bench.path("form.csv"), broken).unwrap();
    let (_, error) = bench.complains(&["score", "form.csv", "--labels", "labels.csv"]);
    assert!(
        error.contains("line 8") && error.contains("\\u{1b}[2J"),
        "{error:?}"
    );
    assert!(!error.contains('\u{1b}'), "{error:?}");
}

#[test]
fn what_cannot_be_scored_is_an_error_with_its_place_or_a_count() {
    let bench = small();
    for (broken, place) in [
        (
            A.replace("0.png,0.9", "0.png,NaN"),
            "line 2, column `prob_Mass`: expected a finite number, got `NaN`",
        ),
        (
            A.replace("-5", "low"),
            "line 8, column `logit_Hernia`: expected a finite number, got `low`",
        ),
        (
            A.replace("7.png", "0.png"),
            "line 9: image `0.png` stands already on line 2",
        ),
        (
            A.replace("7.png", "99.png"),
            "line 9: image `99.png` has no row in the label table",
        ),
    ] {
        std::fs::write(bench.path("broken.csv"), broken).unwrap();
        let arguments = [
            "score",
            "broken.csv",
            "--labels",
            "labels.csv",
            "--json",
            "out.json",
        ];
        let (code, error) = bench.complains(&arguments);
        assert_eq!(code, 1);
        assert!(
            error.starts_with("error: `broken.csv`, ") && error.contains(place),
            "{error}"
        );
        assert!(
            !bench.path("out.json").exists(),
            "nothing is written after `{place}`"
        );

        let mut allowed = arguments.to_vec();
        allowed.push("--allow-missing");
        assert!(bench.prints(&allowed).contains("left out: 1 "));
        std::fs::remove_file(bench.path("out.json")).unwrap();
    }
    let (code, error) = bench.complains(&["score", "nowhere.csv", "--labels", "labels.csv"]);
    assert_eq!(code, 1);
    assert!(
        error.starts_with("error: cannot read `nowhere.csv`: "),
        "{error}"
    );
    let unwritable = [
        "score",
        "a.csv",
        "--labels",
        "labels.csv",
        "--json",
        "labels.csv/out.json",
    ];
    let (code, error) = bench.complains(&unwritable);
    assert_eq!(
        (code, error.contains("cannot write `labels.csv/out.json`")),
        (1, true),
        "{error}"
    );
}

#[test]
fn wrong_usage_ends_with_code_2_and_help_teaches() {
    let bench = small();
    for wrong in [
        ["score", "a.csv", "", ""].as_slice(),
        &["score", "a.csv", "--labels", "labels.csv", "--seed", "1"],
        &[
            "score",
            "a.csv",
            "--labels",
            "labels.csv",
            "--bootstrap",
            "0",
        ],
        &[
            "score",
            "a.csv",
            "--labels",
            "labels.csv",
            "--threshold",
            "NaN",
        ],
        &["compare", "a.csv", "--labels", "labels.csv"],
    ] {
        assert_eq!(bench.complains(wrong).0, 2, "{wrong:?}");
    }
    let help = bench.prints(&["score", "--help"]);
    for taught in ["logit_", "--by-patient", "--allow-missing", "Examples:"] {
        assert!(help.contains(taught), "no {taught} in {help}");
    }
}

#[test]
fn patients_come_from_the_image_name_without_a_column() {
    let named = |text: &str| {
        let mut text = text.replace(".png", "_000.png");
        for image in 0..8 {
            text = text.replace(
                &format!("\n{image}_"),
                &format!("\n{:08}_{image}", image / 2),
            );
        }
        text
    };
    let labels: String = LABELS
        .lines()
        .map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            format!("{},{},{}\n", cells[0], cells[2], cells[3])
        })
        .collect();
    let bench = Workbench::new(&[("labels.csv", &named(&labels)), ("a.csv", &named(A))]);
    let table = bench.prints(&["score", "a.csv", "--labels", "labels.csv", "--by-patient"]);
    assert!(table.starts_with("8 images of 4 patients"), "{table}");

    let bench = Workbench::new(&[("labels.csv", &labels), ("a.csv", A)]);
    let table = bench.prints(&["score", "a.csv", "--labels", "labels.csv"]);
    assert!(table.starts_with("8 images,"), "{table}");
    let (code, error) =
        bench.complains(&["score", "a.csv", "--labels", "labels.csv", "--by-patient"]);
    assert_eq!(code, 1);
    assert!(
        error.contains("expected a patient for every image, got none for `0.png`"),
        "{error}"
    );
}

#[test]
fn compare_tests_two_models() {
    let bench = small();
    let arguments = |b| {
        [
            "compare",
            "a.csv",
            b,
            "--labels",
            "labels.csv",
            "--json",
            "out.json",
        ]
    };
    let table = bench.prints(&arguments("b.csv"));
    assert!(
        table.contains("A − B") && table.contains("tests take images"),
        "{table}"
    );
    let json = bench.json("out.json");
    let mass = &json["labels"][0];
    assert_eq!(
        (&mass["auc_a"], &mass["auc_b"]),
        (&(11.0 / 12.0).into(), &(8.0 / 12.0).into())
    );
    let p_value = mass["p_value"].as_f64().unwrap();
    assert!(p_value > 0.0 && p_value < 1.0 && mass["p_value_holm"] == p_value);
    assert!(json["labels"][1]["p_value"].is_null());

    bench.prints(&arguments("a.csv"));
    let itself = bench.json("out.json");
    assert_eq!(itself["labels"][0]["p_value"], 1.0);
    assert_eq!(itself["labels"][0]["difference"], 0.0);

    let mut by_patient = arguments("b.csv").to_vec();
    by_patient.extend(["--by-patient", "--bootstrap", "200"]);
    assert!(
        bench
            .prints(&by_patient)
            .contains("bootstrap replicates of patients")
    );
    let json = bench.json("out.json");
    assert!(json["macro"]["interval"][0].is_f64());
    assert_ne!(json["labels"][0]["se"], mass["se"]);
    assert!(json["labels"][0]["df"].is_f64() && json["macro"]["df"].is_f64());
    assert_eq!(json["macro"]["p_value"], json["labels"][0]["p_value"]);
}

#[test]
fn compare_wants_the_same_images_of_both() {
    let bench = small();
    let shorter = B.replace("3.png,0.5,0.1\n", "");
    std::fs::write(bench.path("b.csv"), shorter).unwrap();
    let arguments = ["compare", "a.csv", "b.csv", "--labels", "labels.csv"];
    let (code, error) = bench.complains(&arguments);
    assert_eq!(code, 1);
    assert!(
        error.contains("`a.csv`, line 5: image `3.png` has no row in `b.csv`"),
        "{error}"
    );
    let mut allowed = arguments.to_vec();
    allowed.push("--allow-missing");
    let table = bench.prints(&allowed);
    assert!(table.starts_with("7 images of 3 patients"), "{table}");
    assert!(
        table.contains("left out: 1 rows of images that the other model does not score"),
        "{table}"
    );
}

/// The folder of real data, or a word that the test is skipped.
fn shared() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let folder = std::env::var_os("CXR_SHARED").map_or(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    println!(
        "skipped: no real data at `{}`; CXR_SHARED names its folder",
        folder.display()
    );
    None
}

/// A published CheXNet on 22,433 images: its AUCs as published, and DeLong's errors as an
/// independent implementation gives them.
#[test]
fn published_aucs_come_out_of_published_predictions() {
    let Some(shared) = shared() else { return };
    let bench = Workbench::new(&[]);
    let predictions = shared.join("data/predictions/preds.csv");
    let labels = shared.join("data/nih-meta/Data_Entry_2017_v2020.csv.gz");
    bench.prints(&[
        "score",
        predictions.to_str().unwrap(),
        "--labels",
        labels.to_str().unwrap(),
        "--by-patient",
        "--json",
        "out.json",
    ]);
    let json = bench.json("out.json");
    let published = std::fs::read_to_string(shared.join("data/predictions/aucs.csv")).unwrap();
    let published: HashMap<&str, f64> = published
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(','))
        .map(|(label, auc)| (label, auc.parse().unwrap()))
        .collect();
    let of_labels = json["labels"].as_array().unwrap();
    assert_eq!((of_labels.len(), &json["n_images"]), (14, &22_433.into()));
    let mut wrong = String::new();
    for label in of_labels {
        let (name, auc) = (
            label["label"].as_str().unwrap(),
            label["auc"].as_f64().unwrap(),
        );
        if (auc - published[name]).abs() > 1e-9 {
            writeln!(wrong, "{name}: {auc}, published {}", published[name]).unwrap();
        }
    }
    assert_eq!(wrong, "");
    assert!((json["macro"]["auc"].as_f64().unwrap() - 0.838_267_1).abs() < 5e-8);

    let error = |name: &str, key: &str| {
        let label = of_labels
            .iter()
            .find(|label| label["label"] == name)
            .unwrap();
        label[key].as_f64().unwrap()
    };
    for (name, expected) in [
        ("Atelectasis", 0.0042),
        ("Pneumothorax", 0.0053),
        ("Pneumonia", 0.0153),
        ("Hernia", 0.0222),
    ] {
        let ours = error(name, "auc_se");
        assert!(
            (ours - expected).abs() < 5e-5,
            "{name}: {ours}, expected {expected}"
        );
    }
    let by_patient = error("Pneumothorax", "auc_se_clustered");
    assert!(
        (by_patient - 0.0097).abs() < 5e-5,
        "by patient: {by_patient}"
    );
}

/// A blank is no negative unless somebody says so.
#[test]
fn blank_cells_of_the_truth_count_where_that_is_asked_for() {
    let bench = Workbench::new(&[
        ("labels.csv", "image,A,B\na.png,1,1\nb.png,,0\nc.png,0,-1\n"),
        (
            "p.csv",
            "image,A,B\na.png,0.9,0.9\nb.png,0.95,0.2\nc.png,0.1,0.3\n",
        ),
    ]);
    let scored = |rules: &[&str]| -> Value {
        let fixed = [
            "score",
            "p.csv",
            "--labels",
            "labels.csv",
            "--json",
            "m.json",
            "--force",
        ];
        let rules = rules.iter().flat_map(|rule| ["--blank", rule]);
        let arguments: Vec<&str> = fixed.into_iter().chain(rules).collect();
        bench.prints(&arguments);
        serde_json::from_str(&std::fs::read_to_string(bench.path("m.json")).unwrap()).unwrap()
    };
    let of = |scored: &Value, label: usize| {
        let label = &scored["labels"][label];
        let count = |key: &str| label[key].as_u64().unwrap();
        let counts = (count("positives"), count("negatives"));
        (counts, label["auc"].as_f64().unwrap())
    };
    // By hand: 0.9 is above 0.1 and not above 0.95.
    assert_eq!(of(&scored(&[]), 0), ((1, 1), 1.));
    for rules in [&["negative"][..], &["A=negative"]] {
        let scored = scored(rules);
        assert_eq!(of(&scored, 0), ((1, 2), 0.5));
        // What is uncertain stays out.
        assert_eq!(of(&scored, 1), ((1, 1), 1.));
    }
    assert_eq!(of(&scored(&["B=negative"]), 0), ((1, 1), 1.));
}

/// CheXpert's and CXR-LT's scores are of studies: the views of one examination are one score.
#[test]
fn studies_are_scored_by_the_mean_or_the_max_of_their_images() {
    let bench = Workbench::new(&[
        (
            "labels.csv",
            "image,patient,study,A\na1.png,p,1,1\na2.png,p,1,1\nb1.png,q,1,0\nc1.png,r,1,0\nnot scored.png,r,1,1\n",
        ),
        (
            "p.csv",
            "image,A\na1.png,0.2\na2.png,0.9\nb1.png,0.4\nc1.png,0.6\n",
        ),
        (
            "q.csv",
            "image,A\na1.png,0.2\na2.png,0.3\nb1.png,0.4\nc1.png,0.6\n",
        ),
        ("few.csv", "image,A\na1.png,0.2\nb1.png,0.4\nc1.png,0.6\n"),
        (
            "no-studies.csv",
            "image,patient,A\na1.png,p,1\na2.png,p,1\nb1.png,q,0\nc1.png,r,0\n",
        ),
    ]);
    let json = |arguments: &[&str]| -> Value {
        let fixed = [
            "--labels",
            "labels.csv",
            "--by-patient",
            "--json",
            "m.json",
            "--force",
        ];
        bench.prints(&[arguments, &fixed].concat());
        serde_json::from_str(&std::fs::read_to_string(bench.path("m.json")).unwrap()).unwrap()
    };
    // By hand: of four pairs of images, two are in order; a study's scores are 0.9 and 0.55 against 0.4 and 0.6.
    for (rule, n_scored, auc) in [
        (&[][..], 4, 0.5),
        (&["--by-study", "max"], 3, 1.),
        (&["--by-study", "mean"], 3, 0.5),
    ] {
        let scored = json(&[&["score", "p.csv"], rule].concat());
        assert_eq!(scored["n_images"], n_scored, "{rule:?}");
        assert_eq!(scored["n_patients"], 3, "{rule:?}");
        assert_eq!(scored["labels"][0]["auc"], auc, "{rule:?}");
    }
    let text = bench.prints(&[
        "score",
        "p.csv",
        "--labels",
        "labels.csv",
        "--by-study",
        "max",
    ]);
    assert!(text.starts_with("3 studies of 3 patients"), "{text}");
    let both = json(&["compare", "p.csv", "q.csv", "--by-study", "max"]);
    assert_eq!(both["n_images"], 3);
    assert_eq!(both["labels"][0]["auc_a"], 1.);
    assert_eq!(both["labels"][0]["auc_b"], 0.);
    // A model that lacks an image of a study is told of, whatever is joined.
    let arguments = [
        "compare",
        "p.csv",
        "few.csv",
        "--labels",
        "labels.csv",
        "--by-study",
        "max",
    ];
    let (code, stderr) = bench.complains(&arguments);
    assert!(code == 1 && stderr.contains("a2.png"), "{stderr}");
    let arguments = [
        "score",
        "p.csv",
        "--labels",
        "no-studies.csv",
        "--by-study",
        "max",
    ];
    let (code, stderr) = bench.complains(&arguments);
    assert!(
        code == 1 && stderr.contains("which images are of one study"),
        "{stderr}"
    );
}
