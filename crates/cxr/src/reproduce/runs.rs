//! What there is to run: variants times seeds, of which a call may take a part.

use std::collections::BTreeSet;
use std::path::Path;
use std::str::FromStr;

use cxr_report::explanations::{EXPLANATIONS_FILE, EXPLANATIONS_FOLDER};
use cxr_run::{EXPERIMENT_FILE, Finish, RunFolder};

/// One training: a variant with a seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) variant: String,
    /// The seed, where it is not the experiment's own.
    pub(super) seed: Option<u64>,
}

impl Run {
    /// The name of its folder, as `cxr train` chooses it.
    pub(super) fn name(&self) -> String {
        match self.seed {
            Some(seed) => format!("{}-seed{seed}", self.variant),
            None => self.variant.clone(),
        }
    }
}

/// Every variant with the experiment's seed, then every variant with the next one, and so on: whoever
/// stops early has complete comparisons.
pub(super) fn runs(seed: u64, variants: &[&str], seeds: u64) -> Vec<Run> {
    let seeds = (0..seeds).map(|at| (at > 0).then(|| seed.saturating_add(at)));
    let of_seed = |seed| {
        let named = variants.iter();
        named.map(move |&variant| Run {
            variant: variant.to_owned(),
            seed,
        })
    };
    seeds.flat_map(of_seed).collect()
}

/// A name that two of the runs share: they would have one folder.
pub(super) fn name_of_two(runs: &[Run]) -> Option<String> {
    let mut names = BTreeSet::new();
    let mut all = runs.iter().map(Run::name);
    all.find(|name| !names.insert(name.clone()))
}

/// Which part of the runs a call takes: the `number`-th, counted from 1, of `of` parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shard {
    number: usize,
    of: usize,
}

impl Shard {
    /// Dealt like cards, so that the parts are alike in size and differ in losses, not in seeds.
    pub(super) fn take(self, runs: Vec<Run>) -> Vec<Run> {
        let dealt = runs.into_iter().skip(self.number - 1);
        dealt.step_by(self.of).collect()
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(number, of)| {
            let (number, of) = (number.parse().ok()?, of.parse().ok()?);
            (1..=of).contains(&number).then_some(Self { number, of })
        });
        parsed.ok_or_else(|| {
            "expected which of how many parts, such as `1/4`, the first of four".to_owned()
        })
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Finished,
    Begun,
    ToRun,
    /// Finished, and then its files were changed: `cxr train` says which, and does not begin.
    Changed,
}

impl State {
    /// As the run's folder says.
    pub(super) fn of(run_folder: &Path) -> Self {
        // A file that cannot be read is not what it was.
        let changed = || Finish::Changed(Vec::new());
        match RunFolder::at(run_folder)
            .finish()
            .unwrap_or_else(|_| changed())
        {
            Finish::Finished | Finish::Unverified => return Self::Finished,
            Finish::Changed(_) => return Self::Changed,
            _ => {}
        }
        if run_folder.join(EXPERIMENT_FILE).is_file() {
            Self::Begun
        } else {
            Self::ToRun
        }
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Begun => "begun: goes on from its last checkpoint",
            Self::ToRun => "to run",
            Self::Changed => {
                "finished, but its files were changed since: `cxr evaluate` makes them again"
            }
        }
    }
}

/// The run that Figures 4 and 7 are drawn from: the paper's proposal, or the first variant of an
/// experiment that has it not.
pub(super) fn explained<'a>(variants: &[String], runs: &'a [Run]) -> Option<&'a Run> {
    const PROPOSAL: &str = "fzlpr-0.2";
    let has_proposal = variants.iter().any(|name| name == PROPOSAL);
    let wanted = match variants.first() {
        Some(first) if !has_proposal => first.as_str(),
        _ => PROPOSAL,
    };
    runs.iter()
        .find(|run| run.seed.is_none() && run.variant == wanted)
}

/// Whether the pictures of a run are there.
pub(super) fn is_explained(run_folder: &Path) -> bool {
    let folder = run_folder.join(EXPLANATIONS_FOLDER);
    folder.join(EXPLANATIONS_FILE).is_file()
}

#[cfg(test)]
mod tests {
    use cxr_run::METRICS_FILE;

    use super::*;

    fn names(runs: &[Run]) -> Vec<String> {
        runs.iter().map(Run::name).collect()
    }

    #[test]
    fn the_first_seed_has_the_plain_name_and_each_seed_comes_whole() {
        let one = runs(4, &["bce", "fzlpr-0.2"], 1);
        assert_eq!(names(&one), ["bce", "fzlpr-0.2"]);
        let three = names(&runs(4, &["bce", "fzlpr-0.2"], 3));
        let later = [
            "bce-seed5",
            "fzlpr-0.2-seed5",
            "bce-seed6",
            "fzlpr-0.2-seed6",
        ];
        assert_eq!(three[..2], ["bce", "fzlpr-0.2"]);
        assert_eq!(three[2..], later);
    }

    #[test]
    fn shards_share_out_every_run_once() {
        let all = runs(0, &["bce", "focal", "zlpr"], 3);
        for of in 1..=10 {
            let mut dealt: Vec<String> = (1..=of)
                .flat_map(|number| {
                    let shard: Shard = format!("{number}/{of}").parse().unwrap();
                    names(&shard.take(all.clone()))
                })
                .collect();
            assert_eq!(dealt.len(), all.len());
            dealt.sort();
            let mut expected = names(&all);
            expected.sort();
            assert_eq!(dealt, expected);
        }
    }

    #[test]
    fn a_shard_is_one_of_those_there_are() {
        for wrong in ["", "1", "0/2", "3/2", "1/0", "a/b", "1/2/3", "-1/2"] {
            let parsed: Result<Shard, String> = wrong.parse();
            assert!(parsed.is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_proposal_is_explained_or_the_first_variant_where_there_is_none() {
        let paper = ["bce", "fzlpr-0.2"].map(str::to_owned);
        let all = runs(0, &["bce", "fzlpr-0.2"], 2);
        assert_eq!(explained(&paper, &all).unwrap().name(), "fzlpr-0.2");
        let others = runs(0, &["bce"], 1);
        assert_eq!(explained(&paper, &others), None);
        let other = ["lsep", "bce"].map(str::to_owned);
        let all = runs(0, &["lsep", "bce"], 1);
        assert_eq!(explained(&other, &all).unwrap().name(), "lsep");
    }

    #[test]
    fn a_run_s_state_is_read_from_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(State::of(&folder.path().join("none")), State::ToRun);
        std::fs::write(folder.path().join(EXPERIMENT_FILE), "").unwrap();
        assert_eq!(State::of(folder.path()), State::Begun);
        let metrics = folder.path().join(METRICS_FILE);
        // Of an early version, which wrote no digests.
        std::fs::write(&metrics, "{}").unwrap();
        assert_eq!(State::of(folder.path()), State::Finished);
        let other = r#"{"files":{"model.safetensors":"00"}}"#;
        std::fs::write(&metrics, other).unwrap();
        assert_eq!(State::of(folder.path()), State::Changed);
        std::fs::write(&metrics, "{").unwrap();
        assert_eq!(State::of(folder.path()), State::Changed);
    }

    #[test]
    fn a_variant_that_is_called_like_a_seed_of_another_is_found() {
        let of = |seeds| name_of_two(&runs(0, &["bce", "bce-seed1"], seeds));
        assert_eq!((of(1), of(2)), (None, Some("bce-seed1".to_owned())));
    }
}
