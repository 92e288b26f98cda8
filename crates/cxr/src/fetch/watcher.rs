//! Progress over all files and the current one.

use std::time::Instant;

use cxr_hub::{Event, FileSet, Observer};
use cxr_terminal::bars;
use indicatif::{DecimalBytes, ProgressBar, ProgressStyle};

/// Two bars on a terminal, all files and the current one; plain lines elsewhere.
pub(super) struct Watcher {
    all: ProgressBar,
    file: ProgressBar,
    about_bytes: Option<u64>,
    n_files: usize,
    n_done: usize,
    /// Bytes of the files that are done.
    settled: u64,
    began: Instant,
}

impl Watcher {
    pub(super) fn new(set: &FileSet) -> Self {
        let bar = |template: &str| {
            let bar = bars().add(ProgressBar::no_length());
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar
        };
        let numbers = "{bar:30} {decimal_bytes}/{decimal_total_bytes}";
        let file = bar(&format!("{{prefix}} {numbers} {{msg}}"));
        let all = bar(&format!(
            "{{prefix}} {numbers}, {{decimal_bytes_per_sec}}, {{eta}} left"
        ));
        Self {
            all,
            file,
            about_bytes: set.about_bytes,
            n_files: set.files.len(),
            n_done: 0,
            settled: 0,
            began: Instant::now(),
        }
    }

    /// Says how much there is, where no plan does.
    pub(super) fn begin(&self) {
        if let Some(about_bytes) = self.about_bytes {
            self.all.set_length(about_bytes);
        }
        self.all.reset_elapsed();
        self.all.set_prefix(format!("0/{}", self.n_files));
    }

    /// A bar of its own, below the others.
    pub(super) fn add(&self, bar: ProgressBar) -> ProgressBar {
        bars().add(bar)
    }

    pub(super) fn say(&self, line: &str) {
        cxr_terminal::say_line(line);
    }

    fn position(&self, position: u64, bytes: Option<u64>) {
        if let Some(bytes) = bytes {
            self.file.set_length(bytes);
        }
        self.file.set_position(position);
        self.all.set_position(self.settled + position);
    }

    pub(super) fn done(&mut self, file: &str, bytes: u64, how: &str) {
        self.n_done += 1;
        self.settled += bytes;
        self.all.set_position(self.settled);
        let count = format!("{}/{}", self.n_done, self.n_files);
        self.say(&format!("{count} {file}: {}, {how}", DecimalBytes(bytes)));
        self.all.set_prefix(count);
    }

    pub(super) fn finish(&self) {
        self.file.finish_and_clear();
        self.all.finish_and_clear();
    }
}

impl Observer for Watcher {
    fn on(&mut self, event: &Event<'_>) {
        match *event {
            Event::Planned {
                here,
                missing,
                complete,
                ..
            } => {
                let known = here + missing;
                let total = match complete {
                    true => known,
                    false => known.max(self.about_bytes.unwrap_or_default()),
                };
                self.all.set_length(total);
                // What is here already is no progress of this call, and would spoil its rate.
                self.all.reset_elapsed();
                self.all.set_prefix(format!("0/{}", self.n_files));
            }
            Event::Present { file, bytes } => self.done(file, bytes, "here and verified"),
            Event::Started {
                file, from, bytes, ..
            } => {
                self.began = Instant::now();
                self.file.set_prefix(file.to_owned());
                self.file.set_message("");
                self.position(from, bytes);
                if from > 0 {
                    self.say(&format!("{file}: going on after {}", DecimalBytes(from)));
                }
            }
            Event::Received {
                position, bytes, ..
            } => self.position(position, bytes),
            Event::Hashing {
                file,
                position,
                bytes,
            } => {
                self.file.set_prefix(file.to_owned());
                self.file.set_message("verifying what is here");
                self.position(position, Some(bytes));
            }
            Event::StartedOver { file, reason } => {
                self.say(&format!("{file}: starting over, because {reason}"));
            }
            Event::Retrying {
                file,
                reason,
                pause,
            } => {
                let seconds = pause.as_secs_f32();
                self.say(&format!("{file}: {reason}; again in {seconds:.0} s"));
            }
            Event::SourceFailed { file, error } => {
                self.say(&format!("{file}: {error}; trying another source"));
            }
            Event::Rejected { file } => {
                self.say(&format!(
                    "{file}: is not the expected file, renamed to {file}.rejected"
                ));
            }
            Event::Cached { file, bytes, .. } => {
                self.done(file, bytes, "from the cache of huggingface_hub, verified");
            }
            Event::CacheIgnored { file, path } => {
                self.say(&format!(
                    "{file}: `{}` in the cache of huggingface_hub is another file, and is left alone",
                    path.display()
                ));
            }
            Event::Finished { file, bytes } => {
                let seconds = self.began.elapsed().as_secs();
                self.done(file, bytes, &format!("fetched and verified in {seconds} s"));
            }
            _ => {}
        }
    }
}
