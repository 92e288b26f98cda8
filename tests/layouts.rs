//! Phantoms in the files of published data sets: drawn, inspected, trained on and removed as a user would.

#![expect(clippy::unwrap_used, reason = "a test stops at what should not happen")]

#[path = "common/ended.rs"]
mod ended;

use std::path::PathBuf;

use ended::ends_in;
use serde_json::Value;
use tempfile::TempDir;

struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs, and must end so.
    fn ends(&self, arguments: &[&str], code: i32) -> (String, String) {
        ends_in(self.0.path(), arguments, code)
    }

    fn phantoms(&self, layout: &str, seed: &str) {
        let arguments = [
            "phantoms",
            "--layout",
            layout,
            "--data",
            layout,
            "--images",
            "336",
            "--side",
            "64",
            "--seed",
            seed,
            "--replace",
        ];
        self.ends(&arguments, 0);
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let (stdout, _) = self.ends(&[arguments, &["--json"]].concat(), 0);
        serde_json::from_str(&stdout).unwrap()
    }
}

fn sum(counts: &Value) -> u64 {
    let counts = counts.as_object().unwrap().values();
    counts.map(|count| count.as_u64().unwrap()).sum()
}

#[test]
fn every_layout_is_read_back_as_the_data_set_it_has_the_files_of() {
    let bench = Bench::new();
    bench.phantoms("chest-x-ray14", "3");
    let nih = bench.json(&["inspect", "chest-x-ray14"]);
    let (cardiomegaly, patients) = (
        &nih["labels"]["Cardiomegaly"]["positives"],
        &nih["patients"],
    );
    for (layout, format, has_patients, parts) in [
        ("chexpert", "chexpert", true, 3),
        ("mimic", "mimic-cxr-jpg", true, 3),
        ("padchest", "padchest", true, 0),
        ("vindr", "vindr-cxr", false, 2),
        ("rsna", "rsna-pneumonia", false, 0),
    ] {
        bench.phantoms(layout, "3");
        let json = bench.json(&["inspect", layout]);
        assert_eq!(json["format"], format);
        assert_eq!(json["images"], 336, "{layout}");
        assert_eq!(json["image_files"]["count"], 336, "{layout}");
        assert_eq!(json["image_files"]["sizes"]["64x64"], 336, "{layout}");
        assert_eq!(json["image_files"]["broken"], Value::Array(Vec::new()));
        match has_patients {
            true => assert_eq!(json["patients"], *patients, "{layout}"),
            false => assert_eq!(json["patients"], Value::Null),
        }
        let official = &json["official_parts"];
        let filled = ["train", "validation", "test"].iter().filter(|part| {
            official[part]["images"]
                .as_u64()
                .is_some_and(|images| images > 0)
        });
        assert_eq!(filled.count(), parts, "{layout} {official}");
        assert_eq!(sum(&json["views"]), 336);
        for (label, counts) in json["labels"].as_object().unwrap() {
            assert_eq!(sum(counts), 336, "{layout} {label}");
        }
        match layout {
            "padchest" => assert_eq!(json["labels"]["cardiomegaly"]["positives"], *cardiomegaly),
            // Some positives are called uncertain, and more images are left out.
            "chexpert" | "mimic" => {
                let heart = &json["labels"]["Cardiomegaly"];
                let of = |key: &str| heart[key].as_u64().unwrap();
                assert!(of("positives") <= cardiomegaly.as_u64().unwrap());
                assert!(of("positives") + of("uncertain") >= cardiomegaly.as_u64().unwrap());
                assert!(of("unknown") > 0 && of("negatives") > 0);
                assert!(json["studies"].as_u64() < Some(336), "{layout}");
            }
            _ => assert!(json["boxes"].as_u64() > Some(0), "{layout}"),
        }
        // The same seed gives the same bytes, another one another set, and nothing else is removed.
        bench.ends(
            &[
                "phantoms", "--layout", layout, "--data", layout, "--images", "336", "--side",
                "64", "--seed", "3",
            ],
            0,
        );
        if layout == "vindr" {
            std::fs::write(bench.path("vindr/annotations/mine.txt"), "mine").unwrap();
            let other = [
                "phantoms",
                "--layout",
                layout,
                "--data",
                layout,
                "--images",
                "340",
                "--side",
                "64",
                "--replace",
            ];
            let (_, stderr) = bench.ends(&other, 1);
            assert!(stderr.contains("mine.txt"), "{stderr}");
            std::fs::remove_file(bench.path("vindr/annotations/mine.txt")).unwrap();
        }
        bench.phantoms(layout, "4");
        let other = bench.json(&["inspect", layout, "--no-images"]);
        assert_ne!(other["index_fingerprint"], json["index_fingerprint"]);
    }
    let (_, stderr) = bench.ends(&["phantoms", "--layout", "brax", "--data", "x"], 2);
    assert!(stderr.contains("chexpert"), "{stderr}");
}

