//! Models that ask for age, sex and view, as a user trains them and predicts with them.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

mod common;
#[path = "common/predictions.rs"]
mod predictions;

use std::path::Path;

use common::{cxr, stderr, trained};
use predictions::{
    RUN, ends, logits, own, parquet_rows, predict, rows, test_images, text, text_of,
};

const ASKING: &str = "models/runs/asking/bce";
const TABLE: &str = "data/Data_Entry_2017_v2020.csv";

/// The run of `trained`, and beside it one whose head asks for age, sex and view.
fn trained_asking() -> tempfile::TempDir {
    let folder = trained();
    let experiment = text(&folder.path().join("tiny.toml"));
    let head = "{ top-network = { conv_channels = [8, 8], hidden = 8 } }";
    assert!(experiment.contains(head));
    let experiment = experiment
        .replace(
            head,
            "{ linear = { inputs = [\"age\", \"sex\", \"view\"] } }",
        )
        .replace("\"tiny\"", "\"asking\"");
    std::fs::write(folder.path().join("asking.toml"), experiment).unwrap();
    let train = [
        "train",
        "--experiment",
        "asking.toml",
        "--variant",
        "bce",
        "--data",
        "data",
    ];
    ends(&cxr(folder.path(), &train), 0);
    folder
}

fn of_run(folder: &Path) -> std::collections::BTreeMap<String, Vec<String>> {
    let (_, rows) = rows(&text(&folder.join(ASKING).join("predictions-test.csv")));
    let logits = |(name, cells): (String, Vec<String>)| (name, cells[1..].to_vec());
    rows.into_iter().map(logits).collect()
}

/// A radiograph of 64×64 pixels as a DICOM file, with what is known of the patient.
fn dicom(age: &str, sex: &str, view: &str) -> Vec<u8> {
    let mut bytes = [&[0; 128][..], b"DICM"].concat();
    let mut element = |tag: (u16, u16), vr: &[u8; 2], value: &[u8]| {
        let mut value = value.to_vec();
        if value.len() % 2 == 1 {
            value.push(if vr == b"UI" { 0 } else { b' ' });
        }
        bytes.extend([tag.0.to_le_bytes(), tag.1.to_le_bytes()].concat());
        bytes.extend(vr);
        match vr {
            b"OW" => bytes.extend([&[0, 0][..], &(value.len() as u32).to_le_bytes()].concat()),
            _ => bytes.extend((value.len() as u16).to_le_bytes()),
        }
        bytes.extend(value);
    };
    element((2, 0x10), b"UI", b"1.2.840.10008.1.2.1");
    element((8, 0x60), b"CS", b"DX");
    element((0x10, 0x40), b"CS", sex.as_bytes());
    element((0x10, 0x1010), b"AS", age.as_bytes());
    element((0x18, 0x5101), b"CS", view.as_bytes());
    element((0x28, 2), b"US", &1_u16.to_le_bytes());
    element((0x28, 4), b"CS", b"MONOCHROME2");
    for (number, value) in [
        (0x10, 64_u16),
        (0x11, 64),
        (0x100, 16),
        (0x101, 12),
        (0x102, 11),
        (0x103, 0),
    ] {
        element((0x28, number), b"US", &value.to_le_bytes());
    }
    let pixels: Vec<u8> = (0..64 * 64_u16).flat_map(u16::to_le_bytes).collect();
    element((0x7fe0, 0x10), b"OW", &pixels);
    bytes
}

