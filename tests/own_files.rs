//! What people's own files meet in every command: hostile labels and names, equal file names, links, files that are
//! no images, tables in other forms.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cxr_report::report::Report;
use serde_json::Value;

const EXPERIMENT: &str = r#"
name = "own"
[data]
validation = "patient"
[model]
backbone = { densenet = { stem_channels = 8, growth_rate = 4, block_layers = [1, 2] } }
head = { top-network = { conv_channels = [8, 8], hidden = 8 } }

[augmentation]
image_size = 64
crop_size = 56
[training]
batch_size = 6
[[training.stages]]
name = "all layers"
epochs = 1
schedule = { constant = { learning_rate = 1e-3 } }
[[variants]]
name = "bce"
loss = "bce"
"#;

/// Labels that have been taken for paths, or for cells of a table, and one that is too long for a file name.
fn labels() -> Vec<String> {
    let mut labels = [
        "Nodule/Mass",
        "x/../../../escaped",
        "..\\..\\escaped",
        "/tmp/escaped",
        "C:\\escaped",
        "Edema, acute",
        "a \"quoted\" one",
        "CON",
        "nul.png",
        "..",
        "\u{202e}gnp.escaped",
    ]
    .map(str::to_owned)
    .to_vec();
    labels.push("long ".repeat(60).trim().to_owned());
    labels
}

/// A folder, deep enough that what climbs out of it is seen.
struct Bench {
    root: tempfile::TempDir,
    work: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let work = root.path().join("a/b/work");
        std::fs::create_dir_all(&work).unwrap();
        Self { root, work }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cxr"));
        command.current_dir(&self.work).args(arguments);
        command.output().unwrap()
    }

    /// Runs, must end so, writes nothing outside the folders of `self.allowed`, and shows nothing that a terminal obeys.
    #[track_caller]
    fn ends(&self, arguments: &[&str], code: i32) -> (String, String) {
        let output = self.run(arguments);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}\n{stdout}{stderr}"
        );
        assert!(!stderr.contains("panicked"), "{stderr}");
        let is_obeyed = |c: char| (c.is_control() && !"\n\t".contains(c)) || c == '\u{202e}';
        assert!(!stdout.contains(is_obeyed), "{stdout:?}");
        assert!(!stderr.contains(is_obeyed), "{stderr:?}");
        self.check_outside();
        (stdout, stderr)
    }

    /// Nothing is beside the folder that the commands run in.
    #[track_caller]
    fn check_outside(&self) {
        let outside = |folder: &str| names(&self.root.path().join(folder));
        assert_eq!(
            [outside(""), outside("a"), outside("a/b")],
            [["a"], ["b"], ["work"]]
        );
        assert!(!Path::new("/tmp/escaped").exists() && !Path::new("/tmp/escaped.png").exists());
        let allowed = [
            "data", "maps", "mine", "models", "other", "own.toml", "report", "out", "more",
        ];
        for name in names(&self.work) {
            assert!(allowed.contains(&name.as_str()), "`{name}` was written");
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Every file below a folder, with `/`.
fn files(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                let path = entry.path().strip_prefix(folder).unwrap().to_owned();
                found.insert(path.to_str().unwrap().to_owned());
            }
        }
    }
    found
}

/// A grey picture of 64×64, of which no two are the same.
fn write_png(path: &Path, number: usize) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let pixels: Vec<u8> = (0..64 * 64)
        .map(|place| ((place * (number + 3) * 2_654_435_761) >> 9) as u8)
        .collect();
    let mut png = png::Encoder::new(File::create(path).unwrap(), 64, 64);
    png.set_color(png::ColorType::Grayscale);
    let mut writer = png.write_header().unwrap();
    writer.write_image_data(&pixels).unwrap();
}

/// A table of paths, one file name in each folder as CheXpert has it, and the hostile labels.
fn write_data(bench: &Bench) {
    let labels = labels();
    let header = ["image", "patient"]
        .into_iter()
        .chain(labels.iter().map(String::as_str));
    let mut table = cxr_table::csv_line(header);
    for number in 0..48 {
        let name = format!("patient{:02}/study{}/view1.png", number / 2, number % 2);
        write_png(&bench.path("mine/images").join(&name), number);
        let states = (0..labels.len()).map(|label| ((number >> (label % 4)) & 1).to_string());
        let row = [name, format!("p{}", number / 2)].into_iter().chain(states);
        table += &cxr_table::csv_line(row);
    }
    std::fs::write(bench.path("mine/labels.csv"), table).unwrap();
    std::fs::write(bench.path("own.toml"), EXPERIMENT).unwrap();
}