const EXPERIMENT: &str = r#"
name = "tiny"

[data]
label_map = "common-18"
uncertain = { default = "zeros", labels = { Edema = { soft = [0.55, 0.85] }, Consolidation = "ignore" } }

[model]
backbone = { densenet = { stem_channels = 8, growth_rate = 4, block_layers = [1, 2] } }
head = { top-network = { conv_channels = [8, 8], hidden = 8 } }

[augmentation]
image_size = 64
crop_size = 56

[training]
batch_size = 32

[[training.stages]]
name = "all"
epochs = 1
schedule = { constant = { learning_rate = 1e-3 } }

[[variants]]
name = "bce"
loss = "bce"

[[variants]]
name = "focal"
loss = "focal"
"#;

/// From CheXpert's files to a report, by the labels of another data set: uncertain cells have their policy, the
/// publisher's parts are the split, and a label without images of both classes is no obstacle.
#[test]
fn a_published_data_set_is_trained_on_under_common_labels() {
    let bench = Bench::new();
    bench.phantoms("chexpert", "5");
    std::fs::write(bench.path("tiny.toml"), EXPERIMENT).unwrap();
    let train = |variant| {
        [
            "train",
            "--experiment",
            "tiny.toml",
            "--variant",
            variant,
            "--data",
            "chexpert",
            "--runs",
            "runs",
        ]
    };
    // A focal loss has no soft targets, and says so before it trains.
    let (_, stderr) = bench.ends(&train("focal"), 1);
    assert!(stderr.contains("data.uncertain"), "{stderr}");
    bench.ends(&train("bce"), 0);
    let text = std::fs::read_to_string(bench.path("runs/tiny/bce/metrics.json")).unwrap();
    let metrics: Value = serde_json::from_str(&text).unwrap();
    let inspected = bench.json(&["inspect", "chexpert", "--no-images"]);
    for part in ["train", "validation", "test"] {
        assert_eq!(
            metrics["data"]["images"][part],
            inspected["official_parts"][part]["images"]
        );
    }
    assert_eq!(metrics["data"]["release"], "CheXpert");
    let labels = std::fs::read_to_string(bench.path("runs/tiny/bce/labels-train.csv")).unwrap();
    let header: Vec<&str> = labels.lines().next().unwrap().split(',').collect();
    assert_eq!(header.len(), 2 + 18);
    // CheXpert has no hernia: unknown on every image, not negative.
    let hernia = header.iter().position(|name| *name == "Hernia").unwrap();
    let effusion = header.iter().position(|name| *name == "Effusion").unwrap();
    let cells = |column: usize| {
        labels
            .lines()
            .skip(1)
            .map(move |line| line.split(',').nth(column).unwrap())
    };
    assert!(cells(hernia).all(str::is_empty));
    assert!(cells(effusion).any(|cell| cell == "1") && cells(effusion).any(|cell| cell == "0"));

    // With blanks as negative only what is uncertain, or no label of CheXpert's, is not known; one label is left out.
    let negative = EXPERIMENT
        .replace("name = \"tiny\"", "name = \"blank\"")
        .replace(
            "\n[model]\n",
            "\n[data.blank]\ndefault = \"negative\"\nlabels = { Fracture = \"unknown\" }\n\n[model]\n",
        );
    std::fs::write(bench.path("tiny.toml"), &negative).unwrap();
    bench.ends(&train("bce"), 0);
    let table = std::fs::read_to_string(bench.path("runs/blank/bce/labels-train.csv")).unwrap();
    let blanks = |table: &str, label: &str| {
        let column = header.iter().position(|name| *name == label).unwrap();
        let rows = table.lines().skip(1);
        rows.filter(|line| line.split(',').nth(column) == Some(""))
            .count()
    };
    assert!(blanks(&table, "Effusion") < blanks(&labels, "Effusion"));
    assert!(blanks(&labels, "Fracture") > 0);
    for label in ["Fracture", "Hernia"] {
        assert_eq!(blanks(&table, label), blanks(&labels, label), "{label}");
    }
    let wrong = negative
        .replace("Fracture = ", "Fractures = ")
        .replace("name = \"blank\"", "name = \"wrong\"");
    std::fs::write(bench.path("tiny.toml"), wrong).unwrap();
    let (_, stderr) = bench.ends(&train("bce"), 1);
    assert!(stderr.contains("`Fractures`"), "{stderr}");
}

