//! What the system tells of a measurement: the largest resident memory of a child, and whether the
//! machine has other work.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cxr_terminal::Interrupt;

const PAUSE: Duration = Duration::from_millis(5);

/// Does `work`, which runs a child by `interrupt`, and looks at the child's memory meanwhile. Linux
/// keeps the highest mark of a process, so that only growth in its last few milliseconds is missed;
/// elsewhere there is no figure.
pub(super) fn watch<T>(interrupt: &Interrupt, work: impl FnOnce() -> T) -> (T, Option<f64>) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak_kib: Option<u64> = None;
            while !is_over.load(Ordering::Acquire) {
                let now = interrupt.child().and_then(high_water_kib);
                peak_kib = peak_kib.max(now);
                std::thread::sleep(PAUSE);
            }
            peak_kib
        });
        let result = work();
        is_over.store(true, Ordering::Release);
        let peak_kib = watcher.join().ok().flatten();
        (result, peak_kib.map(|kib| kib as f64 / 1024.0))
    })
}

/// How many other processes want to run, on average over the last minute, where that is more than one
/// in four cores: figures of wall time then say little.
pub(super) fn other_load() -> Option<f64> {
    let load = std::fs::read_to_string("/proc/loadavg").ok()?;
    let load: f64 = load.split_whitespace().next()?.parse().ok()?;
    let n_cores = std::thread::available_parallelism().ok()?.get() as f64;
    (load > n_cores / 4.0).then_some(load)
}

fn high_water_kib(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    parse_high_water(&status)
}

/// From a line such as `VmHWM:     1234 kB`.
fn parse_high_water(status: &str) -> Option<u64> {
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    value.trim().strip_suffix("kB")?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_water_mark_is_read() {
        let status = "Name:\tcxr\nVmPeak:\t 9000 kB\nVmHWM:\t    1234 kB\nVmRSS:\t 1000 kB\n";
        assert_eq!(parse_high_water(status), Some(1234));
        assert_eq!(parse_high_water("Name:\tkthreadd\n"), None);
    }
}
