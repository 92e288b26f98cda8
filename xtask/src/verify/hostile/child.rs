//! Processes that must end in time, and pseudo-terminals for them.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use cxr_terminal::{INTERRUPTED, Interrupt};

/// Whatever has not ended or begun by then is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that is killed when it takes too long, when the checks are interrupted, and when it is dropped.
pub(super) struct Watched<'a> {
    child: Child,
    interrupt: &'a Interrupt,
}

impl<'a> Watched<'a> {
    pub(super) fn start(command: &mut Command, interrupt: &'a Interrupt) -> anyhow::Result<Self> {
        // A Ctrl-C is for the checks; they end their children.
        std::os::unix::process::CommandExt::process_group(command, 0);
        let child = command.spawn().context("cannot start `cxr`")?;
        Ok(Self { child, interrupt })
    }

    pub(super) fn send(&self, signal: Signal) -> anyhow::Result<()> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let id = id.context("the process has no id")?;
        kill_process(id, signal).context("cannot send a signal")
    }

    /// Waits until something has happened; it is an error if the process ends before.
    pub(super) fn wait_until(
        &mut self,
        what: &str,
        has_happened: impl Fn() -> bool,
    ) -> anyhow::Result<()> {
        let begin = Instant::now();
        while !has_happened() {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended before {what}: {status}");
            }
            self.go_on(begin, what)?;
        }
        Ok(())
    }

    fn go_on(&self, begin: Instant, what: &str) -> anyhow::Result<()> {
        ensure!(!self.interrupt.is_raised(), "interrupted");
        ensure!(
            begin.elapsed() < PATIENCE,
            "stuck: {what} is not so after {PATIENCE:?}"
        );
        std::thread::sleep(Duration::from_millis(2));
        Ok(())
    }

    fn end(&mut self) -> anyhow::Result<ExitStatus> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            self.go_on(begin, "its end")?;
        }
    }

    /// Waits for its end and returns the exit code; a signal that ended it is an error.
    pub(super) fn code(&mut self) -> anyhow::Result<i32> {
        let status = self.end()?;
        let code = status.code();
        code.with_context(|| format!("it was ended by a signal: {status}"))
    }

    pub(super) fn ends_with(mut self, expected: i32) -> anyhow::Result<()> {
        let code = self.code()?;
        ensure!(
            code == expected,
            "expected exit code {expected}, got {code}"
        );
        Ok(())
    }

    /// Waits for its end by SIGINT, or with the code that says the same.
    pub(super) fn ends_interrupted(mut self) -> anyhow::Result<()> {
        let status = self.end()?;
        let is_interrupted = status.signal() == Some(Signal::INT.as_raw())
            || status.code() == Some(INTERRUPTED.into());
        ensure!(is_interrupted, "expected an end by Ctrl-C, got {status}");
        Ok(())
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        // An error says that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The side of a pseudo-terminal that programs write to.
pub(super) struct Terminal(File);

/// The side that shows it.
pub(super) struct Screen(File);

impl Terminal {
    pub(super) fn open() -> anyhow::Result<(Self, Screen)> {
        let failed = "cannot make a pseudo-terminal";
        let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).context(failed)?;
        // A child that inherits it would keep it open.
        fcntl_setfd(&screen, FdFlags::CLOEXEC).context(failed)?;
        grantpt(&screen).context(failed)?;
        unlockpt(&screen).context(failed)?;
        let name = ptsname(&screen, Vec::new()).context(failed)?;
        let mut options = File::options();
        let terminal = options.read(true).write(true).open(name.to_str()?);
        Ok((Self(terminal.context(failed)?), Screen(screen.into())))
    }

    pub(super) fn stdio(&self) -> anyhow::Result<Stdio> {
        Ok(self.0.try_clone()?.into())
    }
}

impl Screen {
    /// Reads until a text is shown, and says how many bytes that were.
    pub(super) fn read_until(&mut self, text: &str) -> anyhow::Result<usize> {
        let mut seen = Vec::new();
        let mut some = [0; 1024];
        while !String::from_utf8_lossy(&seen).contains(text) {
            let n = self.0.read(&mut some).context("the terminal was closed")?;
            seen.extend_from_slice(some.get(..n).unwrap_or_default());
        }
        Ok(seen.len())
    }
}