/// Trained on one data set, tested on others whose labels are called otherwise, and told in the report.
#[test]
fn a_model_is_tested_on_data_sets_that_it_was_not_trained_on() {
    let bench = Bench::new();
    for (layout, seed) in [
        ("chexpert", "5"),
        ("padchest", "6"),
        ("mimic", "7"),
        ("rsna", "8"),
    ] {
        bench.phantoms(layout, seed);
    }
    let experiment = EXPERIMENT.replace("label_map = \"common-18\"\n", "");
    std::fs::write(bench.path("tiny.toml"), experiment).unwrap();
    let train = [
        "train",
        "--experiment",
        "tiny.toml",
        "--variant",
        "bce",
        "--data",
        "chexpert",
        "--runs",
        "runs",
    ];
    bench.ends(&train, 0);
    let run = "runs/tiny/bce";
    let model = std::fs::read(bench.path("runs/tiny/bce/model.safetensors")).unwrap();
    let test = |name: &str| -> Value {
        let path = bench
            .path(run)
            .join("external")
            .join(name)
            .join("metrics.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    let labels = |test: &Value| -> Vec<String> {
        let labels = test["by_image"]["labels"].as_array().unwrap().iter();
        labels
            .map(|label| label["label"].as_str().unwrap().to_owned())
            .collect()
    };

    let (stdout, _) = bench.ends(&["evaluate", run, "--data", "padchest"], 0);
    assert!(
        stdout.contains("trained on CheXpert, tested on PadChest: 336 images of"),
        "{stdout}"
    );
    let padchest = test("padchest");
    // PadChest says nothing of opacities, lesions or devices; normal is its word for no finding.
    assert_eq!(
        labels(&padchest),
        [
            "No Finding",
            "Cardiomegaly",
            "Edema",
            "Consolidation",
            "Pneumonia",
            "Atelectasis",
            "Pneumothorax",
            "Pleural Effusion"
        ]
    );
    let inspected = bench.json(&["inspect", "padchest", "--no-images"]);
    let effusion = &padchest["by_image"]["labels"][7];
    assert_eq!(
        effusion["positives"],
        inspected["labels"]["pleural effusion"]["positives"]
    );
    assert!(effusion["auc_interval_clustered"].is_array());
    assert_eq!(
        (&padchest["images_trained_on"], &padchest["phantom"]),
        (&0.into(), &true.into())
    );
    assert!(padchest["by_study"].is_null());

    // MIMIC's names are CheXpert's; its publisher's test images are taken, and studies are scored too.
    bench.ends(
        &["evaluate", run, "--data", "mimic", "--by-study", "max"],
        0,
    );
    let mimic = test("mimic");
    let inspected = bench.json(&["inspect", "mimic", "--no-images"]);
    assert_eq!(
        mimic["by_image"]["n_images"],
        inspected["official_parts"]["test"]["images"]
    );
    assert_eq!(labels(&mimic).len(), 14);
    let n_studies = mimic["by_study"]["summary"]["n_images"].as_u64().unwrap();
    assert!(n_studies < mimic["by_image"]["n_images"].as_u64().unwrap());
    bench.ends(&["evaluate", run, "--data", "rsna", "--name", "kaggle"], 0);
    assert_eq!(
        labels(&test("kaggle")),
        ["No Finding", "Lung Opacity", "Pneumonia"]
    );
    assert!(test("kaggle")["by_image"]["n_patients"].is_null());
    let (_, stderr) = bench.ends(
        &["evaluate", run, "--data", "rsna", "--by-study", "mean"],
        1,
    );
    assert!(stderr.contains("which images are of one study"), "{stderr}");

    // Blanks of the other tables are what the run's experiment says, or the command.
    let arguments = ["evaluate", run, "--data", "mimic", "--name", "blank"];
    bench.ends(&[&arguments[..], &["--blank", "negative"]].concat(), 0);
    let known = |test: &Value| {
        let labels = test["by_image"]["labels"].as_array().unwrap().iter();
        let of = |label: &Value| ["positives", "negatives"].map(|key| label[key].as_u64().unwrap());
        labels.map(|label| of(label)[1]).sum::<u64>()
    };
    let blank = test("blank");
    assert!(known(&blank) > known(&mimic));
    assert!(mimic["blank_labels_negative"].is_null());
    let negative = blank["blank_labels_negative"].as_array().unwrap();
    assert!(negative.contains(&"Edema".into()), "{negative:?}");

    // What is said of another data set means nothing on the run's own; its own studies are scored from its predictions.
    let own = ["evaluate", run, "--data", "chexpert", "--by-study", "max"];
    let (_, stderr) = bench.ends(&own, 1);
    assert!(stderr.contains("`--by-study` is about another"), "{stderr}");
    let predictions = "runs/tiny/bce/predictions-test.csv";
    let arguments = [
        "score",
        predictions,
        "--labels",
        "chexpert",
        "--by-study",
        "max",
    ];
    let (stdout, _) = bench.ends(&arguments, 0);
    assert!(stdout.contains(" studies of "), "{stdout}");

    // The run is as it was, and the report says what was tested where.
    assert_eq!(
        std::fs::read(bench.path("runs/tiny/bce/model.safetensors")).unwrap(),
        model
    );
    bench.ends(&["report", "runs/tiny"], 0);
    let report = std::fs::read_to_string(bench.path("runs/tiny/report.md")).unwrap();
    for part in [
        "On other data sets",
        "trained on CheXpert, tested on PadChest (drawn, not taken), 336 images of",
        "tested on MIMIC-CXR-JPG",
        "AUC by study, max",
        "Empty cells of No Finding, ",
    ] {
        assert!(report.contains(part), "{part} is missing in\n{report}");
    }
    assert!(bench.path("runs/tiny/tables/external.csv").exists());
}

/// Two data sets with different labels as one, tested on a third: what one does not have is unknown there, and the other's
/// images alone say how good its labels are.
#[test]
fn two_data_sets_are_trained_on_together_and_a_third_is_tested() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("all")).unwrap();
    for (layout, seed) in [("chexpert", "5"), ("vindr", "6"), ("padchest", "7")] {
        bench.phantoms(layout, seed);
    }
    for layout in ["chexpert", "vindr"] {
        std::fs::rename(bench.path(layout), bench.path("all").join(layout)).unwrap();
    }
    let sets = "\n[[data.sets]]\nfolder = \"chexpert\"\nweight = 1.0\n\n[[data.sets]]\nfolder = \"vindr\"\nweight = 2.0\n\n[model]\n";
    let experiment = EXPERIMENT.replace("\n[model]\n", sets);
    std::fs::write(bench.path("tiny.toml"), &experiment).unwrap();
    let train = [
        "train",
        "--experiment",
        "tiny.toml",
        "--variant",
        "bce",
        "--data",
        "all",
        "--runs",
        "runs",
    ];
    bench.ends(&train, 0);
    let text = std::fs::read_to_string(bench.path("runs/tiny/bce/metrics.json")).unwrap();
    let metrics: Value = serde_json::from_str(&text).unwrap();
    let inspected = |set: &str| bench.json(&["inspect", &format!("all/{set}"), "--no-images"]);
    let n_test = |set: &str| {
        inspected(set)["official_parts"]["test"]["images"]
            .as_u64()
            .unwrap()
    };
    let sets = &metrics["test_by_set"];
    for set in ["chexpert", "vindr"] {
        assert_eq!(sets[set]["n_images"], n_test(set), "{set}");
    }
    assert_eq!(
        metrics["data"]["images"]["test"],
        n_test("chexpert") + n_test("vindr")
    );
    let known = |set: &str, label: &str| {
        let labels = sets[set]["labels"].as_array().unwrap();
        let label = labels.iter().find(|of| of["label"] == label).unwrap();
        label["positives"].as_u64().unwrap() + label["negatives"].as_u64().unwrap()
    };
    for (label, of_chexpert, of_vindr) in [
        ("Effusion", true, true),
        ("Lung Lesion", true, false),
        ("Emphysema", false, true),
        ("Hernia", false, false),
    ] {
        assert_eq!(known("chexpert", label) > 0, of_chexpert, "{label}");
        assert_eq!(known("vindr", label) > 0, of_vindr, "{label}");
    }
    // Patients of one set are never those of the other, whatever they are called.
    let labels = std::fs::read_to_string(bench.path("runs/tiny/bce/labels-test.csv")).unwrap();
    assert!(
        labels
            .lines()
            .any(|line| line.starts_with("chexpert/CheXpert-v1.0/")
                || line.starts_with("chexpert/test/"))
    );
    assert!(labels.lines().any(|line| line.starts_with("vindr/")));
    bench.ends(&["evaluate", "runs/tiny/bce", "--data", "padchest"], 0);
    bench.ends(&["report", "runs/tiny"], 0);
    let report = std::fs::read_to_string(bench.path("runs/tiny/report.md")).unwrap();
    for part in [
        "By data set",
        "trained on several data sets, tested on PadChest",
    ] {
        assert!(report.contains(part), "{part} is missing in\n{report}");
    }
    // A set that is not there, and weights of some, are errors.
    std::fs::write(
        bench.path("tiny.toml"),
        experiment.replace("\"vindr\"", "\"nobody\""),
    )
    .unwrap();
    bench.ends(&[&train[..], &["--allow-missing"]].concat(), 1);
    std::fs::write(
        bench.path("tiny.toml"),
        experiment.replace("weight = 2.0", ""),
    )
    .unwrap();
    let (_, stderr) = bench.ends(&train, 1);
    assert!(stderr.contains("for all sets or for none"), "{stderr}");
}

