//! Which of several algorithms does a piece of work: the first that can, or the one that timing found to be fastest.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Result, bail};

use crate::device::Algorithms;

/// What is to be done with an algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Do,
    /// So as to learn how long it takes.
    Time,
}

/// What timing has chosen so far; `None` where nothing is timed.
#[derive(Debug, Default)]
pub(super) struct Choices(Mutex<Option<Arc<Algorithms>>>);

impl Choices {
    #[cfg(feature = "cuda")]
    pub(super) const fn none() -> Self {
        Self(Mutex::new(None))
    }

    /// Times from now on what is not among `known`; `None` ends that.
    pub(super) fn set(&self, known: Option<Algorithms>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = known.map(Arc::new);
    }

    pub(super) fn get(&self) -> Option<Arc<Algorithms>> {
        let choices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        choices.clone()
    }

    /// Does a piece of work by one of `algorithms`, which stand in the order in which they are tried where nothing is
    /// timed. `act` does it by one of them and returns the seconds it took where they are [wanted](Act::Time).
    pub(super) fn run<A: Copy, E: Display>(
        &self,
        work: impl FnOnce() -> String,
        algorithms: &[(A, &'static str)],
        mut act: impl FnMut(A, Act) -> std::result::Result<f64, E>,
    ) -> Result<()> {
        let mut refusals = Vec::new();
        let Some(choices) = self.get() else {
            for &(algorithm, name) in algorithms {
                match act(algorithm, Act::Do) {
                    Ok(_) => return Ok(()),
                    Err(error) => refusals.push(format!("{name}: {error}")),
                }
            }
            return refused(&work(), &refusals);
        };
        let work = work();
        let known = choices.get(&work);
        let known = known.and_then(|known| algorithms.iter().find(|(_, name)| name == known));
        if let Some(&(algorithm, name)) = known {
            // Another one would be another result than the one that was asked for by name.
            return match act(algorithm, Act::Do) {
                Ok(_) => Ok(()),
                Err(error) => bail!(
                    "`{name}` was chosen before for this and does not do it now: {work}: {error}\nhint: without the choices (algorithms.json of a run) it is timed again"
                ),
            };
        }
        let mut fastest: Option<(f64, A, &'static str)> = None;
        for &(algorithm, name) in algorithms {
            match act(algorithm, Act::Time) {
                Ok(time) if fastest.is_none_or(|(least, ..)| time < least) => {
                    fastest = Some((time, algorithm, name));
                }
                Ok(_) => {}
                Err(error) => refusals.push(format!("{name}: {error}")),
            }
        }
        let Some((_, algorithm, name)) = fastest else {
            return refused(&work, &refusals);
        };
        if let Err(error) = act(algorithm, Act::Do) {
            return refused(&work, &[format!("{name}: {error}")]);
        }
        let mut choices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(choices) = &mut *choices {
            Arc::make_mut(choices).insert(work, name.to_owned());
        }
        Ok(())
    }
}

fn refused(work: &str, refusals: &[String]) -> Result<()> {
    bail!(
        "no deterministic algorithm does this: {work}: {}",
        refusals.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Algorithms by the seconds they take; the last of them refuses.
    const ALGORITHMS: [(u8, &str); 4] = [(3, "slow"), (1, "fast"), (2, "middling"), (0, "none")];

    /// What was run, one after the other.
    fn run(choices: &Choices, work: &str, algorithms: &[(u8, &'static str)]) -> Result<Vec<u8>> {
        let mut runs = Vec::new();
        choices.run(
            || work.to_owned(),
            algorithms,
            |algorithm, _| {
                if algorithm == 0 {
                    return Err("cannot");
                }
                runs.push(algorithm);
                Ok(f64::from(algorithm))
            },
        )?;
        Ok(runs)
    }

    #[test]
    fn without_timing_the_first_that_can_does_it() -> Result<()> {
        let choices = Choices::default();
        assert_eq!(run(&choices, "a", &ALGORITHMS)?, [3]);
        assert_eq!(run(&choices, "a", &[(0, "none"), (2, "middling")])?, [2]);
        let error = run(&choices, "a", &[(0, "none")]).unwrap_err().to_string();
        assert!(error.contains("this: a: none: cannot"), "{error}");
        assert_eq!(choices.get(), None);
        Ok(())
    }

    #[test]
    fn timing_takes_the_fastest_and_remembers_it() -> Result<()> {
        let choices = Choices::default();
        choices.set(Some(Algorithms::new()));
        // Each once to be timed, and the fastest for the result that stays.
        assert_eq!(run(&choices, "a", &ALGORITHMS)?, [3, 1, 2, 1]);
        assert_eq!(run(&choices, "a", &ALGORITHMS)?, [1]);
        let found = Algorithms::from([("a".to_owned(), "fast".to_owned())]);
        assert_eq!(choices.get().as_deref(), Some(&found));
        assert!(run(&choices, "b", &[(0, "none")]).is_err());
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
        assert_eq!(run(&choices, "a", &ALGORITHMS)?, [3, 1, 2, 1]);
        assert_eq!(choices.get().as_deref(), Some(&known("fast")));
        // One that fails is not replaced without a word.
        choices.set(Some(known("none")));
        let error = run(&choices, "a", &ALGORITHMS).unwrap_err().to_string();
        assert!(error.starts_with("`none` was chosen before") && error.contains("cannot"));
        assert_eq!(choices.get().as_deref(), Some(&known("none")));
        Ok(())
    }
}
