//! Files that a user names to be written: what they may replace.

use std::path::Path;

use cxr_fs::Output;

/// How a file of metrics begins, white space left out.
const METRICS: &str = r#"{"labels":[{"label":""#;
/// How a trace of `--profile` begins.
const TRACE: &[u8] = br#"[
{"name":"thread_name","ph":"M""#;
/// How a store begins, and one that is being made.
const STORE: &[u8] = b"CXRSTORE";

/// The argument of every command that writes where a user says.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct ForceArg {
    /// Replace files that cxr did not write. Its own are replaced without this, and what a command
    /// reads is never replaced
    #[arg(long)]
    force: bool,
}

impl ForceArg {
    /// Whether files of others may be replaced.
    pub(crate) fn is_given(self) -> bool {
        self.force
    }

    /// An output that may replace what the user allowed. What a command has left in its folder that was killed while
    /// it wrote is removed.
    pub(crate) fn output(self, path: &Path) -> Output<'_> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        // Elsewhere it cannot be seen whether a writer lives. And a folder that cannot be read may still be written.
        if cfg!(unix) {
            let _ = cxr_fs::remove_unfinished(folder);
        }
        Output::new(path).force(self.force)
    }
}

/// Whether it is what `score --json` or `compare --json` wrote.
pub(crate) fn is_metrics(start: &[u8]) -> bool {
    let text = String::from_utf8_lossy(start);
    let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    compact.starts_with(METRICS)
        && [r#","positives":"#, r#","auc_a":"#]
            .iter()
            .any(|key| compact.contains(key))
}

/// Whether it is what `train --profile` wrote.
pub(crate) fn is_trace(start: &[u8]) -> bool {
    start.starts_with(TRACE)
}

/// Whether it is a prepared store.
pub(crate) fn is_store(start: &[u8]) -> bool {
    start.starts_with(STORE)
}

/// Whether it is what `inspect --write-split` wrote.
pub(crate) fn is_split(start: &[u8]) -> bool {
    start.starts_with(b"# cxr split ")
}

/// Whether it is what `backbone` wrote: a model is not.
pub(crate) fn is_backbone(start: &[u8]) -> bool {
    const KEY: &[u8] = br#"\"trained_as\":"#;
    start.get(8) == Some(&b'{') && start.windows(KEY.len()).any(|window| window == KEY)
}

/// Whether it is a trained model.
pub(crate) fn is_model(start: &[u8]) -> bool {
    const KEY: &[u8] = br#"\"logit_thresholds\":"#;
    start.get(8) == Some(&b'{') && start.windows(KEY.len()).any(|window| window == KEY)
}

/// How `explain` signs its pictures, in a text chunk of PNG.
pub(crate) const SIGNATURE: (&str, &str) = ("Software", "cxr explain");

/// Whether it is a picture that `explain` wrote.
pub(crate) fn is_heat_map(start: &[u8]) -> bool {
    let (keyword, text) = SIGNATURE;
    let chunk = format!("tEXt{keyword}\0{text}");
    start.starts_with(b"\x89PNG") && start.windows(chunk.len()).any(|w| w == chunk.as_bytes())
}

/// The first line of the table that `explain` writes beside its pictures.
pub(crate) const EXPLANATIONS_HEADER: [&str; 6] =
    ["image", "label", "logit", "predicted", "map", "method"];

/// Whether it is such a table.
pub(crate) fn is_explanation_table(start: &[u8]) -> bool {
    // Earlier versions had no methods.
    [&EXPLANATIONS_HEADER[..], &EXPLANATIONS_HEADER[..5]]
        .iter()
        .any(|header| {
            let rest = start.strip_prefix(header.join(",").as_bytes());
            rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'\n')))
        })
}
