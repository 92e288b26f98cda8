//! Which of several algorithms does a piece of work: the first that can, or the one that timing found to be fastest.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Error, Result, bail};

use crate::device::Algorithms;

/// Why an algorithm did not do what it was asked for.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It does not do this, or not in the memory that is left: another one may.
    Refused(String),
    /// Something is wrong, with the device or with us: others would hide it.
    Failed(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Whether a status of cuDNN's, by its name, says that another algorithm may do it: it does not support this, or has too
/// little memory for it.
pub(super) fn is_refusal(status: &str) -> bool {
    status.starts_with("CUDNN_STATUS_NOT_SUPPORTED") || status == "CUDNN_STATUS_ALLOC_FAILED"
}

type Attempt<T> = std::result::Result<T, Trouble>;

/// Something that one of several algorithms does.
pub(super) trait Work {
    type Algorithm: Copy;

    /// What it is, in words.
    fn name(&self) -> String;

    /// Does it.
    fn run(&mut self, algorithm: Self::Algorithm) -> Attempt<()>;

    /// Does it so as to learn how many seconds it takes.
    fn time(&mut self, algorithm: Self::Algorithm) -> Attempt<f64>;

    /// Whether what came out of the last run is free of NaN. `None` where nothing can be said, as NaN went in.
    ///
    /// # Errors
    /// What the device reports.
    fn is_sound(&mut self) -> Result<Option<bool>>;
}

/// What is known of an algorithm and a piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Sound,
    /// It made NaN of numbers.
    MakesNan,
}

/// What timing has chosen so far, `None` where nothing is timed, and what was seen of the results.
#[derive(Debug, Default)]
pub(super) struct Choices {
    chosen: Mutex<Option<Arc<Algorithms>>>,
    verdicts: Mutex<Option<HashMap<(String, &'static str), Verdict>>>,
    /// How often the choices were replaced from outside.
    generation: AtomicUsize,
}

impl Choices {
    #[cfg(feature = "cuda")]
    pub(super) const fn none() -> Self {
        Self {
            chosen: Mutex::new(None),
            verdicts: Mutex::new(None),
            generation: AtomicUsize::new(0),
        }
    }

