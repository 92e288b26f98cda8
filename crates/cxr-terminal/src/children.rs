//! Processes that a program starts: an interrupt is passed on to each, and how it ended is reported.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::process::ExitCode;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use crate::{on_interrupt, say};

/// The exit code of a program that Ctrl-C ended: what the shell expects.
pub const INTERRUPTED: u8 = 130;

/// What went wrong with a child, but for how it ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChildError {
    /// The handlers cannot be installed.
    #[error("cannot listen for Ctrl-C")]
    Signals(#[source] std::io::Error),
    /// The child cannot be started, waited for, or read from.
    #[error("cannot {action} `{program}`")]
    Child {
        /// What was attempted.
        action: &'static str,
        /// The program.
        program: String,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl ChildError {
    fn of(action: &'static str, program: &str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Child {
            action,
            program: program.to_owned(),
            source,
        }
    }
}

/// How a child, or a part of the work, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All is well.
    Done,
    /// Something went wrong and was reported.
    Failed,
    /// Stopped by Ctrl-C or a signal; the same command goes on from there.
    Interrupted,
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Done => Self::SUCCESS,
            Ending::Failed => Self::FAILURE,
            Ending::Interrupted => Self::from(INTERRUPTED),
        }
    }
}

/// Ctrl-C and SIGTERM, kept from ending this process and handed on to the children instead: exactly once
/// per signal, as a child may take a second one for impatience. So that the terminal does not tell the
/// children as well, each runs in a process group of its own.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    is_raised: bool,
    children: Vec<u32>,
}

impl Interrupt {
    /// Takes over the signals; once in the life of a process.
    ///
    /// # Errors
    /// [`ChildError::Signals`].
    pub fn install() -> Result<Self, ChildError> {
        let state = Arc::new(Mutex::new(State::default()));
        let seen = Arc::clone(&state);
        on_interrupt(INTERRUPTED, move || {
            let mut state = seen.lock().unwrap_or_else(PoisonError::into_inner);
            state.is_raised = true;
            state.children.iter().copied().for_each(interrupt);
        })
        .map_err(ChildError::Signals)?;
        Ok(Self(state))
    }

    /// Whether a signal has come.
    pub fn is_raised(&self) -> bool {
        self.with(|state| state.is_raised)
    }

    /// The process id of the child that runs now, of several the first.
    pub fn child(&self) -> Option<u32> {
        self.with(|state| state.children.first().copied())
    }

    /// Runs a child to its end; its output goes where ours goes.
    ///
    /// # Errors
    /// [`ChildError::Child`]; how the child itself ended is no error.
    pub fn run(&self, command: &mut Command) -> Result<Ended, ChildError> {
        let (ended, _) = self.wait(command)?;
        Ok(ended)
    }

    /// The same, keeping what it writes to standard output.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn output(&self, command: &mut Command) -> Result<(Ended, String), ChildError> {
        self.wait(command.stdout(Stdio::piped()))
    }

    fn wait(&self, command: &mut Command) -> Result<(Ended, String), ChildError> {
        let name = program(command);
        let Some(mut child) = self.start(command, &name)? else {
            return Ok((Ended::interrupted(), String::new()));
        };
        let mut output = String::new();
        let read = match child.stdout.take() {
            Some(mut stdout) => stdout.read_to_string(&mut output).map(|_| ()),
            None => Ok(()),
        };
        let ended = self.end(child, &name)?;
        read.map_err(ChildError::of("read what is written by", &name))?;
        Ok((ended, output))
    }

    /// The same, for one of several children at once: each line of its output goes where ours goes,
    /// behind `label`. It may be called on several threads.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_labelled(&self, command: &mut Command, label: &str) -> Result<Ended, ChildError> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let name = program(command);
        let Some(mut child) = self.start(command, &name)? else {
            return Ok(Ended::interrupted());
        };
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        // One stream on a thread of its own, as a full pipe would stop the child.
        std::thread::scope(|scope| {
            let errors =
                stderr.map(|stderr| scope.spawn(|| relay(stderr, std::io::stderr(), label)));
            if let Some(stdout) = stdout {
                relay(stdout, std::io::stdout(), label);
            }
            errors.map(std::thread::ScopedJoinHandle::join)
        });
        self.end(child, &name)
    }

    /// Starts a child; `None` when the signal came before.
    fn start(&self, command: &mut Command, name: &str) -> Result<Option<Child>, ChildError> {
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(command, 0);
        // Under the lock: a signal arrives before the child starts, or finds its id.
        let started = self.with(|state| -> std::io::Result<Option<Child>> {
            if state.is_raised {
                return Ok(None);
            }
            let child = command.spawn()?;
            state.children.push(child.id());
            Ok(Some(child))
        });
        started.map_err(ChildError::of("start", name))
    }

    /// Waits for a child.
    fn end(&self, mut child: Child, name: &str) -> Result<Ended, ChildError> {
        let status = child.wait();
        self.with(|state| state.children.retain(|&id| id != child.id()));
        let status = status.map_err(ChildError::of("wait for", name))?;
        let was_interrupted = self.is_raised() || status.code() == Some(INTERRUPTED.into());
        Ok(Ended {
            ending: match (was_interrupted, status.success()) {
                (true, _) => Ending::Interrupted,
                (false, true) => Ending::Done,
                (false, false) => Ending::Failed,
            },
            status: status.to_string(),
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// Copies lines, each behind `label`; bytes that are no text are replaced. A reader that hung up is the
/// reader's business: the child goes on.
fn relay(from: impl Read, mut to: impl Write, label: &str) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        match from.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line);
                let _ = to.write_all(format!("{label}: {}\n", text.trim_end()).as_bytes());
            }
        }
    }
}

/// How a child ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Well or not.
    pub ending: Ending,
    /// Its exit status, in the system's words.
    pub status: String,
}

impl Ended {
    fn interrupted() -> Self {
        Self {
            ending: Ending::Interrupted,
            status: "not started".to_owned(),
        }
    }
}

/// Sends SIGINT to the child's process group: the standard library can only kill for good.
#[cfg(unix)]
fn interrupt(child: u32) {
    use rustix::process::{Pid, Signal, kill_process_group};
    let group = i32::try_from(child).ok().and_then(Pid::from_raw);
    if group.is_none_or(|group| kill_process_group(group, Signal::INT).is_err()) {
        say!("cannot interrupt process {child}; it goes on to its end");
    }
}

/// Elsewhere the console tells all processes of Ctrl-C.
#[cfg(not(unix))]
fn interrupt(_: u32) {}
