//! Processes that this one starts: they are told of Ctrl-C, and how each ended is known.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;

use crate::INTERRUPTED;
use crate::progress::say;

/// How a child, or a part of the work, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// All is well.
    Done,
    /// Something went wrong and was told.
    Failed,
    /// Stopped by Ctrl-C or a signal; the same command goes on from there.
    Interrupted,
}

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

    /// Runs a child to its end; its output goes where ours goes.
    pub(crate) fn run(&self, command: &mut Command) -> anyhow::Result<Ended> {
        let name = program(command);
        match self.start(command, &name)? {
            Some(child) => self.end(child, &name),
            None => Ok(Ended::interrupted()),
        }
    }

    /// The same, for one of several children at once: each line of its output goes where ours goes,
    /// behind `label`. It may be called on several threads.
    pub(crate) fn run_labelled(&self, command: &mut Command, label: &str) -> anyhow::Result<Ended> {
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

/// Sends SIGINT with the shell's own `kill`: the standard library can only kill for good.
#[cfg(unix)]
fn interrupt(child: u32) {
    let sent = Command::new("sh")
        .args(["-c", &format!("kill -s INT -- -{child}")])
        .status();
    if !sent.is_ok_and(|status| status.success()) {
        say(&format!(
            "cannot interrupt process {child}; it goes on to its end"
        ));
    }
}

/// Elsewhere the console tells all processes of Ctrl-C.
#[cfg(not(unix))]
fn interrupt(_: u32) {}