/// STAMP#176, nipoppy#694, axondeepseg#69: labels and names that were taken for paths.
#[test]
fn hostile_labels_and_equal_names_go_from_the_table_to_the_report() {
    let bench = Bench::new();
    write_data(&bench);
    let lists = ["--hold-out", "4", "--write-lists", "mine"];
    let inspect = [&["inspect", "mine/labels.csv"][..], &lists].concat();
    bench.ends(&inspect, 0);
    let (stdout, _) = bench.ends(&["inspect", "mine", "--json"], 0);
    let found: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(found["image_files"]["of_the_split"], 48, "{stdout}");
    assert_eq!(found["labels"].as_object().unwrap().len(), labels().len());

    let train = [
        "train",
        "--experiment",
        "own.toml",
        "--variant",
        "bce",
        "--data",
        "mine",
    ];
    bench.ends(&train, 0);
    let run = "models/runs/own/bce";
    bench.ends(&["evaluate", run, "--data", "mine"], 0);
    let predictions = format!("{run}/predictions-test.csv");
    let score = [
        "score",
        &predictions,
        "--labels",
        "mine/labels.csv",
        "--allow-missing",
    ];
    let (stdout, _) = bench.ends(&score, 0);
    assert!(
        stdout.contains("Edema, acute") && stdout.contains("x/../../../escaped"),
        "{stdout}"
    );
    let compare = [
        "compare",
        &predictions,
        &predictions,
        "--labels",
        "mine/labels.csv",
    ];
    bench.ends(&[&compare[..], &["--allow-missing"]].concat(), 0);

    // The run's own pictures, and the report that embeds them.
    bench.ends(&["explain", run, "--data", "mine"], 0);
    let report = Report::read(&bench.path("models/runs/own")).unwrap();
    report.write(&bench.path("report")).unwrap();
    bench.check_outside();
    let history = std::fs::read_to_string(bench.path("report/tables/history.csv")).unwrap();
    assert!(history.contains("bce"), "{history}");

    // Maps of all labels: one file each, below the output folder, and the table says which is whose.
    let all: Vec<String> = labels()
        .into_iter()
        .flat_map(|label| ["--label".to_owned(), label])
        .collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let folder = "mine/images/patient00";
    let explain = [
        "explain",
        run,
        folder,
        "mine/images/patient01",
        "--output",
        "maps",
    ];
    bench.ends(&[&explain[..], &all].concat(), 0);
    let table = cxr_table::Table::read(bench.path("maps/explanations.csv")).unwrap();
    table.check_lengths().unwrap();
    assert_eq!(table.rows().len(), 4 * labels().len());
    let listed: BTreeSet<String> = table
        .rows()
        .iter()
        .map(|row| row.cell(4).to_owned())
        .collect();
    let mut written = files(&bench.path("maps"));
    assert!(written.remove("explanations.csv"));
    assert_eq!(written, listed);
    for row in table.rows() {
        let (image, label) = (row.cell(0), row.cell(1));
        assert!(labels().iter().any(|known| known == label), "{label}");
        // Two images of two patients are called alike: their folders tell them apart.
        let folder = Path::new(image).parent().unwrap().to_str().unwrap();
        assert!(row.cell(4).starts_with(folder), "{image}: {}", row.cell(4));
    }
    // The same call again: its own maps are no radiographs.
    bench.ends(
        &[
            "explain",
            run,
            "maps/mine",
            "mine/images/patient00/study0",
            "--output",
            "maps",
            "--label",
            "CON",
        ],
        0,
    );

    // A report reads no file that a run's explanations name outside of it.
    let file = bench.path(run).join("explanations/explanations.json");
    let text = std::fs::read_to_string(&file).unwrap();
    for hostile in [
        "../metrics.json",
        "/etc/passwd",
        "..\\\\x.png",
        "explanations.json",
    ] {
        std::fs::write(&file, text.replace("sample1.png", hostile)).unwrap();
        let error = Report::read(&bench.path("models/runs/own"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("names the picture"), "{error}");
    }
}

/// timm#334, Pillow#4807, dicompyler#5: every command sees the same images of a folder, and says what it does not take.
#[cfg(unix)]
#[test]
fn prepare_inspect_and_training_see_the_same_images() {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;

    let bench = Bench::new();
    write_png(&bench.path("other/disk/a.png"), 1);
    write_png(&bench.path("data/images/b"), 2);
    write_png(&bench.path("data/images/deep/c.PNG"), 3);
    symlink("../../other/disk", bench.path("data/images/link")).unwrap();
    symlink("..", bench.path("data/images/deep/up")).unwrap();
    for (name, bytes) in [
        ("._b.png", &b"\0\x05\x16\x07"[..]),
        (".DS_Store", b"x"),
        ("notes.txt", b"text"),
        (" .png", b"x"),
        ("e\u{1b}[2Jscape.png", b"x"),
        ("e\u{202e}gnp.png", b"x"),
    ] {
        std::fs::write(bench.path("data/images").join(name), bytes).unwrap();
    }
    let latin1 = std::ffi::OsStr::from_bytes(b"caf\xe9.png");
    std::fs::write(bench.path("data/images").join(latin1), b"x").unwrap();

    let prepare = [
        "prepare",
        "data/images",
        "--side",
        "64",
        "--out",
        "out/a.store",
        "--json",
    ];
    let (stdout, stderr) = bench.ends(&prepare, 3);
    let prepared: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (&prepared["images"], &prepared["passed_over_count"]),
        (&3.into(), &4.into()),
        "{stdout}"
    );
    assert_eq!(
        prepared["unusable"].as_array().unwrap().len(),
        4,
        "{stdout}"
    );
    assert!(
        stderr.contains("4 files or folders cannot be used"),
        "{stderr}"
    );
    assert!(
        stderr.contains("passed over") && stderr.contains("and 3 more"),
        "{stderr}"
    );
    let (stdout, _) = bench.ends(&["inspect", "data/images", "--json"], 3);
    let inspected: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(inspected["image_files"]["count"], 3, "{stdout}");
    assert_eq!(
        inspected["image_files"]["broken"].as_array().unwrap().len(),
        4,
        "{stdout}"
    );
    assert_eq!(inspected["image_files"]["passed_over_count"], 4, "{stdout}");
    // A table finds them under their names, and one that lacks an extension gets a hint.
    let table = |names: [&str; 3]| {
        let rows = names.map(|name| format!("{name},1\n"));
        std::fs::write(
            bench.path("data/labels.csv"),
            format!("image,Mass\n{}", rows.concat()),
        )
        .unwrap();
        for (list, names) in [
            ("train_val_list.txt", &names[..2]),
            ("test_list.txt", &names[2..]),
        ] {
            std::fs::write(bench.path("data").join(list), names.join("\n")).unwrap();
        }
    };
    table(["a.png", "b", "deep/c.PNG"]);
    let (stdout, _) = bench.ends(&["inspect", "data", "--split", "official", "--json"], 3);
    let inspected: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(inspected["image_files"]["of_the_split"], 3, "{stdout}");
    std::fs::write(bench.path("own.toml"), EXPERIMENT).unwrap();
    table(["a", "b", "deep/c"]);
    let plan = ["plan", "--experiment", "own.toml", "--data", "data"];
    let without_validation =
        EXPERIMENT.replace("validation = \"patient\"", "validation = \"paper\"");
    std::fs::write(bench.path("own.toml"), without_validation).unwrap();
    let (_, stderr) = bench.ends(&plan, 1);
    assert!(
        stderr.contains("2 of 3 listed images are missing"),
        "{stderr}"
    );
    assert!(stderr.contains("there is `a.png`"), "{stderr}");
}

