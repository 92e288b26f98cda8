//! `cxr-dataset` and `cxr-augment` against Pillow and torchvision.

use std::path::Path;
use std::process::Command;

use anyhow::Context;
use cxr_terminal::say;

use super::metrics::built;
use super::{Program, Read, Throughput, peer};
use crate::workspace::{Workspace, absolute};
use cxr_terminal::Interrupt;

/// What the benchmarks call their measurements, and what we call them.
const NAMES: [(&str, &str); 3] = [
    ("prepare_img_s", "decode and resize to 256"),
    ("augment_img_s", "augment to 224"),
    ("center_view_img_s", "centre view of 224"),
];
/// Milliseconds for all of the images that the third key counts, which the table tells as a rate.
const TOTALS: [(&str, &str, &str); 1] = [("open_ms", "n_images", "open a store of 112,120 images")];

/// Ours and the peer; `None` when interrupted. Decoding needs a folder of images.
pub(super) fn programs(
    workspace: &Workspace,
    interrupt: &Interrupt,
    images: Option<&Path>,
) -> anyhow::Result<Option<(Vec<Program>, Option<Program>)>> {
    let images = images.map(absolute).transpose()?;
    let mut ours = Vec::new();
    let mut examples = vec![
        ("cxr-augment", "augment_throughput", None),
        ("cxr-dataset", "store_open", None),
    ];
    match &images {
        Some(images) => examples.push(("cxr-dataset", "prepare_throughput", Some(images))),
        None => say!("without `--images DIR` decoding and resizing are not measured"),
    }
    for (package, example, folder) in examples {
        let build = [
            "build",
            "--release",
            "--package",
            package,
            "--example",
            example,
        ];
        let Some(executable) = built(workspace, interrupt, &build, example)? else {
            return Ok(None);
        };
        let folder = folder.cloned();
        ours.push(Program {
            command: Box::new(move || {
                let mut command = Command::new(&executable);
                // One pass over the images: the rounds repeat it.
                if let Some(folder) = &folder {
                    command.arg(folder).arg("1");
                }
                command
            }),
            read: Read::Output(read),
        });
    }
    let modules = ["numpy", "PIL", "torch", "torchvision"];
    let folder = images.map(Into::into).into_iter().collect();
    let peer = peer::find(workspace, "data.py", &modules, folder)?;
    Ok(Some((ours, peer)))
}

/// One JSON object, whose other keys are details.
fn read(output: &str) -> anyhow::Result<Throughput> {
    let object: serde_json::Value = serde_json::from_str(output.trim())
        .with_context(|| format!("a benchmark printed `{}`", output.trim()))?;
    let measured = NAMES.iter().filter_map(|(theirs, name)| {
        let img_s = object.get(theirs)?.as_f64()?;
        Some(((*name).to_owned(), img_s))
    });
    let totals = TOTALS.iter().filter_map(|(milliseconds, n_images, name)| {
        let milliseconds = object.get(milliseconds)?.as_f64()?;
        let n_images = object.get(n_images)?.as_f64()?;
        Some(((*name).to_owned(), 1e3 * n_images / milliseconds))
    });
    let measured: Throughput = measured.chain(totals).collect();
    if measured.is_empty() {
        anyhow::bail!("a benchmark measured nothing: `{}`", output.trim());
    }
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_is_read_and_nothing_measured_is_an_error() {
        let output = "{\"augment_img_s\": 900.5, \"center_view_img_s\": 1200.0, \"threads\": 1}\n";
        let measured = read(output).unwrap();
        assert_eq!(measured[0], ("augment to 224".to_owned(), 900.5));
        assert_eq!(measured.len(), 2);
        let opened = "{\"open_ms\": 5.0, \"find_ns\": 100, \"n_images\": 112120}";
        let (name, img_s) = read(opened).unwrap().remove(0);
        assert!(name.contains("112,120") && (112.12 / img_s * 1e3 - 5.0e-3).abs() < 1e-9);
        assert!(read("{\"threads\": 1}").is_err());
        assert!(read("").is_err());
    }
}
