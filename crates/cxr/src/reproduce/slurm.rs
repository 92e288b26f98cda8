//! `--slurm`: the same work as jobs of Slurm. Scripts that a person can read and change, one for each kind of work, and one
//! that submits them in their order: phantoms, preparing, an array of trainings, pictures, the report.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use cxr_report::report::Reproduction;

use super::estimate::Line;
use super::runs::Run;
use super::work::Work;
use crate::progress::say;
use crate::scoring::print;

/// The arguments of jobs.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct SlurmArgs {
    /// Write scripts for Slurm into RUNS/EXPERIMENT/slurm instead of running anything here: an array of trainings, and jobs
    /// for what comes before and after it. Time and memory are what `cxr plan` measures here, with room to spare
    #[arg(long, conflicts_with_all = ["plan", "shard", "jobs"])]
    pub(super) slurm: bool,

    /// Submit them too; `cxr runs` then shows what waits, runs and failed
    #[arg(long, requires = "slurm")]
    submit: bool,

    /// Print the scripts, and write and submit nothing
    #[arg(long, requires = "slurm", conflicts_with = "submit")]
    dry_run: bool,

    /// A further option of every job, such as `--sbatch=--partition=long`; may be repeated, and replaces what is measured
    #[arg(
        long,
        value_name = "OPTION",
        requires = "slurm",
        allow_hyphen_values = true
    )]
    sbatch: Vec<String>,

    /// Ranks of each training: processes of MPI that share its batches, for a `cxr` with the feature `mpi`
    #[arg(long, value_name = "N", requires = "slurm", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    ranks: u16,

    /// Cores of each rank and of every other job [default: as many as this machine has]
    #[arg(long, value_name = "N", requires = "slurm", value_parser = clap::value_parser!(u16).range(1..))]
    cpus: Option<u16>,
}

/// The folder of scripts and of what jobs say, in the experiment's folder.
pub(crate) const FOLDER: &str = "slurm";
/// The runs of the array, in the order of its tasks: a list of names in JSON.
pub(crate) const TASKS_FILE: &str = "tasks.json";
/// The jobs that were submitted: a name and Slurm's number in each line.
pub(crate) const JOBS_FILE: &str = "jobs.txt";
/// The array's name there.
pub(crate) const TRAIN: &str = "train";

/// Where task `task` of the array writes what it says.
pub(crate) fn output_file(task: usize) -> String {
    format!("{TRAIN}-{task}.out")
}

/// Where task `task` of the array writes how it ended.
pub(crate) fn exit_file(task: usize) -> String {
    format!("{TRAIN}-{task}.exit")
}

/// What `--slurm` was asked to do.
pub(super) struct Jobs<'a> {
    pub(super) work: &'a Work<'a>,
    pub(super) args: &'a SlurmArgs,
    /// The experiment's folder, and the folder that its paths are relative to.
    pub(super) folder: &'a Path,
    pub(super) home: &'a Path,
    /// Whether phantoms are drawn first.
    pub(super) draws: bool,
    /// The trainings to be made, in the order of the tasks.
    pub(super) runs: &'a [Run],
    /// One of each size of images.
    pub(super) prepared_for: &'a [Run],
    /// The run whose pictures are drawn.
    pub(super) explained: Option<&'a Run>,
    /// What the parts take.
    pub(super) lines: &'a [Line],
}

/// A script, and the kind of job that it is of.
#[derive(Debug, PartialEq)]
struct Script {
    /// `train`.
    name: &'static str,
    file: String,
    text: String,
    /// Options of `sbatch` that say what it waits for, in which `$train` stands for a job's number.
    after: String,
}

