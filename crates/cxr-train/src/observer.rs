//! What sees the events of a run, and decides at the end of an epoch how it goes on.

use cxr_run::{BestEpoch, Decision, EpochRecord, Event, EventLog};

use crate::{Classifier, ModelCard, Prediction, TrainError, TrainingData};

/// Receives the events of a run, and has a say in how it goes on. `()` ignores them.
///
/// Several observers are one: a tuple of up to four, or a `Vec` of boxed ones. Each sees everything, in their order, and
/// the strongest [`Decision`] counts. Of a closure, [`on_event`] and [`at_epoch_end`] make an observer.
///
/// ```
/// use cxr_train::{Decision, Event, Observer, at_epoch_end, on_event};
///
/// let mut n_steps = 0;
/// let mut observer = (
///     on_event(|event| n_steps += usize::from(matches!(event, Event::Step { .. }))),
///     at_epoch_end(|end| {
///         let is_good_enough = end.record.validation_auc.is_some_and(|auc| auc > 0.8);
///         Ok(if is_good_enough { Decision::Finish } else { Decision::Continue })
///     }),
/// );
/// # let _: &mut dyn Observer = &mut observer;
/// ```
pub trait Observer {
    /// Called from the training thread, between steps: it should return soon.
    fn on(&mut self, event: &Event<'_>) {
        let _ = event;
    }

    /// Called after each epoch, once the validation images are scored and before the next step: how the training goes on.
    ///
    /// It should depend on `end` alone: what an observer keeps by itself is lost when the run is stopped and resumed,
    /// where [`EpochEnd::history`] is not. An epoch that was decided on and has its checkpoint is not asked about again.
    ///
    /// # Errors
    /// Any ends the training; the checkpoint before the end of the epoch stays.
    fn epoch_end(&mut self, end: &EpochEnd<'_>) -> Result<Decision, TrainError> {
        let _ = end;
        Ok(Decision::Continue)
    }

    /// Called before a checkpoint is written, after its event. An error ends the run with the
    /// checkpoint before: a run never goes on from one whose past was not kept.
    ///
    /// # Errors
    /// An event could not be kept.
    fn before_checkpoint(&mut self) -> Result<(), TrainError> {
        Ok(())
    }
}

/// A training at the end of an epoch.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct EpochEnd<'a> {
    /// The stage's name.
    pub stage: &'a str,
    /// The epoch, counted from 0 through all stages.
    pub epoch: usize,
    /// The network that was validated: of the averaged weights, where the experiment averages them.
    pub classifier: &'a Classifier,
    /// What a model file of it says; [`save_model`](crate::save_model) writes one.
    pub card: &'a ModelCard,
    /// What it is trained on.
    pub data: &'a TrainingData,
    /// Its logits of the validation images, in single view.
    pub validation: &'a Prediction,
    /// What the epoch gave.
    pub record: &'a EpochRecord,
    /// All finished epochs, this one included.
    pub history: &'a [EpochRecord],
    /// The epoch with the best validation mean so far; `None` where none was defined.
    pub best: Option<&'a BestEpoch>,
}

impl Observer for () {}

/// Keeps what happens; no checkpoint is written before the lines of what came before it are on the disk.
impl Observer for EventLog {
    fn on(&mut self, event: &Event<'_>) {
        self.record(event);
    }

    fn before_checkpoint(&mut self) -> Result<(), TrainError> {
        Ok(self.sync()?)
    }
}

/// An observer that calls a closure with every event.
pub fn on_event(act: impl FnMut(&Event<'_>)) -> impl Observer {
    struct OnEvent<F>(F);
    impl<F: FnMut(&Event<'_>)> Observer for OnEvent<F> {
        fn on(&mut self, event: &Event<'_>) {
            (self.0)(event);
        }
    }
    OnEvent(act)
}

/// An observer that asks a closure at the end of each epoch how the training goes on, as
/// [`Observer::epoch_end`] says. Its errors may be of any type; they end the training as [`TrainError::Observer`].
pub fn at_epoch_end<F>(decide: F) -> impl Observer
where
    F: FnMut(&EpochEnd<'_>) -> Result<Decision, Box<dyn std::error::Error + Send + Sync>>,
{
    struct AtEpochEnd<F>(F);
    impl<F> Observer for AtEpochEnd<F>
    where
        F: FnMut(&EpochEnd<'_>) -> Result<Decision, Box<dyn std::error::Error + Send + Sync>>,
    {
        fn epoch_end(&mut self, end: &EpochEnd<'_>) -> Result<Decision, TrainError> {
            Ok((self.0)(end)?)
        }
    }
    AtEpochEnd(decide)
}

/// A pointer to an observer is that observer.
macro_rules! forward_to_the_observer {
    ($($pointer:ty),*) => {
        $(
            impl<O: Observer + ?Sized> Observer for $pointer {
                fn on(&mut self, event: &Event<'_>) {
                    (**self).on(event);
                }

                fn epoch_end(&mut self, end: &EpochEnd<'_>) -> Result<Decision, TrainError> {
                    (**self).epoch_end(end)
                }

                fn before_checkpoint(&mut self) -> Result<(), TrainError> {
                    (**self).before_checkpoint()
                }
            }
        )*
    };
}

forward_to_the_observer!(&mut O, Box<O>);

impl<O: Observer> Observer for Vec<O> {
    fn on(&mut self, event: &Event<'_>) {
        self.iter_mut().for_each(|observer| observer.on(event));
    }

    fn epoch_end(&mut self, end: &EpochEnd<'_>) -> Result<Decision, TrainError> {
        let mut strongest = Decision::Continue;
        for observer in self {
            strongest = strongest.max(observer.epoch_end(end)?);
        }
        Ok(strongest)
    }

    fn before_checkpoint(&mut self) -> Result<(), TrainError> {
        self.iter_mut().try_for_each(Observer::before_checkpoint)
    }
}

macro_rules! observers_as_tuples {
    ($(($($observer:ident . $place:tt),*)),*) => {
        $(
            impl<$($observer: Observer),*> Observer for ($($observer,)*) {
                fn on(&mut self, event: &Event<'_>) {
                    $(self.$place.on(event);)*
                }

                fn epoch_end(&mut self, end: &EpochEnd<'_>) -> Result<Decision, TrainError> {
                    let decisions = [$(self.$place.epoch_end(end)?),*];
                    Ok(decisions.into_iter().max().unwrap_or_default())
                }

                fn before_checkpoint(&mut self) -> Result<(), TrainError> {
                    $(self.$place.before_checkpoint()?;)*
                    Ok(())
                }
            }
        )*
    };
}

observers_as_tuples!((A.0), (A.0, B.1), (A.0, B.1, C.2), (A.0, B.1, C.2, D.3));
