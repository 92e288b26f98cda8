//! The commands of the guides, run as they stand.
//!
//! A block that begins with ```` ```sh ```` is run by a shell, page after page from the top, in a folder that has what the
//! page speaks of. What needs a real data set, a hub, a GPU or hours begins with ```` ```sh no-run ````.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use cxr_phantom::{ListSize, PhantomConfig, write_dataset};

/// A network that trains in a moment, at the sizes that the guides speak of.
const EXPERIMENT: &str = r#"
name = "demo"
[model]
backbone = { densenet = { stem_channels = 4, growth_rate = 2, block_layers = [1, 1] } }
head = { top-network = { conv_channels = [4, 4], hidden = 4 } }
[training]
batch_size = 6
[[training.stages]]
name = "all layers"
epochs = 1
schedule = { constant = { learning_rate = 1e-3 } }
[[variants]]
name = "fzlpr-0.2"
loss = "fzlpr"
tau = 0.2
[[variants]]
name = "bce"
loss = "bce"
"#;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The blocks of a page that are run, each with its line.
fn blocks(page: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String, bool)> = None;
    for (at, line) in page.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(info)) => open = Some((at + 1, String::new(), info == "sh")),
            (Some((_, text, _)), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (Some(_), Some(_)) => {
                if let Some((at, text, true)) = open.take() {
                    blocks.push((at, text));
                }
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

/// Runs a script with `cxr` in its path, and must succeed.
fn run(folder: &Path, what: &str, script: &str) {
    let program = Path::new(env!("CARGO_BIN_EXE_cxr"));
    let mut path = program.parent().unwrap().as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", script]).current_dir(folder);
    shell.env("PATH", path).env_remove("CXR_HOME");
    let output = shell.output().unwrap();
    assert!(
        output.status.success(),
        "{what}: {}\n{script}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs a page's blocks.
fn follow(folder: &Path, page: &str) {
    let text = std::fs::read_to_string(repository().join(page)).unwrap();
    let blocks = blocks(&text);
    assert!(!blocks.is_empty(), "{page} has no command that is run");
    for (line, script) in blocks {
        run(folder, &format!("{page}, line {line}"), &script);
    }
}

/// Phantoms in `data/nih`, small enough for a moment.
fn with_images() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let size = |images| ListSize {
        images,
        least_positives: 1,
    };
    let config = PhantomConfig::new(5, size(60), size(20)).unwrap();
    let config = config.with_side(256).unwrap();
    let data = folder.path().join("data/nih");
    write_dataset(&config, &data, &|_| (), &AtomicBool::new(false)).unwrap();
    folder
}

/// The file names of the phantoms.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("data/nih/images")).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string();
    let mut names: Vec<String> = entries.map(|entry| name(entry).unwrap()).collect();
    names.sort();
    names
}

/// Copies the first phantoms into a folder.
fn copy_images(folder: &Path, to: &str, count: usize) {
    let to = folder.join(to);
    std::fs::create_dir_all(&to).unwrap();
    for name in &names(folder)[..count] {
        std::fs::copy(folder.join("data/nih/images").join(name), to.join(name)).unwrap();
    }
}

/// Writes some of the phantoms to an archive.
fn archive(folder: &Path, to: &str, which: std::ops::Range<usize>) {
    let mut archive = zip::ZipWriter::new(std::fs::File::create(folder.join(to)).unwrap());
    for name in &names(folder)[which] {
        let options = zip::write::SimpleFileOptions::default();
        archive.start_file(name.as_str(), options).unwrap();
        let image = std::fs::read(folder.join("data/nih/images").join(name)).unwrap();
        archive.write_all(&image).unwrap();
    }
    archive.finish().unwrap();
}

/// The same with a finished run of the demo's name, and radiographs in `scans`.
fn with_a_run() -> tempfile::TempDir {
    let folder = with_images();
    let path = folder.path();
    std::fs::write(path.join("tiny.toml"), EXPERIMENT).unwrap();
    for variant in ["fzlpr-0.2", "bce"] {
        let train = format!("cxr train --experiment tiny.toml --variant {variant} --data data/nih");
        run(path, "the run", &train);
    }
    copy_images(path, "scans", 5);
    let first = path.join("scans").join(&names(path)[0]);
    std::fs::rename(first, path.join("scans/film.png")).unwrap();
    folder
}

#[test]
fn using_a_model() {
    let folder = with_a_run();
    follow(folder.path(), "docs/using-a-model.md");
}

#[test]
fn scoring_predictions() {
    let folder = with_a_run();
    follow(folder.path(), "docs/scoring.md");
}

#[test]
fn training_on_own_data() {
    let folder = tempfile::tempdir().unwrap();
    follow(folder.path(), "docs/training.md");
}

#[test]
fn data() {
    let folder = with_images();
    let path = folder.path();
    copy_images(path, "scans", 5);
    copy_images(path, "mine/images", 40);
    archive(path, "more.zip", 40..52);
    let mut table = "image,patient,Edema,Rib fracture\n".to_owned();
    for at in 0..40 {
        table += &format!(
            "{},p{},{},{}\n",
            names(path)[at],
            at / 2,
            at % 3 / 2,
            at % 2
        );
    }
    std::fs::write(path.join("mine/labels.csv"), table).unwrap();
    let chexpert = "cxr phantoms --layout chexpert --data chexpert --images 336 --side 64";
    run(path, "phantoms", chexpert);
    follow(path, "docs/data.md");
}

#[test]
fn published_data_sets() {
    let folder = with_a_run();
    follow(folder.path(), "docs/datasets.md");
}

#[test]
fn only_blocks_that_are_meant_to_be_run_are_taken() {
    let page = "a\n```sh\nx\ny\n```\n```sh no-run\nz\n```\n```toml\nt\n```\n```sh\nw\n```\n";
    let found = blocks(page);
    assert_eq!(found, [(2, "x\ny\n".to_owned()), (12, "w\n".to_owned())]);
}

/// A page with commands that nobody runs would say so in each of its blocks.
#[test]
fn every_page_whose_commands_are_meant_to_be_run_is_followed() {
    let followed = [
        "data.md",
        "datasets.md",
        "scoring.md",
        "training.md",
        "using-a-model.md",
    ];
    let docs = repository().join("docs");
    let mut pages = vec![repository().join("README.md")];
    pages.extend(
        std::fs::read_dir(docs)
            .unwrap()
            .map(|entry| entry.unwrap().path()),
    );
    for page in pages {
        let name = page.file_name().unwrap().to_string_lossy().into_owned();
        if name.ends_with(".md") && !followed.contains(&name.as_str()) {
            let blocks = blocks(&std::fs::read_to_string(&page).unwrap());
            assert_eq!(blocks, [], "{name} is not followed by a test");
        }
    }
}