impl Jobs<'_> {
    /// Prints the scripts, or writes them, and submits them where that is asked for.
    pub(super) fn make(&self, reproduction: &Reproduction) -> anyhow::Result<()> {
        let folder = self.folder.join(FOLDER);
        let place = folder.display().to_string();
        ensure!(
            !place.contains(['"', '\\', '%', '\n']),
            "`{place}` has a character that Slurm does not take in the name of a job's output\nhint: choose another `--runs`"
        );
        let scripts = self.scripts(&place);
        let mut files: Vec<(String, String)> = (scripts.iter())
            .map(|script| (script.file.clone(), script.text.clone()))
            .collect();
        files.push(("submit.sh".to_owned(), self.submission(&scripts)));
        if self.args.dry_run {
            for (name, text) in &files {
                print(&format!("== {name}\n{text}\n"))?;
            }
            return Ok(());
        }
        let made = std::fs::create_dir_all(&folder);
        made.with_context(|| format!("cannot make the folder `{place}`"))?;
        let names: Vec<String> = self.runs.iter().map(Run::name).collect();
        files.push((
            TASKS_FILE.to_owned(),
            serde_json::to_string_pretty(&names)? + "\n",
        ));
        for (name, text) in &files {
            cxr_fs::write(&folder.join(name), text.as_bytes())?;
        }
        reproduction.write(self.folder)?;
        let submission = folder.join("submit.sh");
        if !self.args.submit {
            say(&format!(
                "{} scripts are in `{place}`; `sh {}` submits them",
                scripts.len(),
                submission.display()
            ));
            return Ok(());
        }
        let submitted = Command::new("sh").arg(&submission).status();
        let submitted = submitted.context("cannot start a shell")?;
        if !submitted.success() {
            bail!(
                "the jobs were not submitted: {submitted}\nhint: `sh {}` does it again",
                submission.display()
            );
        }
        say(&format!(
            "`cxr runs {}` shows how far they are",
            self.folder.display()
        ));
        Ok(())
    }

    fn scripts(&self, place: &str) -> Vec<Script> {
        let mut scripts = Vec::new();
        let mut after = String::new();
        if self.draws {
            let command = shell(&self.work.phantoms_command());
            let text = self.simple(place, "data", &["phantoms"], &[command]);
            scripts.push(Script {
                name: "data",
                file: "1-data.sh".to_owned(),
                text,
                after: String::new(),
            });
            after = AFTER_OK.replace("JOB", "$data");
        }
        let prepare: Vec<String> = (self.prepared_for.iter())
            .map(|run| {
                let mut command = self.work.training(run, 1);
                command.arg("--prepare-only");
                shell(&command)
            })
            .collect();
        scripts.push(Script {
            name: "prepare",
            file: "2-prepare.sh".to_owned(),
            text: self.simple(place, "prepare", &["prepare"], &prepare),
            after: std::mem::take(&mut after),
        });
        scripts.push(Script {
            name: TRAIN,
            file: "3-train.sh".to_owned(),
            text: self.array(place),
            after: AFTER_OK.replace("JOB", "$prepare"),
        });
        let mut last = "$train".to_owned();
        if let Some(run) = self.explained {
            let command = shell(&self.work.explain_command(run));
            let task = self.runs.iter().position(|other| other == run);
            scripts.push(Script {
                name: "explain",
                file: "4-explain.sh".to_owned(),
                text: self.simple(place, "explain", &["explain"], &[command]),
                after: match task {
                    Some(task) => AFTER_OK.replace("JOB", &format!("${{train}}_{task}")),
                    None => AFTER_OK.replace("JOB", "$prepare"),
                },
            });
            last += ":$explain";
        }
        let report = shell(&self.work.report_command());
        scripts.push(Script {
            name: "report",
            file: "5-report.sh".to_owned(),
            text: self.simple(place, "report", &["report"], &[report]),
            // As without Slurm a training that fails does not keep the report of the others.
            after: format!("--dependency=afterany:{last}"),
        });
        scripts
    }

    /// The first lines of a script: what its job is called and takes, for the parts whose names begin so.
    fn head(&self, place: &str, name: &str, output: &str, parts: &[&str]) -> String {
        let is_of = |line: &&Line| parts.iter().any(|part| line.part.starts_with(part));
        let lines = || self.lines.iter().filter(is_of);
        let seconds = match name {
            // Each task is a run of its own.
            TRAIN => lines().map(|line| line.seconds).fold(0., f64::max),
            _ => lines().map(|line| line.seconds).sum(),
        };
        let ranks = if name == TRAIN { self.args.ranks } else { 1 };
        let memory = lines().filter_map(|line| line.memory).fold(0., f64::max);
        let memory = memory * f64::from(ranks);
        let mut text = format!(
            "#!/bin/sh\n#SBATCH --job-name=cxr-{}-{name}\n#SBATCH --output=\"{place}/{output}\"\n#SBATCH --ntasks={ranks}\n\
             #SBATCH --cpus-per-task={}\n#SBATCH --time={}\n#SBATCH --mem={}M\n",
            safe(&self.work.experiment.name),
            self.cpus(),
            minutes(seconds),
            mebibytes(memory)
        );
        if name == TRAIN {
            text += &format!(
                "#SBATCH --array=0-{}\n#SBATCH --requeue\n#SBATCH --open-mode=append\n#SBATCH --signal=B:USR1@{WARNING}\n",
                self.runs.len().saturating_sub(1)
            );
        }
        for option in &self.args.sbatch {
            text += &format!("#SBATCH {option}\n");
        }
        text + &format!(
            "cd {} || exit 1\n",
            quoted(&self.home.display().to_string())
        )
    }

    /// A script of commands, one after the other.
    fn simple(&self, place: &str, name: &str, parts: &[&str], commands: &[String]) -> String {
        let head = self.head(place, name, &format!("{name}.out"), parts);
        format!("{head}set -e\n{}\n", commands.join("\n"))
    }

    fn array(&self, place: &str) -> String {
        let names: Vec<String> = self.runs.iter().map(Run::name).collect();
        let parts: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut text = self.head(place, TRAIN, &format!("{TRAIN}-%a.out"), &parts);
        let launcher = match self.args.ranks {
            1 => String::new(),
            // Threads of a rank spread over the cores of its task.
            ranks => format!("mpirun -n {ranks} --bind-to none "),
        };
        text += "# A warning that time is running out, and a signal to end, make the training write a checkpoint and stop.\n\
                 again=\n\
                 trap 'again=1; kill -USR1 \"$training\" 2>/dev/null' USR1\n\
                 trap 'kill -TERM \"$training\" 2>/dev/null' TERM\n\
                 case \"$SLURM_ARRAY_TASK_ID\" in\n";
        for (task, run) in self.runs.iter().enumerate() {
            let mut command = self.work.training(run, 1);
            command.args(["--threads", &self.cpus().to_string()]);
            text += &format!("{task}) {launcher}{} & ;;\n", shell(&command));
        }
        let exit = format!("{place}/{TRAIN}-$SLURM_ARRAY_TASK_ID.exit");
        text += &format!(
            "*) echo \"no run has the number $SLURM_ARRAY_TASK_ID\" >&2; exit 1 ;;\n\
             esac\n\
             training=$!\n\
             wait \"$training\"; code=$?\n\
             while kill -0 \"$training\" 2>/dev/null; do wait \"$training\"; code=$?; done\n\
             # What was stopped because of the time goes back into the queue, and goes on from its checkpoint.\n\
             if [ -n \"$again\" ] && [ \"$code\" -ne 0 ]; then\n\
             \x20 scontrol requeue \"${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID\" && exit 0\n\
             fi\n\
             echo \"$code\" > \"{exit}\"\n\
             exit \"$code\"\n"
        );
        text
    }

    /// The script that submits the others, each with what it waits for.
    fn submission(&self, scripts: &[Script]) -> String {
        let mut text = format!(
            "#!/bin/sh\n# Submits the jobs of `{}`, each to run after those that it needs.\nset -e\ncd \"$(dirname \"$0\")\"\n\
             if [ -s {JOBS_FILE} ]; then\n\
             \x20 while read -r name job; do\n\
             \x20   if [ -n \"$(squeue --noheader --jobs=\"$job\" 2>/dev/null)\" ]; then\n\
             \x20     echo \"job $job ($name) is still in the queue: scancel it first, or let it end\" >&2; exit 1\n\
             \x20   fi\n\
             \x20 done < {JOBS_FILE}\n\
             fi\n\
             rm -f {TRAIN}-*.exit\n: > {JOBS_FILE}\n",
            safe(&self.work.experiment.name)
        );
        for Script {
            name, file, after, ..
        } in scripts
        {
            let after = match after.as_str() {
                "" => String::new(),
                after => format!("{after} "),
            };
            // A cluster's name may follow the number.
            text += &format!(
                "{name}=$(sbatch --parsable {after}{file}); {name}=${{{name}%%;*}}\necho \"{name} ${name}\" | tee -a {JOBS_FILE}\n"
            );
        }
        text
    }

    fn cpus(&self) -> usize {
        let here = || std::thread::available_parallelism().map_or(1, usize::from);
        self.args.cpus.map_or_else(here, usize::from)
    }
}