/// Kaggle's sample holds a second copy of its images; CheXpert calls all of them alike.
#[test]
fn copies_are_one_image_and_equal_names_are_told_apart_by_their_folders() {
    let bench = Bench::new();
    for place in ["data/images/a.png", "data/sample/images/a.png"] {
        write_png(&bench.path(place), 1);
    }
    let prepare = |out: &'static str, more: &[&'static str]| {
        let base = ["prepare", "data", "--side", "64", "--json", "--out", out];
        let (stdout, stderr) = bench.ends(&[&base[..], more].concat(), 0);
        (serde_json::from_str::<Value>(&stdout).unwrap(), stderr)
    };
    let (report, _) = prepare("out/a.store", &[]);
    assert_eq!(
        (&report["images"], &report["copies"]),
        (&1.into(), &1.into())
    );
    write_png(&bench.path("data/sample/images/a.png"), 2);
    let (report, stderr) = prepare("out/b.store", &[]);
    assert_eq!(report["images"], 2);
    assert!(
        stderr.contains("different images are called `a.png`"),
        "{stderr}"
    );
    // A table decides what they are called.
    let table = bench.path("mine");
    std::fs::create_dir(&table).unwrap();
    std::fs::write(
        table.join("labels.csv"),
        "Path;Mass\r\ndata/sample/images/a.png;1\r\n",
    )
    .unwrap();
    let (report, stderr) = prepare("out/c.store", &["--labels", "mine/labels.csv"]);
    assert_eq!(
        (&report["images"], &report["unlisted"]),
        (&1.into(), &1.into()),
        "{stderr}"
    );
    let store = cxr_dataset::Store::open(bench.path("out/c.store")).unwrap();
    let names: Vec<String> = store.names().map(String::from).collect();
    assert_eq!(names, ["data/sample/images/a.png"]);
    // covid-chestxray-dataset#96: names without an extension get a hint.
    std::fs::write(table.join("labels.csv"), "image,Mass\na,1\n").unwrap();
    let labelled = [
        "prepare",
        "data",
        "--labels",
        "mine/labels.csv",
        "--out",
        "out/d.store",
    ];
    let (_, stderr) = bench.ends(&labelled, 1);
    assert!(
        stderr.contains("the table has `a`, and there is `a.png`"),
        "{stderr}"
    );
    // One that fits two images is an error, and nothing is written.
    std::fs::write(table.join("labels.csv"), "image,Mass\nimages/a.png,1\n").unwrap();
    write_png(&bench.path("data/more/images/a.png"), 3);
    std::fs::remove_dir_all(bench.path("data/images")).unwrap();
    let (_, stderr) = bench.ends(&labelled, 1);
    assert!(stderr.contains("they differ"), "{stderr}");
    assert!(!bench.path("out/d.store").exists());
}

