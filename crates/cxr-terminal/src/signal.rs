//! Signals that ask a program to stop.

use std::io;

/// Calls `act`, on a thread of its own, for each Ctrl-C, SIGTERM, SIGHUP and SIGUSR1, which no longer end the process.
/// SIGUSR1 is what schedulers send when a job's time is running out (Slurm's `--signal=USR1@SECONDS`), and what `mpirun`
/// passes on to its processes.
///
/// Who repeats the signal does not want to wait: the second one that comes half a second or more after the first ends
/// the process at once with `exit_code`. (`timeout` and schedulers send one request twice within an instant.) A SIGHUP
/// that is ignored when this is called stays ignored: `nohup` is how a user says that a closed terminal is not to
/// stop the program. Elsewhere than on Unix it is Ctrl-C and the console's own events, without the half second.
///
/// # Errors
/// The handlers cannot be installed, or the thread cannot be started.
pub fn on_interrupt(exit_code: u8, act: impl Fn() + Send + 'static) -> io::Result<()> {
    system::on_interrupt(exit_code.into(), act)
}

#[cfg(unix)]
mod system {
    use std::io;
    use std::thread::Builder;
    use std::time::{Duration, Instant};

    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
    use signal_hook::iterator::Signals;

    /// Signals that follow the first within this time are the same request.
    const ONE_REQUEST: Duration = Duration::from_millis(500);

    pub(super) fn on_interrupt(exit_code: i32, act: impl Fn() + Send + 'static) -> io::Result<()> {
        let mut wanted = vec![SIGINT, SIGTERM, SIGUSR1];
        if !is_hangup_ignored() {
            wanted.push(SIGHUP);
        }
        let mut signals = Signals::new(wanted)?;
        let listen = move || {
            let mut first: Option<Instant> = None;
            for _ in signals.forever() {
                act();
                match first {
                    None => first = Some(Instant::now()),
                    Some(first) if first.elapsed() >= ONE_REQUEST => {
                        signal_hook::low_level::exit(exit_code);
                    }
                    Some(_) => {}
                }
            }
        };
        Builder::new().name("signals".to_owned()).spawn(listen)?;
        Ok(())
    }

    /// As the kernel says. Without `/proc` the question is left open, and SIGHUP stops the program.
    #[cfg(target_os = "linux")]
    fn is_hangup_ignored() -> bool {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status
            .lines()
            .find_map(|line| line.strip_prefix("SigIgn:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_some_and(|mask| mask >> (SIGHUP - 1) & 1 == 1)
    }

    /// As a shell finds it, which inherits what is ignored and by POSIX cannot change that.
    #[cfg(not(target_os = "linux"))]
    fn is_hangup_ignored() -> bool {
        let probe = "trap 'exit 1' HUP; kill -HUP $$; exit 0";
        let status = std::process::Command::new("sh")
            .args(["-c", probe])
            .status();
        status.is_ok_and(|status| status.success())
    }
}

#[cfg(not(unix))]
mod system {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread::Builder;
    use std::time::Duration;

    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::flag;

    /// How often the flag is looked at.
    const PAUSE: Duration = Duration::from_millis(50);

    pub(super) fn on_interrupt(exit_code: i32, act: impl Fn() + Send + 'static) -> io::Result<()> {
        let raised = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, exit_code, Arc::clone(&raised))?;
            flag::register(signal, Arc::clone(&raised))?;
        }
        let listen = move || {
            while !raised.load(Ordering::Relaxed) {
                std::thread::sleep(PAUSE);
            }
            act();
        };
        Builder::new().name("signals".to_owned()).spawn(listen)?;
        Ok(())
    }
}
