//! `algorithms.json` of a run folder: what timing has chosen on its GPU, so that going on makes the same choices.

use cxr_ops::{Algorithms, autotuned, set_autotune};
use cxr_run::RunFolder;

use crate::TrainError;

const FILE: &str = "algorithms.json";

/// Adds what was chosen before in this run to what timing has chosen, where it chooses.
pub(super) fn recall(run: &RunFolder) -> Result<(), TrainError> {
    let Some(mut chosen) = autotuned() else {
        return Ok(());
    };
    let path = run.path().join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(TrainError::Io {
                action: "read",
                path,
                source,
            });
        }
    };
    let before: Algorithms = serde_json::from_str(&text).map_err(|error| TrainError::BadFile {
        path,
        kind: "list of algorithms",
        problem: error.to_string(),
    })?;
    chosen.extend(before);
    set_autotune(chosen);
    Ok(())
}

/// Writes into a run folder what timing has chosen on a GPU, if it chooses, as every checkpoint does: for who goes on to
/// use the device after the training.
///
/// # Errors
/// The file cannot be written.
pub fn record_algorithms(run: &RunFolder) -> Result<(), TrainError> {
    let Some(chosen) = autotuned() else {
        return Ok(());
    };
    Ok(cxr_fs::write_with(&run.path().join(FILE), |file| {
        serde_json::to_writer_pretty(file, &chosen)?;
        Ok(())
    })?)
}

#[cfg(test)]
mod tests {
    use cxr_ops::end_autotune;

    use super::*;

    #[test]
    fn choices_are_those_of_the_run_before() {
        let folder = tempfile::tempdir().unwrap();
        let run = &RunFolder::at(folder.path());
        let path = run.path().join(FILE);
        let chosen = |work: &str| Algorithms::from([(work.to_owned(), "gemm".to_owned())]);
        end_autotune();
        record_algorithms(run).unwrap();
        assert!(!path.exists());
        // Nothing was chosen before.
        set_autotune(Algorithms::new());
        recall(run).unwrap();
        set_autotune(chosen("a"));
        record_algorithms(run).unwrap();

        set_autotune(chosen("b"));
        recall(run).unwrap();
        let both = chosen("a").into_iter().chain(chosen("b")).collect();
        assert_eq!(autotuned(), Some(both));
        std::fs::write(&path, "[]").unwrap();
        let error = recall(run).unwrap_err().to_string();
        assert!(error.contains(FILE), "{error}");
        // Ignored unless autotuning is on.
        end_autotune();
        recall(run).unwrap();
        assert_eq!(autotuned(), None);
    }
}
