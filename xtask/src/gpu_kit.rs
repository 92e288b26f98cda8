//! `cargo xtask gpu-kit`: what a borrowed machine with an NVIDIA GPU needs to say how it does, in one folder: the program
//! that checks and measures, stripped, the script that runs it for 15 minutes, and PyTorch's side.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use cxr_terminal::{Ending, Interrupt, say, tell};

use crate::bench::{BUILD_GPU, built};
use crate::workspace::{Workspace, absolute};

/// What the folder may weigh: some machines take no more in one go.
const MOST: u64 = 64 << 20;

/// What lies beside the program, in `xtask/peers`.
const SCRIPTS: [&str; 2] = ["first-hour.sh", "gpu.py"];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The folder, which is made; what is in it of these names is replaced
    folder: PathBuf,
    /// The program, built elsewhere; without it a CUDA toolkit builds it here
    #[arg(long, value_name = "PROGRAM")]
    built: Option<PathBuf>,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Ending> {
    let interrupt = Interrupt::install()?;
    let program = match &arguments.built {
        Some(program) => absolute(program)?,
        None => match built(workspace, &interrupt, &BUILD_GPU, "gpu")? {
            Some(program) => program,
            None => return Ok(Ending::Interrupted),
        },
    };
    let folder = absolute(&arguments.folder)?;
    let bytes = assemble(workspace.root(), &program, &folder)?;
    let mib = bytes.div_ceil(1 << 20);
    if bytes > MOST {
        bail!(
            "`{}` weighs {mib} MiB, of which a machine may take {} at most",
            folder.display(),
            MOST >> 20
        );
    }
    tell!(
        "`{}`, {mib} MiB: copy it to the machine and call first-hour.sh",
        folder.display()
    );
    Ok(Ending::Done)
}

/// Fills a folder and returns the bytes that are in it.
fn assemble(root: &Path, program: &Path, folder: &Path) -> anyhow::Result<u64> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    let copy = |from: &Path, name: &str| -> anyhow::Result<PathBuf> {
        let to = folder.join(name);
        fs::copy(from, &to)
            .with_context(|| format!("cannot copy `{}` to `{}`", from.display(), to.display()))?;
        Ok(to)
    };
    let copied = copy(program, "gpu")?;
    let stripped = Command::new("strip").arg(&copied).output();
    if !stripped.is_ok_and(|output| output.status.success()) {
        say!("`strip` did not take the program: it goes as it is");
    }
    let mut bytes = fs::metadata(&copied)?.len();
    for name in SCRIPTS {
        let to = copy(&root.join("xtask").join("peers").join(name), name)?;
        bytes += fs::metadata(to)?.len();
    }
    Ok(bytes)
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Instant;

    use super::*;

    /// Takes the program's commands: says what it was asked for, and does as the name of the variable says.
    const PROGRAM: &str = r#"#!/bin/sh
echo "asked for: $*"
[ "$1" = "$FAKE_HANGS" ] && exec sleep 60
[ "$1" = "$FAKE_FAILS" ] && exit 1
if [ "$1" = time ]; then
  echo '{"img_s":1234.5,"peak_mib":null,"operations":1.0,"bytes":2.0}'
fi
exit 0
"#;

    /// A Python whose peer is there for bf16 alone.
    const PYTHON: &str = r#"#!/bin/sh
case "$*" in
  *gpu.py*bf16*) echo '{"img_s": 1000.4, "peak_mib": 2048.0, "torch": "2.9"}' ;;
  *gpu.py*) echo "no such thing" >&2; exit 1 ;;
  -c*) echo "torch 2.9" ;;
  *) echo "/wheels/nvidia/cudnn/lib" ;;