#[test]
fn predictions_with_the_table_are_those_of_the_run_to_the_last_bit() {
    let folder = trained_asking();
    let folder = folder.path();
    let names = test_images(folder);
    let expected = of_run(folder);
    let asking = |arguments: &[&str]| {
        cxr(
            folder,
            &[&["predict", ASKING, "test"][..], arguments].concat(),
        )
    };
    let table = |arguments: &[&str], code: i32| {
        let output = asking(arguments);
        ends(&output, code);
        (
            String::from_utf8(output.stdout.clone()).unwrap(),
            stderr(&output),
        )
    };
    let (stdout, said) = table(&["--non-image", TABLE], 0);
    assert_eq!(logits(&stdout), expected);
    assert!(!said.contains("warning"), "{said}");
    let (header, found) = rows(&stdout);
    let missing = header
        .iter()
        .position(|name| name == "missing_inputs")
        .unwrap();
    assert!(found.values().all(|cells| cells[missing].is_empty()));

    // Nothing is known: another answer, a column, and a count.
    let (stdout, said) = table(&[], 0);
    assert!(
        logits(&stdout)
            .iter()
            .all(|(name, logits)| *logits != expected[name])
    );
    let (_, found) = rows(&stdout);
    assert!(found.values().all(|cells| cells[missing] == "age;sex;view"));
    let of_all = format!("{0} of {0} images have no usable `age`", names.len());
    assert!(
        said.contains(&of_all) && said.contains("--non-image TABLE"),
        "{said}"
    );

    // An own table without labels that names one image, and not its sex.
    std::fs::write(
        folder.join("some.csv"),
        format!("image,age,sex,view\n{},50,,PA\n", names[0]),
    )
    .unwrap();
    for ending in ["csv", "jsonl", "parquet"] {
        let out = format!("some.{ending}.out.{ending}");
        let (_, said) = table(&["--non-image", "some.csv", "--out", &out], 0);
        assert!(
            said.contains(&format!("`some.csv` names 1 of {} images", names.len())),
            "{said}"
        );
        assert!(
            said.contains(&format!(
                "{0} of {0} images have no usable `sex`",
                names.len()
            )),
            "{said}"
        );
        assert!(
            said.contains(&format!(
                "{} of {} images have no usable `age`",
                names.len() - 1,
                names.len()
            )),
            "{said}"
        );
    }
    let (header, found) = rows(&text(&folder.join("some.csv.out.csv")));
    assert_eq!(header[missing], "missing_inputs");
    assert_eq!(found[&names[0]][missing], "sex");
    let lines = text(&folder.join("some.jsonl.out.jsonl"));
    let of_first = lines.lines().find(|line| line.contains(&names[0])).unwrap();
    assert!(
        of_first.contains(r#""missing_inputs":["sex"],"labels""#),
        "{of_first}"
    );
    let parquet = parquet_rows(&folder.join("some.parquet.out.parquet"));
    let cell = |row: &std::collections::BTreeMap<String, parquet::record::Field>| {
        (
            text_of(&row["image"]).to_owned(),
            text_of(&row["missing_inputs"]).to_owned(),
        )
    };
    let cells: std::collections::BTreeMap<String, String> = parquet.iter().map(cell).collect();
    assert_eq!(
        (cells[&names[0]].as_str(), cells[&names[1]].as_str()),
        ("sex", "age;sex;view")
    );

    // Two parts know the same table, or are not joined.
    let shard = |number: &str, file: &str| {
        asking(&["--non-image", file, "--out", "parts.csv", "--shard", number])
    };
    ends(&shard("1/2", "some.csv"), 0);
    ends(&shard("2/2", TABLE), 0);
    ends(
        &cxr(folder, &["predict", "--merge", "--out", "parts.csv"]),
        1,
    );
    std::fs::remove_file(folder.join("parts.csv.part-2-of-2")).unwrap();
    ends(&shard("2/2", "some.csv"), 0);
    let output = cxr(folder, &["predict", "--merge", "--out", "parts.csv"]);
    ends(&output, 0);
    assert!(
        stderr(&output).contains("no usable `sex`"),
        "{}",
        stderr(&output)
    );
    assert_eq!(
        text(&folder.join("parts.csv")),
        text(&folder.join("some.csv.out.csv"))
    );

    // A model that reads images alone has no use for it; its tables are what they were.
    let output = predict(folder, &["test", "--non-image", TABLE]);
    ends(&output, 1);
    assert!(
        stderr(&output).contains("asks for no age, sex or view"),
        "{}",
        stderr(&output)
    );
    let output = predict(folder, &["test"]);
    assert_eq!(
        logits(&String::from_utf8(output.stdout).unwrap()),
        own(folder, "predictions-test.csv")
    );
    // Both together: what one asks for is asked for.
    let output = cxr(
        folder,
        &[
            "predict",
            RUN,
            "test",
            "--with",
            ASKING,
            "--non-image",
            TABLE,
        ],
    );
    ends(&output, 0);
    let both = logits(&String::from_utf8(output.stdout).unwrap());
    let (one, two) = (own(folder, "predictions-test.csv"), &expected);
    for (name, logits) in &both {
        for (at, logit) in logits.iter().enumerate() {
            let number = |text: &String| f64::from(text.parse::<f32>().unwrap());
            let mean = f64::midpoint(number(&one[name][at]), number(&two[name][at]));
            assert!((logit.parse::<f64>().unwrap() - mean).abs() <= 1e-6 * mean.abs().max(1.));
        }
    }
    // What is wrong with a table is said with its line.
    std::fs::write(folder.join("wrong.csv"), "image,age\na.png,old\n").unwrap();
    let output = asking(&["--non-image", "wrong.csv"]);
    ends(&output, 1);
    assert!(
        stderr(&output).contains("whole years"),
        "{}",
        stderr(&output)
    );

    // The metrics of the run say what was known.
    let metrics: serde_json::Value =
        serde_json::from_str(&text(&folder.join(ASKING).join("metrics.json"))).unwrap();
    let known = &metrics["inputs"]["view"]["test"]["known"];
    assert_eq!(known.as_u64(), Some(names.len() as u64));
}

/// A file's own attributes are used where no table says otherwise, whichever way it comes.
#[test]
fn attributes_of_dicom_files_are_used() {
    let folder = trained_asking();
    let folder = folder.path();
    std::fs::create_dir(folder.join("films")).unwrap();
    std::fs::write(folder.join("films/film.dcm"), dicom("061Y", "F", "AP")).unwrap();
    std::fs::write(folder.join("films/other.dcm"), dicom("", "", "")).unwrap();
    let of = |arguments: &[&str]| {
        let output = cxr(folder, &[&["predict", ASKING][..], arguments].concat());
        ends(&output, 0);
        logits(&String::from_utf8(output.stdout).unwrap())
    };
    let table = |row: &str| {
        std::fs::write(
            folder.join("table.csv"),
            format!("image,age,sex,view\n{row}\n"),
        )
        .unwrap();
        of(&["films", "--non-image", "table.csv"])
    };
    let plain = of(&["films"]);
    assert_ne!(plain["film.dcm"], plain["other.dcm"]);
    assert_eq!(table("other.dcm,61,F,AP")["other.dcm"], plain["film.dcm"]);
    // The table comes first, cell by cell.
    assert_eq!(table("film.dcm,61,,"), plain);
    assert_ne!(table("film.dcm,20,,")["film.dcm"], plain["film.dcm"]);

    // A store keeps them.
    let prepare = ["prepare", "films", "--out", "films.store", "--side", "64"];
    ends(&cxr(folder, &prepare), 0);
    assert_eq!(of(&["films.store"]), plain);

    // A heat map is of the same logits.
    let explain = |arguments: &[&str]| {
        let fixed = [
            "explain",
            ASKING,
            "films/film.dcm",
            "--label",
            "Mass",
            "--force",
        ];
        let output = cxr(folder, &[&fixed[..], arguments].concat());
        ends(&output, 0);
        (
            text(&folder.join("explanations/explanations.csv")),
            stderr(&output),
        )
    };
    let (explained, said) = explain(&[]);
    let (header, _) =
        rows(&String::from_utf8(cxr(folder, &["predict", ASKING, "films"]).stdout).unwrap());
    let labels: Vec<&String> = header
        .iter()
        .filter(|name| name.starts_with("logit_"))
        .collect();
    let mass = labels
        .iter()
        .position(|name| *name == "logit_Mass")
        .unwrap();
    assert!(
        explained.contains(&format!(",Mass,{},", plain["film.dcm"][mass])),
        "{explained}"
    );
    assert!(!said.contains("no usable"), "{said}");
    std::fs::write(folder.join("table.csv"), "image,age\nfilm.dcm,1\n").unwrap();
    let (young, _) = explain(&["--non-image", "table.csv"]);
    assert_ne!(young, explained);
    let output = cxr(
        folder,
        &[
            "explain",
            ASKING,
            "--data",
            "data",
            "--non-image",
            "table.csv",
        ],
    );
    ends(&output, 1);
    ends(&cxr(folder, &["explain", ASKING, "--data", "data"]), 0);
    ends(
        &cxr(folder, &["calibrate", ASKING, "--reference", "data/images"]),
        0,
    );
    ends(&cxr(folder, &["evaluate", ASKING, "--data", "data"]), 0);
}

/// Another data set's table says what is known of its images, and what it lacks is counted.
#[test]
fn another_data_set_is_predicted_with_what_its_table_says() {
    let folder = trained_asking();
    let folder = folder.path();
    std::fs::create_dir_all(folder.join("other/mine/images")).unwrap();
    let mut table = "image,patient,age,sex,view,Mass,Hernia\n".to_owned();
    for (number, name) in of_run(folder).keys().enumerate() {
        let to = format!("other/mine/images/{number}.png");
        std::fs::copy(folder.join("data/images").join(name), folder.join(to)).unwrap();
        let age = if number.is_multiple_of(2) { "44" } else { "" };
        table += &format!(
            "{number}.png,{number},{age},F,PA,{},{}\n",
            number % 2,
            (number / 2) % 2
        );
    }
    std::fs::write(folder.join("other/mine/labels.csv"), table).unwrap();
    let output = cxr(folder, &["evaluate", ASKING, "--data", "other/mine"]);
    ends(&output, 0);
    assert!(
        stderr(&output).contains("7 of 14 images have no usable `age`"),
        "{}",
        stderr(&output)
    );
    let metrics: serde_json::Value = serde_json::from_str(&text(
        &folder.join(ASKING).join("external/mine/metrics.json"),
    ))
    .unwrap();
    assert_eq!(metrics["inputs"]["age"]["missing"], 7);
    assert_eq!(metrics["inputs"]["sex"]["known"], 14);
    // The same images, called as the table calls them.
    let predicted = [
        "predict",
        ASKING,
        "other/mine/images",
        "--non-image",
        "other/mine/labels.csv",
    ];
    let output = cxr(folder, &predicted);
    ends(&output, 0);
    let (header, theirs) = rows(&text(
        &folder.join(ASKING).join("external/mine/predictions.csv"),
    ));
    let ours = logits(&String::from_utf8(output.stdout).unwrap());
    let mass = header.iter().position(|name| name == "logit_Mass").unwrap();
    for (name, cells) in &theirs {
        assert!(ours[name].contains(&cells[mass]), "{name}");
    }
}