/// A variant has a folder of its own: it is not called like another file beside it.
#[test]
fn experiments_cannot_name_their_folders_like_something_else() {
    let bench = Bench::new();
    write_data(&bench);
    let long = "x".repeat(300);
    for hostile in [
        "..",
        "../escaped",
        "/tmp/escaped",
        "a/b",
        "C:",
        ".lock",
        "NUL",
        "images-64.store",
        "report.html",
        "tables",
        "Figures",
        "reproduce.json",
        "x.store.partial",
        &long,
    ] {
        let experiment = EXPERIMENT.replace("name = \"bce\"", &format!("name = {hostile:?}"));
        std::fs::write(bench.path("own.toml"), experiment).unwrap();
        let train = [
            "train",
            "--experiment",
            "own.toml",
            "--variant",
            hostile,
            "--data",
            "mine",
        ];
        let (_, stderr) = bench.ends(&train, 1);
        assert!(stderr.contains("variants[0].name"), "{hostile}: {stderr}");
        assert!(!bench.path("models").exists());
    }
    for (key, first) in [("Bce", "bce"), ("bce-seed1", "bce")] {
        let second = format!("{EXPERIMENT}\n[[variants]]\nname = \"{key}\"\nloss = \"bce\"\n");
        std::fs::write(bench.path("own.toml"), second).unwrap();
        let train = [
            "train",
            "--experiment",
            "own.toml",
            "--variant",
            first,
            "--data",
            "mine",
        ];
        let (_, stderr) = bench.ends(&train, 1);
        assert!(stderr.contains("variants[1].name"), "{stderr}");
    }
}

/// Thousands of columns, as tables of text embeddings have them, are looked at in time that grows with their number.
#[test]
fn a_table_of_thousands_of_columns_is_inspected_quickly() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("mine")).unwrap();
    let mut table = String::from("image");
    for label in 0..20_000 {
        table += &format!(",label {label}");
    }
    for image in ["a.png", "b.png", "c.png"] {
        table += &format!("\n{image}{}", ",1".repeat(20_000));
    }
    std::fs::write(bench.path("mine/labels.csv"), table).unwrap();
    // 20,000 squared would be 3 GB of JSON and more than a minute.
    let begin = std::time::Instant::now();
    let (stdout, _) = bench.ends(&["inspect", "mine/labels.csv", "--json"], 0);
    let found: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(found["labels"].as_object().unwrap().len(), 20_000);
    assert_eq!(found["co_occurrence"], Value::Null);
    let (stdout, _) = bench.ends(&["inspect", "mine/labels.csv"], 0);
    assert!(stdout.contains("and 19900 rarer labels"), "{stdout}");
    assert!(begin.elapsed().as_secs() < 60, "{:?}", begin.elapsed());
}
