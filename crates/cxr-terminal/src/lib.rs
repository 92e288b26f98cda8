//! Terminal output and signals of long-running programs.
//!
//! What it does: prints lines and progress bars to a terminal, a pipe or a file that may go away at any time
//! ([`say!`], [`print()`], [`bars`]), turns signals into a request to stop ([`on_interrupt`]), and hands it on to the
//! processes that the program has started ([`Interrupt`]). What it never does:
//! panic or fail because of standard error, know what is printed, or end a program that has not been asked to.
//!
//! ```
//! cxr_terminal::say!("{} images prepared", 12);
//! cxr_terminal::print("label,auc\n")?;
//! # Ok::<(), std::io::Error>(())
//! ```

mod children;
mod output;
mod signal;

pub use children::{ChildError, Ended, Ending, INTERRUPTED, Interrupt};
pub use output::{bars, is_plain, print, say_line, tell_line, was_lost};
pub use signal::on_interrupt;

/// Prints a line for people on standard error, as [`say_line`] does; the arguments are those of [`format!`].
#[macro_export]
macro_rules! say {
    ($($argument:tt)*) => {
        $crate::say_line(&::std::format!($($argument)*))
    };
}

/// Prints a line of results on standard output, as [`tell_line`] does; the arguments are those of [`format!`].
#[macro_export]
macro_rules! tell {
    () => {
        $crate::tell_line("")
    };
    ($($argument:tt)*) => {
        $crate::tell_line(&::std::format!($($argument)*))
    };
}

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
