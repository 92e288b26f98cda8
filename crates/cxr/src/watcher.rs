//! A run as it is watched: on the terminal, and in `events.jsonl`.

use std::time::Duration;

use cxr_train::{Decision, Event, EventLog, Observer, TrainError};

use crate::progress::{Bar, duration, say};

/// Weight of the last step in the images per second that are shown.
const NEWEST: f64 = 0.1;

/// Shows training and prediction, and hands every event to the log.
pub(crate) struct Watcher {
    log: EventLog,
    bar: Option<Bar>,
    /// The part that is predicted.
    part: String,
    /// The epoch behind the last one of the stage.
    end_epoch: usize,
    /// Seconds of an image, as it changes from step to step.
    seconds_an_image: Option<f64>,
}

impl Watcher {
    pub(crate) fn new(log: EventLog) -> Self {
        Self {
            log,
            bar: None,
            part: String::new(),
            end_epoch: 0,
            seconds_an_image: None,
        }
    }

    /// Ends what is shown, and the log.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        self.clear();
        Ok(self.log.finish()?)
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
        self.part.clear();
    }

    /// The images per second, over the last steps.
    fn images_a_second(&mut self, images: usize, seconds: f64) -> f64 {
        let now = seconds / images.max(1) as f64;
        let before = self.seconds_an_image.unwrap_or(now);
        let mean = before + NEWEST * (now - before);
        self.seconds_an_image = Some(mean);
        mean.recip()
    }
}

impl Observer for Watcher {
    fn before_checkpoint(&mut self) -> Result<(), TrainError> {
        self.log.before_checkpoint()
    }

    fn on(&mut self, event: &Event<'_>) {
        self.log.on(event);
        match *event {
            Event::Stage {
                stage,
                first_epoch,
                epochs,
                steps,
                from,
                trained_values,
            } => {
                self.clear();
                self.end_epoch = first_epoch + epochs;
                self.seconds_an_image = None;
                let (epoch, step) = from;
                let resumed = if (epoch, step) == (first_epoch, 0) {
                    String::new()
                } else {
                    format!(", going on at epoch {epoch}, step {step}")
                };
                say(&format!(
                    "stage `{stage}`: epochs {first_epoch} to {}, {steps} steps each, {trained_values} values trained{resumed}",
                    self.end_epoch - 1
                ));
            }
            Event::Step {
                epoch,
                step,
                steps,
                loss,
                rate,
                images,
                seconds,
                ..
            } => {
                if self.bar.is_none() || !self.part.is_empty() {
                    self.clear();
                    let last = self.end_epoch.saturating_sub(1);
                    let what = format!("epoch {epoch}/{last}");
                    self.bar = Some(Bar::of_steps(&what, steps, step));
                }
                let images_a_second = self.images_a_second(images, seconds);
                if let Some(bar) = &self.bar {
                    bar.tell(step + 1, || {
                        format!("loss {loss:.4}, rate {rate:.1e}, {images_a_second:.1} images/s")
                    });
                }
                if step + 1 == steps {
                    self.clear();
                }
            }
            Event::Epoch {
                stage,
                epoch,
                mean_loss,
                validation_auc,
                validation_labels,
                best,
                seconds,
            } => {
                self.clear();
                let auc = validation_auc.map_or("undefined".to_owned(), |auc| {
                    format!("{auc:.4} over {validation_labels} labels")
                });
                let best = if best { ", best so far" } else { "" };
                let took = Duration::from_secs_f64(seconds.max(0.));
                let left = match self.end_epoch.saturating_sub(epoch + 1) {
                    0 => String::new(),
                    epochs => {
                        let left = took.mul_f64(epochs as f64);
                        format!(", {} left in this stage", duration(left))
                    }
                };
                say(&format!(
                    "epoch {epoch} ({stage}): mean loss {mean_loss:.4}, validation mean AUC {auc}{best}, {}{left}",
                    duration(took)
                ));
            }
            Event::EarlyStop {
                stage,
                epoch,
                patience,
            } => say(&format!(
                "stage `{stage}` ends after epoch {epoch}: no better validation mean for {patience} epochs"
            )),
            Event::Decided {
                stage,
                epoch,
                decision,
            } => say(&match decision {
                Decision::Finish => format!("training ends after epoch {epoch}, as was decided"),
                _ => format!("stage `{stage}` ends after epoch {epoch}, as was decided"),
            }),
            Event::Predicting { part, done, total } => {
                if self.part != part {
                    self.clear();
                    part.clone_into(&mut self.part);
                    self.bar = Some(Bar::new(&format!("predicting {part}"), "images", total));
                }
                if let Some(bar) = &self.bar {
                    bar.set(done);
                }
                if done == total {
                    self.clear();
                }
            }
            _ => {}
        }
    }
}
