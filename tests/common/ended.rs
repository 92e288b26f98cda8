//! `cxr` run in a folder, as a user runs it.

use std::path::Path;
use std::process::Command;

/// Runs `cxr`, which must end with this code and without a panic; what it wrote to standard output and standard error.
#[track_caller]
pub(crate) fn ends_in(folder: &Path, arguments: &[&str], code: i32) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cxr"));
    let output = command.current_dir(folder).args(arguments).output();
    let output = output.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(
        output.status.code(),
        Some(code),
        "{arguments:?}\n{stdout}{stderr}"
    );
    assert!(!stderr.contains("panicked"), "{stderr}");
    (stdout, stderr)
}
