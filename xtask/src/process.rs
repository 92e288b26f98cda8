//! Children that are told of Ctrl-C, and how a command ends.

use std::io::Read;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use cxr_terminal::say;

/// How a command, or one of its children, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// All is well.
    Done,
    /// Something went wrong and was told.
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

/// The exit code of our binaries after Ctrl-C.
pub(crate) const INTERRUPTED: u8 = 130;

/// Ctrl-C and SIGTERM, kept from ending this process and handed on to the children instead: exactly once
/// per signal, as a child may take a second one for impatience. So that the terminal does not tell the
/// children as well, each runs in a process group of its own.
#[derive(Clone)]
pub(crate) struct Interrupt(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    is_raised: bool,
    children: Vec<u32>,
}

impl Interrupt {
    /// Takes over the signals; once in the life of a process.
    pub(crate) fn install() -> anyhow::Result<Self> {
        let state = Arc::new(Mutex::new(State::default()));
        let seen = Arc::clone(&state);
        cxr_terminal::on_interrupt(INTERRUPTED, move || {
            let mut state = seen.lock().unwrap_or_else(PoisonError::into_inner);
            state.is_raised = true;
            state.children.iter().copied().for_each(interrupt);
        })
        .context("cannot listen for Ctrl-C")?;
        Ok(Self(state))
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.with(|state| state.is_raised)
    }

    /// The process id of the child that runs now, of several the first.
    pub(crate) fn child(&self) -> Option<u32> {
        self.with(|state| state.children.first().copied())
    }

    /// Runs a child to its end; its output goes where ours goes.
    pub(crate) fn run(&self, command: &mut Command) -> anyhow::Result<Ended> {
        let (ended, _) = self.wait(command)?;
        Ok(ended)
    }

    /// The same, keeping what it writes to standard output.
    pub(crate) fn output(&self, command: &mut Command) -> anyhow::Result<(Ended, String)> {
        self.wait(command.stdout(Stdio::piped()))
    }

    fn wait(&self, command: &mut Command) -> anyhow::Result<(Ended, String)> {
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
        read.with_context(|| format!("cannot read what `{name}` writes"))?;
        Ok((ended, output))
    }

    /// Starts a child; `None` when the signal came before.
    fn start(&self, command: &mut Command, name: &str) -> anyhow::Result<Option<Child>> {
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
        started.with_context(|| format!("cannot start `{name}`"))
    }

    /// Waits for a child.
    fn end(&self, mut child: Child, name: &str) -> anyhow::Result<Ended> {
        let status = child.wait();
        self.with(|state| state.children.retain(|&id| id != child.id()));
        let status = status.with_context(|| format!("cannot wait for `{name}`"))?;
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

/// How a child ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) ending: Ending,
    /// Its exit status, in the system's words.
    pub(crate) status: String,
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