/// U-MultiClass from images to another program's file: three outputs for each label, one logit of each everywhere else.
#[test]
fn uncertain_as_a_class_of_its_own_goes_through_every_command() {
    let bench = Bench::new();
    bench.phantoms("chexpert", "5");
    let policies = "uncertain = { default = \"multi-class\", labels = { Edema = \"ones\", Fracture = \"ignore\" } }";
    let experiment: String = EXPERIMENT
        .lines()
        .map(|line| match line {
            line if line.starts_with("label_map") => String::new(),
            line if line.starts_with("uncertain") => format!("{policies}\n"),
            line => format!("{line}\n"),
        })
        .collect();
    std::fs::write(bench.path("tiny.toml"), experiment).unwrap();
    let train = |variant| {
        [
            "train",
            "--experiment",
            "tiny.toml",
            "--variant",
            variant,
            "--data",
            "chexpert",
            "--runs",
            "runs",
        ]
    };
    let (_, stderr) = bench.ends(&train("focal"), 1);
    assert!(stderr.contains("goes with `bce` alone"), "{stderr}");
    let bce_alone = std::fs::read_to_string(bench.path("tiny.toml")).unwrap();
    let bce_alone = bce_alone.replace("[[variants]]\nname = \"focal\"\nloss = \"focal\"\n", "");
    std::fs::write(bench.path("tiny.toml"), bce_alone).unwrap();
    bench.ends(&train("bce"), 0);
    let run = "runs/tiny/bce";
    let model = bench.path(run).join("model.safetensors");
    let card = cxr_model::ModelCard::read(&model).unwrap();
    assert_eq!((card.labels.len(), card.multi_class.len()), (14, 12));
    assert!(!card.multi_class.contains(&"Edema".to_owned()));
    let bytes = std::fs::read(&model).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let last = tensors.tensor("top.dense2.weight").unwrap();
    assert_eq!(last.shape()[0], 14 + 2 * 12);

    // Predictions have a logit for each label, and those of the file alone are the run's.
    let rows = |table: &str, n_begin: usize| {
        let lines = table.lines().skip(1);
        let row = |line: &str| {
            let cells: Vec<String> = line.split(',').map(str::to_owned).collect();
            (cells[0].clone(), cells[n_begin..n_begin + 14].to_vec())
        };
        lines.map(row).collect::<std::collections::BTreeMap<_, _>>()
    };
    let own = std::fs::read_to_string(bench.path(run).join("predictions-test.csv")).unwrap();
    assert_eq!(own.lines().next().unwrap().split(',').count(), 15);
    let own = rows(&own, 1);
    let (predicted, _) = bench.ends(&["predict", run, "runs/tiny/images-64.store"], 0);
    let header: Vec<&str> = predicted.lines().next().unwrap().split(',').collect();
    let begin = header
        .iter()
        .position(|name| name.starts_with("logit_"))
        .unwrap();
    let predicted = rows(&predicted, begin);
    assert!(own.len() > 20);
    for (name, logits) in &own {
        assert_eq!(predicted[name], *logits, "{name}");
    }

    bench.ends(
        &[
            "calibrate",
            run,
            "--method",
            "temperature",
            "--out",
            "c.safetensors",
        ],
        0,
    );
    let calibrated = cxr_model::ModelCard::read(&bench.path("c.safetensors")).unwrap();
    assert_eq!(calibrated.multi_class, card.multi_class);
    bench.ends(
        &[
            "predict",
            "c.safetensors",
            "runs/tiny/images-64.store",
            "--out",
            "c.csv",
        ],
        0,
    );
    bench.ends(&["export", run, "--onnx", "m.onnx", "--torch", "torch"], 0);
    let module = std::fs::read_to_string(bench.path("torch/model.py")).unwrap();
    assert!(module.contains("_logits"), "{module}");
    bench.ends(&["evaluate", run, "--data", "chexpert"], 0);
    bench.ends(&["report", "runs/tiny"], 0);
}
