//! Programs against the crates as somebody outside the workspace writes them: built, run, and short.
//!
//! They are the examples of `tests/downstream`, and what the pages of `docs` show is taken from them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use cxr_terminal::{Ending, Interrupt, tell};

use crate::workspace::Workspace;

/// An example and the lines that it may have: all of it, or what stands between `// begin` and `// end`.
struct Program {
    name: &'static str,
    most_lines: usize,
    is_counted_whole: bool,
}

const fn whole(name: &'static str, most_lines: usize) -> Program {
    Program {
        name,
        most_lines,
        is_counted_whole: true,
    }
}

const fn part(name: &'static str, most_lines: usize) -> Program {
    Program {
        name,
        most_lines,
        is_counted_whole: false,
    }
}

const PROGRAMS: [Program; 8] = [
    whole("metrics", 90),
    whole("losses", 100),
    whole("experiment_with_report", 150),
    part("early_stopping", 15),
    part("learning_rate_finder", 25),
    part("k_fold", 25),
    part("two_data_sets", 25),
    part("unlabelled_images", 10),
];

/// Pages whose Rust is that of the examples.
const PAGES: [&str; 2] = ["your-own-training-loop.md", "compose-an-experiment.md"];

pub(super) fn check(workspace: &Workspace, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let root = workspace.root();
    let folder = root.join("tests").join("downstream");
    let mut sources = Vec::new();
    for program in &PROGRAMS {
        let path = folder
            .join("examples")
            .join(program.name)
            .with_extension("rs");
        let source = read(&path)?;
        let found = lines(&source, program.is_counted_whole)
            .with_context(|| format!("`{}`", path.display()))?;
        ensure!(
            found <= program.most_lines,
            "`{}` has {found} lines, at most {} are allowed",
            path.display(),
            program.most_lines
        );
        tell!(
            "   {}: {found} of {} lines",
            program.name,
            program.most_lines
        );
        sources.push(source);
    }
    for page in PAGES {
        let path = root.join("docs").join(page);
        if let Some(block) = unknown_block(&read(&path)?, &sources) {
            bail!(
                "`{}` shows Rust that no example of `{}` has:\n{block}",
                path.display(),
                folder.display()
            );
        }
    }
    // The same versions, so that what the workspace has compiled is used again.
    std::fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock"))
        .context("cannot copy `Cargo.lock`")?;
    let scratch = tempfile::tempdir()?;
    let config = scratch.path().join("profiles.toml");
    std::fs::write(&config, profiles(&read(&root.join("Cargo.toml"))?)?)?;
    let Some(executables) = build(workspace, interrupt, &folder, &config)? else {
        return Ok(Ending::Failed);
    };
    for program in &PROGRAMS {
        tell!("   {}", program.name);
        let mut command = std::process::Command::new(executables.join(program.name));
        let ending = interrupt.run(command.current_dir(scratch.path()))?.ending;
        if ending != Ending::Done {
            return Ok(ending);
        }
    }
    Ok(Ending::Done)
}

/// Builds the examples in the workspace's target folder; the folder in which they are, `None` when that failed.
fn build(
    workspace: &Workspace,
    interrupt: &Interrupt,
    folder: &Path,
    config: &Path,
) -> anyhow::Result<Option<PathBuf>> {
    let mut command = workspace.cargo();
    if std::env::var_os("CARGO_TARGET_DIR").is_none() {
        command.env("CARGO_TARGET_DIR", workspace.root().join("target"));
    }
    command.args(["build", "--examples", "--manifest-path"]);
    command
        .arg(folder.join("Cargo.toml"))
        .arg("--config")
        .arg(config);
    command.arg("--message-format=json-render-diagnostics");
    let (ended, messages) = interrupt.output(&mut command)?;
    if ended.ending != Ending::Done {
        return Ok(None);
    }
    let first = PROGRAMS[0].name;
    let executable = messages
        .lines()
        .find_map(|line| crate::workspace::executable_of(line, first));
    let executable = executable.context("cargo names no example that it has built")?;
    Ok(executable.parent().map(Path::to_owned))
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))
}

/// The lines that count.
fn lines(source: &str, is_counted_whole: bool) -> anyhow::Result<usize> {
    if is_counted_whole {
        return Ok(source.lines().count());
    }
    let place = |marker: &str| {
        let mut lines = source.lines();
        let place = lines.position(|line| line.trim() == marker);
        place.with_context(|| format!("has no line `{marker}`"))
    };
    let (begin, end) = (place("// begin")?, place("// end")?);
    end.checked_sub(begin + 1)
        .context("`// end` is before `// begin`")
}

/// The profiles of a manifest, as cargo reads them from a configuration.
fn profiles(manifest: &str) -> anyhow::Result<String> {
    let mut manifest: toml::Table = toml::from_str(manifest)?;
    let mut config = toml::Table::new();
    if let Some(profile) = manifest.remove("profile") {
        config.insert("profile".to_owned(), profile);
    }
    Ok(toml::to_string(&config)?)
}

/// The first block of Rust on a page whose lines, however they are indented, do not follow one another in a source. A
/// line `…` stands for lines that are left out.
fn unknown_block(page: &str, sources: &[String]) -> Option<String> {
    let trimmed =
        |text: &str| -> Vec<String> { text.lines().map(|line| line.trim().to_owned()).collect() };
    let sources: Vec<Vec<String>> = sources.iter().map(|source| trimmed(source)).collect();
    let mut blocks = page.split("```rust\n").skip(1);
    blocks.find_map(|block| {
        let block = block.split("```").next().unwrap_or_default();
        let lines = trimmed(block);
        let pieces: Vec<&[String]> = lines
            .split(|line| line == "// …")
            .filter(|piece| !piece.is_empty())
            .collect();
        let has = |source: &Vec<String>| {
            let mut rest = source.as_slice();
            pieces.iter().all(|piece| {
                let place = rest.windows(piece.len()).position(|lines| lines == *piece);
                if let Some(place) = place {
                    rest = &rest[place + piece.len()..];
                }
                place.is_some()
            })
        };
        (!sources.iter().any(has)).then(|| block.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_between_the_markers() {
        let source = "a\n    // begin\nb\n\nc\n    // end\nd\n";
        assert_eq!(lines(source, true).unwrap(), 7);
        assert_eq!(lines(source, false).unwrap(), 3);
        assert!(lines("// end\n// begin\n", false).is_err());
        assert!(lines("// begin\n", false).is_err());
    }

    #[test]
    fn a_page_shows_only_what_is_run() {
        let sources = ["fn a() {\n    one();\n    two();\n    three();\n}\n".to_owned()];
        let page =
            |block: &str| unknown_block(&format!("text\n```rust\n{block}```\nmore\n"), &sources);
        assert_eq!(page("one();\ntwo();\n"), None);
        assert_eq!(page("fn a() {\n// …\n    three();\n}\n"), None);
        assert!(page("one();\nthree();\n").is_some());
        assert!(page("three();\n// …\none();\n").is_some());
        assert_eq!(unknown_block("```toml\nanything\n```\n", &sources), None);
    }

    #[test]
    fn profiles_are_those_of_the_manifest() {
        let found =
            profiles("[package]\nname = \"a\"\n[profile.dev.package.\"*\"]\nopt-level = 1\n");
        let found: toml::Table = toml::from_str(&found.unwrap()).unwrap();
        assert_eq!(
            found["profile"]["dev"]["package"]["*"]["opt-level"].as_integer(),
            Some(1)
        );
        assert_eq!(found.len(), 1);
    }
}
