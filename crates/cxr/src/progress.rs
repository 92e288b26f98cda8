//! What a long command shows on standard error, and how its parts keep out of each other's way:
//! a bar on a terminal, plain lines elsewhere, messages, and the log.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cxr_terminal::{bars, is_plain};
use indicatif::{ProgressBar, ProgressStyle};
use tracing_subscriber::EnvFilter;

/// The environment variable that says what is logged, such as `cxr_train=debug`.
const LOG_VARIABLE: &str = "CXR_LOG";

/// Whether another rank of the job says what this one does too.
static IS_QUIET: AtomicBool = AtomicBool::new(false);

/// From here on this process says nothing but errors, and shows no bars: rank 0 does.
#[cfg(feature = "mpi")]
pub(crate) fn be_quiet() {
    IS_QUIET.store(true, Ordering::Relaxed);
}

/// Prints a line for people, on standard error: standard output is for results. What of it a terminal would obey is
/// escaped: it may be a name or a cell of somebody's file.
pub(crate) fn say(line: &str) {
    if !IS_QUIET.load(Ordering::Relaxed) {
        say_error(line);
    }
}

/// As [`say`], from every rank.
pub(crate) fn say_error(line: &str) {
    cxr_terminal::say_line(&cxr_table::printable(line));
}

/// Logs warnings, or what `CXR_LOG` asks for, between the bars.
pub(crate) fn start_log() {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(!is_plain())
        .with_writer(|| BetweenBars)
        .init();
}

/// Standard error with the bars taken away; the log writes whole lines.
struct BetweenBars;

impl Write for BetweenBars {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        // What cannot be written is lost: the library would say so on standard error, and panic.
        let _ = bars().suspend(|| std::io::stderr().write_all(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// How far a work of known length is: a bar with time left, or a line at each tenth.
pub(crate) struct Bar {
    bar: ProgressBar,
    what: String,
    total: usize,
    begin: Instant,
    begin_at: usize,
    /// Tenths that were reported, where there is no terminal.
    told: Option<AtomicUsize>,
}

impl Bar {
    pub(crate) fn new(what: &str, unit: &str, total: usize) -> Self {
        Self::with_done(what, unit, total, 0)
    }

    /// A bar for work of which some is done.
    pub(crate) fn with_done(what: &str, unit: &str, total: usize, done: usize) -> Self {
        let template =
            format!("{{prefix}} {{wide_bar}} {{pos}}/{{len}} {unit}, {{per_sec}}, {{eta}} left");
        Self::with_template(what, &template, total, done)
    }

    /// A bar for the steps of an epoch, some of which may be done; [`Self::tell`] says what of them.
    pub(crate) fn of_steps(what: &str, total: usize, done: usize) -> Self {
        let template = "{prefix} {wide_bar} {pos}/{len} {eta} left {msg}";
        Self::with_template(what, template, total, done)
    }

    fn with_template(what: &str, template: &str, total: usize, done: usize) -> Self {
        let bar = match IS_QUIET.load(Ordering::Relaxed) {
            true => ProgressBar::hidden(),
            false => bars().add(ProgressBar::new(total as u64)),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar.set_prefix(cxr_table::printable(what));
        bar.set_position(done as u64);
        bar.reset_eta();
        let tenth = done * 10 / total.max(1);
        Self {
            bar,
            what: what.to_owned(),
            total,
            begin: Instant::now(),
            begin_at: done,
            told: is_plain().then(|| AtomicUsize::new(tenth)),
        }
    }

    pub(crate) fn set(&self, done: usize) {
        self.tell(done, String::new);
    }

    /// Goes to `done`; `details` are shown behind.
    pub(crate) fn tell(&self, done: usize, details: impl FnOnce() -> String) {
        let Some(told) = &self.told else {
            self.bar.set_position(done as u64);
            self.bar.set_message(details());
            return;
        };
        // Several threads report, and not in order.
        let tenth = done * 10 / self.total.max(1);
        if told.fetch_max(tenth, Ordering::Relaxed) < tenth {
            let mut line = format!("{}: {done} of {}", self.what, self.total);
            if let Some(left) = self.left(done) {
                line += &format!(", {} left", duration(left));
            }
            let details = details();
            if !details.is_empty() {
                line += &format!(", {details}");
            }
            say(&line);
        }
    }

    /// The time that the rest will take at the mean speed so far.
    fn left(&self, done: usize) -> Option<Duration> {
        let made = done.checked_sub(self.begin_at).filter(|&made| made > 0)?;
        let rest = self.total.checked_sub(done).filter(|&rest| rest > 0)?;
        Some(self.begin.elapsed().mul_f64(rest as f64 / made as f64))
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
        bars().remove(&self.bar);
    }
}

/// A duration in its two largest units: `2 h 05 min`, `3 min 20 s`, `12 s`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().round() as u64;
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest} s"),
        (0, 0, _) => format!("{minutes} min {rest:02} s"),
        (0, _, _) => format!("{hours} h {minutes:02} min"),
        (_, _, _) => format!("{days} d {hours:02} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in [
            (0.4, "0 s"),
            (59.6, "1 min 00 s"),
            (3725., "1 h 02 min"),
            (90_000., "1 d 01 h"),
        ] {
            assert_eq!(duration(Duration::from_secs_f64(seconds)), text);
        }
    }
}
