//! A program whose terminal is closed while it draws, and one that is asked to stop.

#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use rustix::process::{Pid, Signal, kill_process};

/// Which part a process plays that a test has started.
const PART: &str = "CXR_TERMINAL_TEST_PART";

/// This test, in a process of its own, as `part`.
fn start(part: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "part", "--nocapture"]);
    command.env(PART, part).stdin(Stdio::piped());
    command.stdout(Stdio::piped());
    command
}

/// What the other tests start, as processes; by itself it does nothing.
#[test]
fn part() {
    match std::env::var(PART).as_deref() {
        Ok("draw") => draw(),
        Ok("listen") => listen(),
        _ => {}
    }
}

fn draw() {
    let bar = cxr_terminal::bars().add(ProgressBar::new(1000));
    let work = || {
        for at in 0..1000 {
            bar.set_position(at);
            bar.tick();
            if at % 100 == 0 {
                cxr_terminal::say!("at {at}");
            }
        }
    };
    work();
    // Until the terminal is closed.
    let _ = std::io::stdin().read(&mut [0]);
    work();
    bar.finish_and_clear();
    println!("survived");
}

// indicatif panics where it cannot draw; a bar that was dropped by that panic drew again, and the process aborted.
#[test]
fn drawing_goes_on_without_a_terminal() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    // A child that inherits it would keep it open.
    rustix::io::fcntl_setfd(&screen, rustix::io::FdFlags::CLOEXEC).unwrap();
    grantpt(&screen).unwrap();
    unlockpt(&screen).unwrap();
    let name = ptsname(&screen, Vec::new()).unwrap();
    let mut options = File::options();
    let terminal = options.read(true).write(true).open(name.to_str().unwrap());
    let mut child = start("draw").stderr(terminal.unwrap()).spawn().unwrap();
    let mut screen = File::from(screen);
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("at 900") {
        let mut some = [0; 4096];
        let n = screen.read(&mut some).unwrap();
        seen.extend_from_slice(&some[..n]);
    }
    assert!(seen.contains(&b'\x1b'), "no bar was drawn");
    drop(screen);
    drop(child.stdin.take());
    let mut said = String::new();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(said.contains("survived"), "{said}");
}

fn listen() {
    static SIGNALS: AtomicUsize = AtomicUsize::new(0);
    cxr_terminal::on_interrupt(130, || _ = SIGNALS.fetch_add(1, Ordering::Relaxed)).unwrap();
    println!("listening");
    let mut known = 0;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(60) {
        let now = SIGNALS.load(Ordering::Relaxed);
        if now != known {
            known = now;
            println!("asked");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

struct Listener {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Listener {
    fn start() -> Self {
        let mut child = start("listen").stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut listener = Self { child, lines };
        listener.hears("listening");
        listener
    }

    fn hears(&mut self, wanted: &str) {
        assert!(self.lines.any(|line| line.unwrap().contains(wanted)));
    }

    fn send(&self, signal: Signal) {
        let id = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }
}

#[test]
fn a_second_request_ends_a_program_at_once() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut listener = Listener::start();
        listener.send(signal);
        listener.hears("asked");
        // `timeout` sends its signal to the process and to its group.
        listener.send(signal);
        std::thread::sleep(Duration::from_millis(800));
        assert_eq!(listener.child.try_wait().unwrap(), None);
        let begin = Instant::now();
        listener.send(signal);
        assert_eq!(listener.child.wait().unwrap().code(), Some(130));
        assert!(begin.elapsed() < Duration::from_secs(20));
    }
}
