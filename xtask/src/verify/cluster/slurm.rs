//! What a real Slurm does to trainings: one is requeued again and again, and goes on by itself; an array of several ends
//! in one report.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use cxr_terminal::{Ending, Interrupt, say, tell};

use super::{Cluster, Training};
use crate::verify::demo;
use crate::verify::resume::EXPERIMENTS;

/// How often the job is put back into the queue.
const REQUEUES: usize = 5;
/// The longest that a job may take.
const PATIENCE: Duration = Duration::from_secs(1800);

pub(super) fn check(cluster: &Cluster, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let answers = Command::new("sinfo").arg("--noheader").output();
    if !answers.is_ok_and(|output| output.status.success()) {
        tell!("   skipped: no Slurm answers (`sinfo`; docs/clusters.md)");
        return Ok(Ending::Done);
    }
    match requeued(cluster, &Training::long(), interrupt)? {
        Ending::Done => array(cluster, interrupt),
        ending => Ok(ending),
    }
}

/// Two variants with two seeds as an array, with what comes before and after it, beside the same without Slurm.
fn array(cluster: &Cluster, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let [(name, plain, _), _] = EXPERIMENTS;
    let experiment = cluster.folder.join("array.toml");
    let text = format!("{plain}\n[[variants]]\nname = \"bce\"\nloss = \"bce\"\n");
    std::fs::write(&experiment, text).context("cannot write an experiment")?;
    let reproduce = |home: &str, more: &[&str]| {
        let home = cluster.folder.join(home);
        std::fs::create_dir_all(&home).context("cannot make a folder")?;
        let mut command = Command::new(&cluster.executable);
        command
            .arg("reproduce")
            .arg(&experiment)
            .arg("--home")
            .arg(home);
        command.args(["--seeds", "2"]).args(more);
        command.stdout(Stdio::null());
        anyhow::Ok(interrupt.run(&mut command)?)
    };
    let begin = Instant::now();
    for more in [&[][..], &["--slurm", "--submit", "--cpus", "1"]] {
        let home = if more.is_empty() { "serial" } else { "array" };
        let ended = reproduce(home, more)?;
        match ended.ending {
            Ending::Done => {}
            Ending::Interrupted => return Ok(Ending::Interrupted),
            Ending::Failed => bail!(
                "`cxr reproduce {}` failed: {}",
                more.join(" "),
                ended.status
            ),
        }
        if home == "serial" {
            tell!(
                "   array: two variants with two seeds, serial, {:.1} s",
                begin.elapsed().as_secs_f64()
            );
        }
    }
    let folder = |home: &str| cluster.folder.join(home).join("models/runs").join(name);
    let jobs = std::fs::read_to_string(folder("array").join("slurm/jobs.txt"));
    let jobs = jobs.context("no job was submitted")?;
    let jobs: Vec<&str> = jobs
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .collect();
    let begin = Instant::now();
    let mut has_waited = false;
    while jobs.iter().any(|job| is_queued(job)) {
        if interrupt.is_raised() || begin.elapsed() > PATIENCE {
            let _ = Command::new("scancel").args(&jobs).status();
            if interrupt.is_raised() {
                return Ok(Ending::Interrupted);
            }
            bail!("the jobs of the array were not finished within half an hour");
        }
        let mut runs = Command::new(&cluster.executable);
        let listed = runs.arg("runs").arg(folder("array")).arg("--json").output();
        let listed = listed.context("cannot start `cxr`")?;
        has_waited |= String::from_utf8_lossy(&listed.stdout).contains("\"waiting\"");
        std::thread::sleep(Duration::from_millis(500));
    }
    let (serial, array) = (
        demo::results(&folder("serial"))?,
        demo::results(&folder("array"))?,
    );
    let names = serial.keys().chain(array.keys());
    let mut differing: Vec<&str> = names
        .filter(|name| serial.get(*name) != array.get(*name))
        .map(String::as_str)
        .collect();
    differing.sort_unstable();
    differing.dedup();
    let has_report = folder("array").join("report.html").is_file();
    if !differing.is_empty() || !has_report || !has_waited || jobs.len() != 5 {
        say!(
            "error: array: {} jobs, a report: {has_report}, seen waiting by `cxr runs`: {has_waited}, other bytes in {}",
            jobs.len(),
            differing.join(", ")
        );
        return Ok(Ending::Failed);
    }
    tell!(
        "   array: {} jobs of Slurm end in one report, in {:.1} s; {} tables, predictions and pictures are the same bytes",
        jobs.len(),
        begin.elapsed().as_secs_f64(),
        array.len()
    );
    Ok(Ending::Done)
}

