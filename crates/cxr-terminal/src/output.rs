//! Standard error, standard output and the bars.

use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

use console::Term;
use indicatif::{MultiProgress, ProgressDrawTarget, TermLike};

/// How often the bars are drawn in a second, at most.
const DRAWS_PER_SECOND: u8 = 20;

static BARS: LazyLock<MultiProgress> = LazyLock::new(|| {
    MultiProgress::with_draw_target(match is_plain() {
        true => ProgressDrawTarget::hidden(),
        false => {
            let terminal = Box::new(Terminal(Mutex::new(Term::buffered_stderr())));
            ProgressDrawTarget::term_like_with_hz(terminal, DRAWS_PER_SECOND)
        }
    })
});

/// Whether a result could not be written to standard output.
static LOST: AtomicBool = AtomicBool::new(false);

/// All progress bars of the process. They are hidden where standard error is no terminal, and drawing them never fails.
pub fn bars() -> &'static MultiProgress {
    &BARS
}

/// Whether standard error is no terminal: progress is printed as single lines then.
pub fn is_plain() -> bool {
    !io::stderr().is_terminal()
}

/// Prints a line for people on standard error, with the bars taken away meanwhile.
///
/// A line that cannot be written is lost: nothing depends on whether somebody reads it.
pub fn say_line(line: &str) {
    BARS.suspend(|| {
        let mut stderr = io::stderr().lock();
        let _ = stderr.write_all(format!("{line}\n").as_bytes());
    });
}

/// Prints a result on standard output.
///
/// A reader that has gone away, such as `head`, has read what it wanted: that is no error.
///
/// # Errors
/// Standard output cannot be written: the disk is full, or the terminal is closed.
pub fn print(text: &str) -> io::Result<()> {
    let written = BARS.suspend(|| {
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
    });
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Prints a line of results on standard output, for programs that print many and go on without a reader. Whether one
/// was lost is known afterwards: [`was_lost`].
pub fn tell_line(line: &str) {
    if print(&format!("{line}\n")).is_err() {
        LOST.store(true, Ordering::Relaxed);
    }
}

/// Whether [`tell_line`] could not write a line for another reason than that its reader had gone away.
pub fn was_lost() -> bool {
    LOST.load(Ordering::Relaxed)
}

/// Standard error as indicatif draws on it. indicatif panics where drawing fails, and a panic while a bar is dropped in
/// another panic aborts the process; so nothing here fails.
#[derive(Debug)]
struct Terminal(Mutex<Term>);

impl Terminal {
    fn attempt(&self, act: impl FnOnce(&Term) -> io::Result<()>) -> io::Result<()> {
        let mut term = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if act(&term).is_err() {
            // What could not be written is still in the buffer, which would grow without end.
            *term = Term::buffered_stderr();
        }
        Ok(())
    }

    fn size(&self) -> (u16, u16) {
        let term = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        term.size()
    }
}

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        self.size().1
    }

    fn height(&self) -> u16 {
        self.size().0
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.attempt(|term| term.move_cursor_up(n))
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.attempt(|term| term.move_cursor_down(n))
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.attempt(|term| term.move_cursor_right(n))
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.attempt(|term| term.move_cursor_left(n))
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        self.attempt(|term| term.write_line(line))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.attempt(|term| term.write_str(text))
    }

    fn clear_line(&self) -> io::Result<()> {
        self.attempt(Term::clear_line)
    }

    fn flush(&self) -> io::Result<()> {
        self.attempt(Term::flush)
    }
}
