//! What a long command shows: bars on a terminal, plain lines elsewhere; and `events.jsonl`.

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use cxr_train::{Event, Observer};
use indicatif::{ProgressBar, ProgressStyle};

/// Prints a line for people, on standard error: standard output is for results.
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}

/// A bar with rate and time left; a line at each tenth where there is no terminal.
pub(crate) struct Bar {
    bar: ProgressBar,
    what: String,
    total: usize,
    plain: bool,
    /// Tenths that were told, where there is no terminal.
    told: AtomicUsize,
}

impl Bar {
    pub(crate) fn new(what: &str, unit: &str, total: usize) -> Self {
        let bar = ProgressBar::new(total as u64);
        let template = format!(
            "{{prefix}} {{bar:30}} {{pos}}/{{len}} {unit}, {{per_sec}}, {{eta}} left {{msg}}"
        );
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        bar.set_prefix(what.to_owned());
        Self {
            bar,
            what: what.to_owned(),
            total,
            plain: !std::io::stderr().is_terminal(),
            told: AtomicUsize::new(0),
        }
    }

    pub(crate) fn set(&self, done: usize) {
        self.bar.set_position(done as u64);
        // Several threads report, and not in order.
        let tenth = done * 10 / self.total.max(1);
        if self.plain && self.told.fetch_max(tenth, Ordering::Relaxed) < tenth {
            say(&format!("{}: {done} of {}", self.what, self.total));
        }
    }

    fn message(&self, text: String) {
        self.bar.set_message(text);
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Shows training and writes `events.jsonl`.
pub(crate) struct Watcher {
    events: File,
    failure: Option<std::io::Error>,
    bar: Option<Bar>,
    part: String,
}

impl Watcher {
    /// Appends to `events.jsonl` of a run folder.
    pub(crate) fn new(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("events.jsonl");
        let events = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(Self {
            events,
            failure: None,
            bar: None,
            part: String::new(),
        })
    }

    /// The first event that could not be written, as an error.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        if let Some(bar) = self.bar {
            bar.finish();
        }
        self.failure.map_or(Ok(()), |error| {
            Err(error).context("cannot write `events.jsonl`")
        })
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
    }

    fn log(&mut self, event: &Event<'_>) {
        let written = serde_json::to_string(event)
            .map_err(std::io::Error::from)
            .and_then(|line| writeln!(self.events, "{line}"));
        if let Err(error) = written {
            self.failure.get_or_insert(error);
        }
    }
}

impl Observer for Watcher {
    fn on(&mut self, event: &Event<'_>) {
        if !matches!(event, Event::Predicting { .. }) {
            self.log(event);
        }
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
                let (epoch, step) = from;
                let resumed = if (epoch, step) == (first_epoch, 0) {
                    String::new()
                } else {
                    format!(", going on at epoch {epoch}, step {step}")
                };
                say(&format!(
                    "stage `{stage}`: epochs {first_epoch} to {}, {steps} steps each, {trained_values} values trained{resumed}",
                    first_epoch + epochs - 1
                ));
            }
            Event::Step {
                stage,
                epoch,
                step,
                steps,
                loss,
                images,
                seconds,
                ..
            } => {
                self.part.clear();
                if self.bar.is_none() {
                    self.bar = Some(Bar::new(&format!("{stage}, epoch {epoch}"), "steps", steps));
                }
                if let Some(bar) = &self.bar {
                    bar.message(format!(
                        "loss {loss:.4}, {:.1} images/s",
                        images as f64 / seconds
                    ));
                    bar.set(step + 1);
                    if step + 1 == steps {
                        self.clear();
                    }
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
                say(&format!(
                    "epoch {epoch} ({stage}): mean loss {mean_loss:.4}, validation mean AUC {auc}{best}, {seconds:.0} s"
                ));
            }
            Event::EarlyStop {
                stage,
                epoch,
                patience,
            } => say(&format!(
                "stage `{stage}` ends after epoch {epoch}: no better validation mean for {patience} epochs"
            )),
            Event::Predicting { part, done, total } => {
                if self.part != part {
                    self.clear();
                    self.part = part.to_owned();
                    self.bar = Some(Bar::new(&format!("predicting {part}"), "images", total));
                }
                if let Some(bar) = &self.bar {
                    bar.set(done);
                    if done == total {
                        self.clear();
                    }
                }
            }
            _ => {}
        }
    }
}
