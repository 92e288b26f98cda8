//! The batches of a step that several ranks share, and the sum of their gradients.
//!
//! Rank r computes batch r of each round of as many batches as there are ranks. The gradients are cut into as many pieces
//! as there are ranks; each rank is sent its piece of every batch, adds the batches up in their order, as accumulation
//! does, and in the end all ranks send each other the sums. Every value of the sum is made of the same additions in the
//! same order whatever the number of ranks, so that its bits are those of one process. A rank sends and receives
//! `(ranks − 1) / ranks` of the gradients twice.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::Ordering;

use candle_core::{Tensor, TensorId, Var};
use cxr_dataset::ImageName;
use cxr_ops::{Role, RunningUpdate, RunningUpdates};
use serde::{Deserialize, Serialize};

use super::step::{Batches, MadeBatch, NotFinite, Step, StepError};
use crate::ranks::RanksError;
use crate::{Gradients, MeanGradients, TrainError};

/// What the ranks have made of a step's batches.
pub(super) struct Exchanged {
    /// Every batch, in order.
    pub(super) batches: Vec<MadeBatch>,
    /// Their mean gradient; `None` where there was no batch.
    pub(super) gradients: Option<Gradients>,
    /// Whether a rank was asked to stop.
    pub(super) stop: bool,
}

/// What a rank has made of its batch.
struct OwnBatch {
    batch: MadeBatch,
    loss: f64,
    gradients: Gradients,
    updates: Vec<RunningUpdate>,
}

/// What a rank says of its batch.
#[derive(Serialize, Deserialize)]
struct Said {
    /// Whether it was asked to stop.
    stop: bool,
    outcome: Outcome,
}

#[derive(Serialize, Deserialize)]
enum Outcome {
    Batch {
        loss: f64,
        images: Vec<String>,
    },
    /// The last round of a step may have fewer batches than there are ranks.
    NoBatch,
    NotFinite {
        what: String,
        images: Vec<String>,
    },
    Failed {
        problem: String,
    },
}

/// Computes this rank's batches of a step, and joins them with those of the others.
///
/// # Errors
/// What is not finite in any batch, the first in order; this rank's own error; [`RanksError`].
pub(super) fn exchange(step: &Step<'_>, batches: &mut Batches<'_>) -> Result<Exchanged, StepError> {
    let ranks = step.ranks;
    let running = step.classifier.parameters().select(Role::Running, "");
    let running = Running::new(running.into_iter().map(|(_, var)| var).collect());
    let sizes = step.trained.iter().map(|trained| trained.var.elem_count());
    let pieces = pieces(sizes.sum(), ranks.size());
    let mut exchanged = Exchanged {
        batches: Vec::new(),
        gradients: None,
        stop: false,
    };
    let mut mean = MeanGradients::default();
    for first in (0..step.n_batches).step_by(ranks.size()) {
        let has_batch = first + ranks.rank() < step.n_batches;
        let made = match has_batch {
            true => own_batch(step, batches).map(Some),
            false => Ok(None),
        };
        let span = step.profile.span("ranks wait");
        let said = all_say(step, made.as_ref(), &running)?;
        drop(span);
        // What is not finite is reported below, of the first rank that has it.
        let made = match made {
            Err(StepError::NotFinite(_)) => None,
            made => made?,
        };
        let _span = step.profile.span("exchange");
        let mut n_images = Vec::new();
        for (rank, (said, updates)) in said.into_iter().enumerate() {
            exchanged.stop |= said.stop;
            match said.outcome {
                Outcome::Batch { loss, images } => {
                    let names = names(&images)?;
                    n_images.push(names.len());
                    exchanged.batches.push(match &made {
                        Some(own) if rank == ranks.rank() => own.batch.clone(),
                        _ => MadeBatch::known(loss, names),
                    });
                    running.apply(&updates)?;
                }
                Outcome::NoBatch => {}
                Outcome::NotFinite { what, images } => {
                    let images = names(&images)?;
                    return Err(StepError::NotFinite(NotFinite { what, images }));
                }
                Outcome::Failed { problem } => {
                    return Err(RanksError::Failed { rank, problem }.into());
                }
            }
        }
        let values = match &made {
            Some(own) => own.gradients.values()?,
            None => Vec::new(),
        };
        let of_piece = |piece: &Range<usize>| values.get(piece.clone()).unwrap_or(&[]);
        let parts: Vec<&[f32]> = pieces.iter().map(of_piece).collect();
        let received = ranks.all_to_all(&parts)?;
        for (piece, n_images) in received.into_iter().zip(n_images) {
            mean.add(Gradients::of_values(piece)?, n_images)?;
        }
    }
    let _span = step.profile.span("exchange");
    if let Some(piece) = mean.finish() {
        let all = ranks.all_gather_values(&piece.values()?)?;
        exchanged.gradients = Some(piece.with_values(all, step.trained)?);
    }
    Ok(exchanged)
}