/// Whether any task of a job waits or runs.
fn is_queued(job: &str) -> bool {
    let output = Command::new("squeue")
        .args(["--noheader", "--jobs", job])
        .output();
    output.is_ok_and(|output| !output.stdout.trim_ascii().is_empty())
}

/// A job of two ranks that is requeued five times on its way.
fn requeued(
    cluster: &Cluster,
    training: &Training,
    interrupt: &Interrupt,
) -> anyhow::Result<Ending> {
    let Some(expected) = cluster.alone(training, interrupt)? else {
        return Ok(Ending::Interrupted);
    };
    let arguments = cluster.arguments(training, "requeued", 1).join(" ");
    let script = format!(
        "#!/bin/sh\n#SBATCH --job-name=cxr-verify\n#SBATCH --ntasks=2\n#SBATCH --requeue\n#SBATCH --open-mode=append\n\
         export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1\n\
         exec mpirun -n 2 {} {arguments}\n",
        cluster.executable.display()
    );
    let job = submit(&cluster.folder, "requeued.sh", &script)?;
    let run = cluster.run_folder(training, "requeued");
    let steps = || {
        let events = std::fs::read_to_string(run.join("events.jsonl")).unwrap_or_default();
        events
            .lines()
            .filter(|line| line.contains("\"step\""))
            .count()
    };
    let begin = Instant::now();
    let (mut n_requeued, mut seen) = (0, 0);
    loop {
        if interrupt.is_raised() {
            let _ = Command::new("scancel").arg(&job).status();
            return Ok(Ending::Interrupted);
        }
        if begin.elapsed() > PATIENCE {
            let _ = Command::new("scancel").arg(&job).status();
            bail!("job {job} was not finished within half an hour");
        }
        match state(&job)?.as_str() {
            "RUNNING" if n_requeued < REQUEUES && steps() > seen => {
                seen = steps();
                call("scontrol", &["requeue", &job])?;
                n_requeued += 1;
            }
            // A requeued job is held back for two minutes.
            "PENDING" => {
                let _ = call(
                    "scontrol",
                    &["update", &format!("JobId={job}"), "StartTime=now"],
                );
            }
            "" | "COMPLETED" => break,
            "FAILED" | "CANCELLED" | "TIMEOUT" | "NODE_FAIL" => bail!(
                "job {job} failed: {}",
                std::fs::read_to_string(cluster.folder.join("requeued.sh.out")).unwrap_or_default()
            ),
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    if n_requeued < REQUEUES {
        bail!("the job was over after {n_requeued} requeues");
    }
    let what = format!("two ranks in a job that was requeued {n_requeued} times");
    Ok(
        match cluster.compare(training, "requeued", &what, &expected)? {
            true => Ending::Done,
            false => Ending::Failed,
        },
    )
}

/// Submits a script that writes what it says to `NAME.out`; the job's number.
fn submit(folder: &Path, name: &str, script: &str) -> anyhow::Result<String> {
    let path = folder.join(name);
    std::fs::write(&path, script).context("cannot write a job script")?;
    let output = folder.join(format!("{name}.out"));
    let output = format!("--output={}", output.display());
    let job = call(
        "sbatch",
        &["--parsable", &output, &path.display().to_string()],
    )?;
    Ok(job.trim().to_owned())
}

/// The state of a job by Slurm's name; empty once it is forgotten.
fn state(job: &str) -> anyhow::Result<String> {
    let output = Command::new("squeue")
        .args(["--noheader", "--states=all", "--format=%T", "--jobs", job])
        .output()
        .context("cannot start `squeue`")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn call(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot start `{program}`"))?;
    if !output.status.success() {
        bail!(
            "`{program}` failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