    /// Times from now on what is not among `known`; `None` ends that.
    pub(super) fn set(&self, known: Option<Algorithms>) {
        *self.chosen.lock().unwrap_or_else(PoisonError::into_inner) = known.map(Arc::new);
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Option<Arc<Algorithms>> {
        let choices = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        choices.clone()
    }

    /// What [`run`](Self::run) returned holds as long as this stays the same.
    pub(super) fn generation(&self) -> usize {
        self.generation.load(Ordering::Relaxed)
    }

    fn verdict(&self, work: &str, name: &'static str) -> Option<Verdict> {
        let verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        verdicts.as_ref()?.get(&(work.to_owned(), name)).copied()
    }

    /// Whether the result of an algorithm was looked at and found to be good.
    #[cfg(feature = "cuda")]
    pub(super) fn is_sound(&self, work: &str, name: &'static str) -> bool {
        self.verdict(work, name) == Some(Verdict::Sound)
    }

    /// Runs an algorithm. At its first use for this work NaN in what comes out is a refusal; later it is not looked for.
    fn checked<W: Work>(
        &self,
        work: &mut W,
        words: &str,
        (algorithm, name): (W::Algorithm, &'static str),
    ) -> Attempt<()> {
        let nan = || Trouble::Refused("it makes NaN of numbers".to_owned());
        match self.verdict(words, name) {
            Some(Verdict::MakesNan) => return Err(nan()),
            Some(Verdict::Sound) => return work.run(algorithm),
            None => {}
        }
        work.run(algorithm)?;
        let Some(is_sound) = work.is_sound()? else {
            return Ok(());
        };
        let verdict = match is_sound {
            true => Verdict::Sound,
            false => Verdict::MakesNan,
        };
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        let verdicts = verdicts.get_or_insert_default();
        verdicts.insert((words.to_owned(), name), verdict);
        match is_sound {
            true => Ok(()),
            false => Err(nan()),
        }
    }

    /// Does a piece of work by one of `algorithms`, which are in the order in which they are tried where nothing is
    /// timed, and returns which. The next one is tried where one [refuses](Trouble::Refused).
    ///
    /// # Errors
    /// What [fails](Trouble::Failed), and work that all of them refuse.
    pub(super) fn run<W: Work>(
        &self,
        work: &mut W,
        algorithms: &[(W::Algorithm, &'static str)],
    ) -> Result<usize> {
        let words = work.name();
        let mut refusals = Vec::new();
        let failed = |name: &str, error: Error| error.context(format!("{words}, `{name}`"));
        let Some(choices) = self.get() else {
            for (index, &(algorithm, name)) in algorithms.iter().enumerate() {
                match self.checked(work, &words, (algorithm, name)) {
                    Ok(()) => return Ok(index),
                    Err(Trouble::Refused(why)) => refusals.push(format!("{name}: {why}")),
                    Err(Trouble::Failed(error)) => return Err(failed(name, error)),
                }
            }
            return refused(&words, &refusals);
        };
        let known = choices.get(&words);
        let known = known.and_then(|known| algorithms.iter().position(|(_, name)| name == known));
        if let Some(index) = known {
            let (algorithm, name) = algorithms[index];
            // Another one would be another result than the one that was asked for by name.
            return match self.checked(work, &words, (algorithm, name)) {
                Ok(()) => Ok(index),
                Err(Trouble::Failed(error)) => Err(failed(name, error)),
                Err(Trouble::Refused(why)) => bail!(
                    "`{name}` was chosen before for this and does not do it now: {words}: {why}\nhint: without the choices (algorithms.json of a run) it is timed again"
                ),
            };
        }
        let mut times: Vec<(f64, usize)> = Vec::new();
        for (index, &(algorithm, name)) in algorithms.iter().enumerate() {
            match work.time(algorithm) {
                Ok(time) => times.push((time, index)),
                Err(Trouble::Refused(why)) => refusals.push(format!("{name}: {why}")),
                Err(Trouble::Failed(error)) => return Err(failed(name, error)),
            }
        }
        times.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        for (_, index) in times {
            let (algorithm, name) = algorithms[index];
            match self.checked(work, &words, (algorithm, name)) {
                Ok(()) => {
                    let mut choices = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(choices) = &mut *choices {
                        Arc::make_mut(choices).insert(words, name.to_owned());
                    }
                    return Ok(index);
                }
                Err(Trouble::Refused(why)) => refusals.push(format!("{name}: {why}")),
                Err(Trouble::Failed(error)) => return Err(failed(name, error)),
            }
        }
        refused(&words, &refusals)
    }
}

fn refused<T>(work: &str, refusals: &[String]) -> Result<T> {
    bail!(
        "no deterministic algorithm does this: {work}: {}",
        refusals.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Algorithms by the seconds they take. Of the last two one refuses, and one makes NaN of numbers.
    const ALGORITHMS: [(u8, &str); 5] = [
        (3, "slow"),
        (1, "fast"),
        (2, "middling"),
        (REFUSES, "none"),
        (MAKES_NAN, "nan"),
    ];
    const REFUSES: u8 = 0;
    /// It is also the fastest.
    const MAKES_NAN: u8 = 9;
    const FAILS: u8 = 10;

    struct Fake<'a> {
        name: &'a str,
        has_nan: bool,
        /// What was run, one after the other.
        runs: Vec<u8>,
        checks: usize,
    }

    impl Work for Fake<'_> {
        type Algorithm = u8;

        fn name(&self) -> String {
            self.name.to_owned()
        }

        fn run(&mut self, algorithm: u8) -> Attempt<()> {
            self.time(algorithm).map(|_| ())
        }

        fn time(&mut self, algorithm: u8) -> Attempt<f64> {
            match algorithm {
                REFUSES => Err(Trouble::Refused("cannot".to_owned())),
                FAILS => Err(Trouble::Failed(Error::msg("the device is gone"))),
                _ => {
                    self.runs.push(algorithm);
                    Ok(f64::from(algorithm % MAKES_NAN))
                }
            }
        }

        fn is_sound(&mut self) -> Result<Option<bool>> {
            self.checks += 1;
            let last = self.runs.last();
            Ok((!self.has_nan).then_some(last != Some(&MAKES_NAN)))
        }
    }

    fn fake(name: &str) -> Fake<'_> {
        Fake {
            name,
            has_nan: false,
            runs: Vec::new(),
            checks: 0,
        }
    }

    fn run(choices: &Choices, work: &str, algorithms: &[(u8, &'static str)]) -> Result<Vec<u8>> {
        let mut work = fake(work);
        choices.run(&mut work, algorithms)?;
        Ok(work.runs)
    }

    #[test]
    fn without_timing_the_first_that_can_does_it() -> Result<()> {
        let choices = Choices::default();
        assert_eq!(run(&choices, "a", &ALGORITHMS)?, [3]);
        assert_eq!(
            run(&choices, "a", &[(REFUSES, "none"), (2, "middling")])?,
            [2]
        );
        let index = choices.run(&mut fake("a"), &[(REFUSES, "none"), (2, "middling")])?;
        assert_eq!(index, 1);
        let error = run(&choices, "a", &[(REFUSES, "none")]).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("this: a: none: cannot"), "{error}");
        assert_eq!(choices.get(), None);
        Ok(())
    }

    /// A device that reports an error was once asked for the next algorithm, and the error was lost.
    #[test]
    fn a_failure_is_no_refusal() {
        let choices = Choices::default();
        let algorithms = [(REFUSES, "none"), (FAILS, "broken"), (2, "middling")];
        for known in [None, Some(Algorithms::new())] {
            choices.set(known);
            let mut work = fake("a");
            let error = choices.run(&mut work, &algorithms).unwrap_err().to_string();
            assert!(error.contains("a, `broken`"), "{error}");
            assert!(error.contains("the device is gone"), "{error}");
            assert_eq!(work.runs, [0; 0]);
        }
    }

    #[test]
    fn only_what_is_not_supported_is_asked_of_another_algorithm() {
        for (status, expected) in [
            ("CUDNN_STATUS_NOT_SUPPORTED", true),
            ("CUDNN_STATUS_NOT_SUPPORTED_LAYOUT", true),
            ("CUDNN_STATUS_ALLOC_FAILED", true),
            ("CUDNN_STATUS_EXECUTION_FAILED", false),
            ("CUDNN_STATUS_EXECUTION_FAILED_CUDA_DRIVER", false),
            ("CUDNN_STATUS_BAD_PARAM", false),
            ("CUDNN_STATUS_INTERNAL_ERROR", false),
        ] {
            assert_eq!(is_refusal(status), expected, "{status}");
        }
    }

    #[test]
    fn nan_is_looked_for_once_and_refused() -> Result<()> {
        let choices = Choices::default();
        let algorithms = [(MAKES_NAN, "nan"), (2, "middling")];
        for (name, checks, runs) in [
            ("a", 2, &[MAKES_NAN, 2][..]),
            ("a", 0, &[2]),
            ("b", 2, &[MAKES_NAN, 2]),
        ] {
            let mut work = fake(name);
            assert_eq!(choices.run(&mut work, &algorithms)?, 1);
            assert_eq!((work.checks, &work.runs[..]), (checks, runs), "{name}");
        }
        // Of numbers that came in as NaN nothing is learnt: the next time is the first.
        let mut work = Fake {
            has_nan: true,
            ..fake("c")
        };
        assert_eq!(choices.run(&mut work, &algorithms)?, 0);
        let mut work = fake("c");
        assert_eq!(choices.run(&mut work, &algorithms)?, 1);
        assert_eq!(work.checks, 2);
        Ok(())
    }

    #[test]
    fn timing_takes_the_fastest_and_remembers_it() -> Result<()> {
        let choices = Choices::default();
        let generation = choices.generation();
        choices.set(Some(Algorithms::new()));
        assert_ne!(choices.generation(), generation);
        // Each once to be timed; the fastest makes NaN, and the next one's result stays.
        assert_eq!(run(&choices, "a", &ALGORITHMS)?, [3, 1, 2, 9, 9, 1]);
        assert_eq!(run(&choices, "a", &ALGORITHMS)?, [1]);
        let found = Algorithms::from([("a".to_owned(), "fast".to_owned())]);
        assert_eq!(choices.get().as_deref(), Some(&found));
        assert!(run(&choices, "b", &[(REFUSES, "none")]).is_err());
        Ok(())
    }

    #[test]
    fn what_is_known_is_not_timed() -> Result<()> {
        let choices = Choices::default();
        let known = |name: &str| Algorithms::from([("a".to_owned(), name.to_owned())]);
        choices.set(Some(known("slow")));
        assert_eq!(run(&choices, "a", &ALGORITHMS)?, [3]);
        // Of a name that it does not know nothing can be said.
        choices.set(Some(known("of another version")));
        assert_eq!(run(&choices, "a", &ALGORITHMS)?, [3, 1, 2, 9, 9, 1]);
        assert_eq!(choices.get().as_deref(), Some(&known("fast")));
        // One that refuses is not replaced without a word, nor one that makes NaN.
        for (name, why) in [("none", "cannot"), ("nan", "NaN of numbers")] {
            choices.set(Some(known(name)));
            let error = run(&choices, "a", &ALGORITHMS).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("`{name}` was chosen before")) && error.contains(why)
            );
            assert_eq!(choices.get().as_deref(), Some(&known(name)));
        }
        Ok(())
    }
}