/// The pieces of so many values, one for each rank, in order.
fn pieces(n_values: usize, n_ranks: usize) -> Vec<Range<usize>> {
    let length = n_values.div_ceil(n_ranks);
    let place = |rank: usize| (rank * length).min(n_values);
    (0..n_ranks)
        .map(|rank| place(rank)..place(rank + 1))
        .collect()
}

fn own_batch(step: &Step<'_>, batches: &mut Batches<'_>) -> Result<OwnBatch, StepError> {
    let batch = step.next(batches)?;
    let updates = RunningUpdates::new();
    let (batch, gradients) = updates.scope(|| step.gradients(batch))?;
    let loss = batch.check(&|index| step.name(index))?;
    Ok(OwnBatch {
        batch,
        loss,
        gradients,
        updates: updates.take(),
    })
}

/// What every rank says of its batch, with what that changes of the running statistics.
fn all_say(
    step: &Step<'_>,
    made: Result<&Option<OwnBatch>, &StepError>,
    running: &Running,
) -> Result<Vec<(Said, Vec<u8>)>, StepError> {
    let strings = |names: &[ImageName]| names.iter().map(ImageName::to_string).collect();
    let mut updates = Vec::new();
    let outcome = match made {
        Ok(Some(own)) => match running.to_bytes(&own.updates) {
            Ok(bytes) => {
                updates = bytes;
                Outcome::Batch {
                    loss: own.loss,
                    images: strings(own.batch.names()),
                }
            }
            Err(error) => Outcome::Failed {
                problem: error.to_string(),
            },
        },
        Ok(None) => Outcome::NoBatch,
        Err(StepError::NotFinite(NotFinite { what, images })) => Outcome::NotFinite {
            what: what.clone(),
            images: strings(images),
        },
        Err(StepError::Other(error)) => Outcome::Failed {
            problem: error.to_string(),
        },
    };
    let said = Said {
        stop: step.stop.load(Ordering::Relaxed),
        outcome,
    };
    let failed = |error: serde_json::Error| RanksError::Transport {
        action: "say what a batch gave",
        problem: error.to_string(),
    };
    let text = serde_json::to_vec(&said).map_err(failed)?;
    let mut message = (text.len() as u64).to_le_bytes().to_vec();
    message.extend(text);
    message.extend(updates);
    let all = step.ranks.all_gather(&message)?.into_iter();
    all.map(|message| {
        let parts = message.split_first_chunk::<8>().and_then(|(length, rest)| {
            let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
            rest.split_at_checked(length)
        });
        let (text, updates) = parts.unwrap_or((&[], &[]));
        let said = serde_json::from_slice(text).map_err(failed)?;
        Ok((said, updates.to_vec()))
    })
    .collect()
}

fn names(images: &[String]) -> Result<Vec<ImageName>, TrainError> {
    let names = images.iter().map(|image| ImageName::new(image));
    Ok(names.collect::<Result<_, _>>()?)
}

/// A network's running statistics, which ranks call by their places in name order.
struct Running {
    vars: Vec<Var>,
    places: HashMap<TensorId, usize>,
}

