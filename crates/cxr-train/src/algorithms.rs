//! `algorithms.json` of a run folder: what timing has chosen on its GPU, so that going on makes the same choices.

use cxr_ops::Algorithms;
use cxr_run::RunFolder;

use crate::TrainError;

const FILE: &str = "algorithms.json";

/// What timing has chosen, and what it chose before in this run, which wins.
pub(crate) fn recall(run: &RunFolder, mut chosen: Algorithms) -> Result<Algorithms, TrainError> {
    let path = run.path().join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(chosen),
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
    Ok(chosen)
}

/// Writes what timing has chosen.
pub(crate) fn record(run: &RunFolder, chosen: &Algorithms) -> Result<(), TrainError> {
    Ok(cxr_fs::write_with(&run.path().join(FILE), |file| {
        serde_json::to_writer_pretty(file, chosen)?;
        Ok(())
    })?)
}

/// Writes into a run folder what timing has chosen on a GPU, if it chooses, as every checkpoint does: for who goes on to
/// use the device after the training.
///
/// # Errors
/// The file cannot be written.
pub fn record_algorithms(run: &RunFolder, device: &candle_core::Device) -> Result<(), TrainError> {
    crate::compute::of(device).record(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_those_of_the_run_before() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::at(folder.path());
        let chosen = |work: &str, algorithm: &str| {
            Algorithms::from([(work.to_owned(), algorithm.to_owned())])
        };
        // Nothing was chosen before.
        assert_eq!(
            recall(&run, chosen("a", "gemm")).unwrap(),
            chosen("a", "gemm")
        );
        record(&run, &chosen("a", "gemm")).unwrap();
        let both: Algorithms = (chosen("a", "gemm").into_iter())
            .chain(chosen("b", "fft"))
            .collect();
        assert_eq!(recall(&run, chosen("b", "fft")).unwrap(), both);
        assert_eq!(
            recall(&run, chosen("a", "fft")).unwrap(),
            chosen("a", "gemm")
        );
        std::fs::write(run.path().join(FILE), "[]").unwrap();
        let error = recall(&run, Algorithms::new()).unwrap_err().to_string();
        assert!(error.contains(FILE), "{error}");
    }
}
