//! Where the time of a run goes, as a trace that opens in Perfetto.
//!
//! Written here and not by `tracing-chrome`: its spans would also be those of every library below,
//! and it wants a subscriber for the whole process, which is not a library's to install.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;

use crate::TrainError;

/// Spans of time in Chrome's trace format (complete events, times in microseconds), which
/// <https://ui.perfetto.dev> and `chrome://tracing` show.
///
/// A file that a kill has cut off still opens: the format does without the closing bracket.
#[derive(Debug)]
pub struct Profile {
    trace: Option<Trace>,
}

#[derive(Debug)]
struct Trace {
    path: PathBuf,
    begin: Instant,
    output: Mutex<Output>,
}

#[derive(Debug)]
struct Output {
    file: BufWriter<File>,
    failure: Option<std::io::Error>,
}

/// A span that ends when it is dropped.
#[derive(Debug)]
#[must_use = "a span ends when it is dropped"]
pub struct Span<'p>(Option<OpenSpan<'p>>);

#[derive(Debug)]
struct OpenSpan<'p> {
    trace: &'p Trace,
    name: &'static str,
    step: Option<(usize, usize)>,
    begin: Instant,
}

/// An event of the format.
#[derive(Serialize)]
struct Complete<'a> {
    name: &'a str,
    ph: &'a str,
    ts: f64,
    dur: f64,
    pid: u32,
    tid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<Args>,
}

#[derive(Serialize)]
struct Args {
    epoch: usize,
    step: usize,
}

impl Profile {
    /// No profile: a span then costs a comparison.
    pub const OFF: Self = Self { trace: None };

    /// A profile that is written to `path`.
    ///
    /// # Errors
    /// [`TrainError::Io`] when the file cannot be made.
    pub fn create(path: &Path) -> Result<Self, TrainError> {
        let failed = |source| TrainError::Io {
            action: "write",
            path: path.to_owned(),
            source,
        };
        let mut file = BufWriter::new(File::create(path).map_err(failed)?);
        let name = br#"{"name":"thread_name","ph":"M","pid":1,"tid":1,"args":{"name":"training"}}"#;
        file.write_all(b"[\n").map_err(failed)?;
        file.write_all(name).map_err(failed)?;
        Ok(Self {
            trace: Some(Trace {
                path: path.to_owned(),
                begin: Instant::now(),
                output: Mutex::new(Output {
                    file,
                    failure: None,
                }),
            }),
        })
    }

    /// Begins a span. Spans that are open at the same time must be nested.
    pub fn span(&self, name: &'static str) -> Span<'_> {
        Span(self.trace.as_ref().map(|trace| OpenSpan {
            trace,
            name,
            step: None,
            begin: Instant::now(),
        }))
    }

    /// Calls `work` in a span.
    pub fn time<T>(&self, name: &'static str, work: impl FnOnce() -> T) -> T {
        let _span = self.span(name);
        work()
    }

    /// Ends the file.
    ///
    /// # Errors
    /// [`TrainError::Io`] for the first span that could not be written.
    pub fn finish(self) -> Result<(), TrainError> {
        let Some(Trace { path, output, .. }) = self.trace else {
            return Ok(());
        };
        let output = output.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Output { mut file, failure } = output;
        let written = failure.map_or(Ok(()), Err);
        written
            .and_then(|()| file.write_all(b"\n]\n"))
            .and_then(|()| file.flush())
            .map_err(|source| TrainError::Io {
                action: "write",
                path,
                source,
            })
    }
}

impl Span<'_> {
    /// Says in which step of which epoch it is.
    pub fn of_step(mut self, epoch: usize, step: usize) -> Self {
        if let Some(open) = &mut self.0 {
            open.step = Some((epoch, step));
        }
        self
    }
}

impl Drop for Span<'_> {
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            open.trace.write(&open);
        }
    }
}

impl Trace {
    fn write(&self, span: &OpenSpan<'_>) {
        let micros = |duration: std::time::Duration| duration.as_nanos() as f64 / 1e3;
        let event = Complete {
            name: span.name,
            ph: "X",
            ts: micros(span.begin.duration_since(self.begin)),
            dur: micros(span.begin.elapsed()),
            pid: 1,
            tid: 1,
            args: span.step.map(|(epoch, step)| Args { epoch, step }),
        };
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        let Output { file, failure } = &mut *output;
        let written = file.write_all(b",\n").and_then(|()| {
            serde_json::to_writer(&mut *file, &event)?;
            Ok(())
        });
        if let Err(error) = written {
            failure.get_or_insert(error);
        }
    }
}