impl Running {
    fn new(vars: Vec<Var>) -> Self {
        let places = vars.iter().enumerate();
        let places = places
            .map(|(place, var)| (var.as_tensor().id(), place))
            .collect();
        Self { vars, places }
    }

    /// Updates as a message: for each the statistic's place, the momentum, the number of values, and the values, each in
    /// eight bytes.
    fn to_bytes(&self, updates: &[RunningUpdate]) -> Result<Vec<u8>, TrainError> {
        let mut bytes = Vec::new();
        for update in updates {
            let place = self.places.get(&update.running.as_tensor().id());
            let Some(&place) = place else {
                let expected = "a parameter of the network, made by `ParameterPath::running`";
                let found = "another variable";
                return Err(TrainError::setting("running statistic", expected, found));
            };
            bytes.extend((place as u64).to_le_bytes());
            bytes.extend(update.momentum.to_le_bytes());
            bytes.extend((update.batch.len() as u64).to_le_bytes());
            bytes.extend(update.batch.iter().flat_map(|value| value.to_le_bytes()));
        }
        Ok(bytes)
    }

    /// Applies the updates of a message, in their order.
    fn apply(&self, bytes: &[u8]) -> Result<(), TrainError> {
        let (words, _) = bytes.as_chunks::<8>();
        let mut words = words.iter().copied();
        while let Some(place) = words.next() {
            let update = self.update(place, &mut words);
            let update = update.ok_or_else(|| RanksError::Transport {
                action: "exchange running statistics",
                problem: "a message was cut".to_owned(),
            })?;
            update.apply()?;
        }
        Ok(())
    }

    /// The update of the statistic at `place`, as it follows in a message; `None` where that was cut.
    fn update(
        &self,
        place: [u8; 8],
        words: &mut impl Iterator<Item = [u8; 8]>,
    ) -> Option<RunningUpdate> {
        let number = |word| usize::try_from(u64::from_le_bytes(word)).ok();
        let running = self.vars.get(number(place)?)?.clone();
        let momentum = f64::from_le_bytes(words.next()?);
        let length = number(words.next()?)?;
        let batch: Vec<f64> = words.take(length).map(f64::from_le_bytes).collect();
        (batch.len() == length).then_some(RunningUpdate {
            running,
            batch,
            momentum,
        })
    }
}

impl Gradients {
    /// A piece of some gradients, or of a sum of them.
    fn of_values(values: Vec<f32>) -> Result<Self, TrainError> {
        let length = values.len();
        let tensor = Tensor::from_vec(values, length, &candle_core::Device::Cpu)?;
        Ok(Self::of_tensors(vec![tensor], 1.))
    }

    /// These gradients, of all parameters in `trained` in their order, with these values in the place of their own.
    fn with_values(
        &self,
        values: Vec<f32>,
        trained: &[crate::Trained],
    ) -> Result<Self, TrainError> {
        let length = values.len();
        let all = Tensor::from_vec(values, length, &candle_core::Device::Cpu)?;
        let mut begin = 0;
        let mut tensors = Vec::with_capacity(trained.len());
        for parameter in trained {
            let count = parameter.var.elem_count();
            let tensor = all
                .narrow(0, begin, count)?
                .reshape(parameter.var.shape())?;
            tensors.push(tensor.to_device(parameter.var.device())?);
            begin += count;
        }
        Ok(Self::of_tensors(tensors, self.scale()))
    }
}

#[cfg(test)]
mod tests {
    use super::pieces;

    #[test]
    fn every_value_is_in_one_piece() {
        for (n_values, n_ranks) in [(10, 3), (2, 4), (0, 2), (8, 8), (7, 1)] {
            let pieces = pieces(n_values, n_ranks);
            assert_eq!(pieces.len(), n_ranks);
            let all: Vec<usize> = pieces.into_iter().flatten().collect();
            assert_eq!(all, (0..n_values).collect::<Vec<_>>());
        }
    }
}