esac
"#;

    /// A folder as it is sent, with a fake program and a fake Python; `None` where there is no `timeout`.
    fn kit() -> Option<tempfile::TempDir> {
        let is_there = Command::new("timeout").arg("--version").output();
        if !is_there.is_ok_and(|output| output.status.success()) {
            tell!("skipped: there is no `timeout`");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let root = Workspace::find().unwrap().root().to_owned();
        let script = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        script("python", PYTHON);
        let program = script("program", PROGRAM);
        let bytes = assemble(&root, &program, &folder.path().join("kit")).unwrap();
        assert!(bytes > PROGRAM.len() as u64 && bytes < MOST);
        Some(folder)
    }

    /// Calls the script, and returns how it ended, its summary, and what a step's file has.
    fn call(
        folder: &Path,
        variables: &[(&str, &str)],
    ) -> (Option<i32>, String, impl Fn(&str) -> String) {
        let results = folder.join("results");
        let mut command = Command::new("bash");
        command
            .arg(folder.join("kit/first-hour.sh"))
            .arg(&results)
            .env("CXR_PYTHON", folder.join("python"))
            .envs(variables.iter().copied());
        let status = command.output().unwrap().status;
        let read = move |name: &str| {
            let text = fs::read_to_string(results.join(name));
            text.unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        (status.code(), read("summary.txt"), read)
    }

    /// How a step ended, by the summary.
    fn ended<'a>(summary: &'a str, step: &str) -> &'a str {
        let line = summary.lines().find(|line| line.starts_with(step));
        let words: Vec<&str> = line.unwrap_or_default().splitn(2, "  ").collect();
        words.last().copied().unwrap_or_default().trim()
    }

    #[test]
    fn a_step_that_fails_does_not_stop_the_next() {
        let Some(folder) = kit() else { return };
        let (code, summary, read) = call(folder.path(), &[("FAKE_FAILS", "check")]);
        assert_eq!(code, Some(1), "{summary}");
        for (step, how) in [
            ("probe", "ok"),
            ("rates", "ok"),
            ("check", "failed (1)"),
            ("time", "ok"),
            ("profile", "ok"),
            ("train", "ok"),
        ] {
            assert!(ended(&summary, step).ends_with(how), "{step}: {summary}");
        }
        assert!(read("check.txt").contains("asked for: check"));
        assert!(read("profile.txt").contains("asked for: profile 64 bf16"));
        assert!(read("train.txt").contains("asked for: train 300"));
        let table = read("time.txt");
        let row = |of: [&str; 4]| {
            let is_it = |line: &&str| line.split_whitespace().take(4).eq(of);
            let words = table.lines().find(is_it).map(str::split_whitespace);
            let words: Vec<&str> = words.into_iter().flatten().skip(4).collect();
            words.join(" ")
        };
        assert_eq!(row(["train", "bf16", "64", "ours"]), "1234 nan", "{table}");
        assert_eq!(row(["train", "bf16", "64", "compiled"]), "1000 2048");
        // A peer that is missing costs its row alone.
        assert_eq!(row(["infer", "f32", "256", "eager"]), "nan nan");
        assert_eq!(table.lines().count(), 25, "{table}");
    }

    #[test]
    fn all_that_is_well_ends_well() {
        let Some(folder) = kit() else { return };
        let steps = ("CXR_STEPS", "rates train");
        let (code, summary, _) = call(folder.path(), &[steps]);
        assert_eq!(code, Some(0), "{summary}");
        // Steps that were not asked for are in no table.
        assert_eq!(summary.lines().count(), 3, "{summary}");
    }

    #[test]
    fn a_step_that_hangs_ends_with_the_time_there_is() {
        let Some(folder) = kit() else { return };
        let begin = Instant::now();
        let variables = [
            ("FAKE_HANGS", "rates"),
            ("CXR_SECONDS", "6"),
            ("CXR_STEPS", "rates check"),
        ];
        let (code, summary, read) = call(folder.path(), &variables);
        assert!(begin.elapsed().as_secs() < 40);
        assert_eq!(code, Some(1), "{summary}");
        assert!(
            ended(&summary, "rates").ends_with("out of time"),
            "{summary}"
        );
        assert!(
            ended(&summary, "check").ends_with("out of time"),
            "{summary}"
        );
        assert!(read("check.txt").contains("no time left"));
    }

    #[test]
    fn without_its_program_the_script_says_what_makes_it() {
        let Some(folder) = kit() else { return };
        fs::remove_file(folder.path().join("kit/gpu")).unwrap();
        let mut command = Command::new("bash");
        command.arg(folder.path().join("kit/first-hour.sh"));
        let output = command.current_dir(folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("cargo xtask gpu-kit"), "{error}");
        let help = Command::new("bash")
            .arg(folder.path().join("kit/first-hour.sh"))
            .arg("--help")
            .output()
            .unwrap();
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        assert!(help.contains("usage: first-hour.sh") && help.contains("CXR_SECONDS"));
    }
}