/// What waits for a job that must end well, and is taken out of the queue when it does not.
const AFTER_OK: &str = "--dependency=afterok:JOB --kill-on-invalid-dep=yes";
/// Seconds before the end of its time at which a training is warned.
const WARNING: u32 = 120;

/// Twice what was measured, and ten minutes at least.
fn minutes(seconds: f64) -> u64 {
    (2. * seconds / 60.).ceil().max(10.) as u64
}

/// Half as much again as was measured, and two gibibytes at least.
fn mebibytes(bytes: f64) -> u64 {
    (1.5 * bytes / f64::from(1 << 20)).ceil().max(2048.) as u64
}

/// A name without what a line of a script must not have.
fn safe(name: &str) -> String {
    let is_safe = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    name.chars()
        .map(|c| if is_safe(c) { c } else { '_' })
        .collect()
}

/// A command as a shell takes it.
fn shell(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words.map(|word| quoted(&word.to_string_lossy())).collect();
    words.join(" ")
}

/// A word as a shell takes it, whatever it has.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_gets_the_very_words() {
        let words = [
            "plain",
            "with space",
            "it's",
            "$HOME `x` \"y\"",
            "a\nb",
            "",
            "*",
        ];
        let mut command = Command::new("printf");
        command.arg("%s|").args(words);
        let output = Command::new("sh")
            .arg("-c")
            .arg(shell(&command))
            .output()
            .unwrap();
        let expected: String = words.iter().map(|word| format!("{word}|")).collect();
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    }

    #[test]
    fn limits_leave_room_above_what_was_measured() {
        assert_eq!([0., 299., 3600.].map(minutes), [10, 10, 120]);
        let gib = f64::from(1 << 30);
        assert_eq!([0., gib, 4. * gib].map(mebibytes), [2048, 2048, 6144]);
    }

    #[test]
    fn names_stay_in_their_line() {
        assert_eq!(safe("mine 2\n#SBATCH x"), "mine_2__SBATCH_x");
    }
}
