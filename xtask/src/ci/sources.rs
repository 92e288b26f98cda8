//! What the sources themselves must show: a page for every crate, no unfinished code, no `unsafe`
//! that nobody decided on.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::manifest::folders;

/// The files that may hold `unsafe`, each with its reason. Every block has a `SAFETY:` line beside
/// (clippy asks for it).
const MAY_BE_UNSAFE: &[(&str, &str)] = &[
    (
        "crates/cxr-augment/src/warp.rs",
        "the same code compiled for AVX2; the gain stands beside it",
    ),
    (
        "crates/cxr-dataset/src/resize/lanes.rs",
        "the same code compiled for AVX2; the gain stands beside it",
    ),
    (
        "crates/cxr-ops/src/bf16.rs",
        "the bf16 instruction, which no library has a safe entry for; the gain stands beside it",
    ),
    (
        "crates/cxr-ops/src/gpu/cublas.rs",
        "cuBLAS, which takes addresses",
    ),
    (
        "crates/cxr-ops/src/gpu/cuda.rs",
        "starting kernels, which no binding makes safe",
    ),
    (
        "crates/cxr-ops/src/gpu/cudnn.rs",
        "cuDNN, which takes addresses",
    ),
    (
        "crates/cxr-ops/src/gpu/emulator.rs",
        "calling the kernels that a test has compiled",
    ),
    (
        "crates/cxr-ops/src/gpu/graph.rs",
        "CUDA graphs: launches, and memory that belongs to one",
    ),
    (
        "crates/cxr-ops/src/gpu/memory.rs",
        "pieces of one device memory, which no binding divides",
    ),
    (
        "crates/cxr-ops/src/gpu/nvrtc.rs",
        "NVRTC for one GPU, which no binding makes safe",
    ),
    (
        "crates/cxr-ops/src/gpu/probe.rs",
        "cuBLAS's version, for which there is no safe call",
    ),
    (
        "crates/cxr-ops/src/gpu/settings.rs",
        "settings of the driver's and cuBLAS's memory",
    ),
    (
        "crates/cxr-ops/src/cpu.rs",
        "the matrix kernel takes pointers and strides, and has no safe entry",
    ),
];

/// What stands for unfinished work, in two pieces so that this file does not hold it.
const BANNED: [(&str, &str); 3] = [("to", "do!("), ("unimple", "mented!("), ("#[ig", "nore")];

pub(super) fn problems(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    for folder in folders(root)? {
        problems.extend(page_problems(root, &folder)?);
    }
    let mut files = Vec::new();
    for folder in ["crates", "xtask", "tests"] {
        rust_files(&root.join(folder), &mut files)?;
    }
    files.sort();
    let mut with_unsafe = Vec::new();
    for path in &files {
        let text = read(path)?;
        let shown = relative(root, path);
        problems.extend(banned_words(&shown, &text));
        if has_unsafe(&text) {
            with_unsafe.push(shown);
        }
    }
    problems.extend(unsafe_problems(&with_unsafe, MAY_BE_UNSAFE));
    Ok(problems)
}

/// A library has a README and opens with a page that has an example; a binary opens with a page.
fn page_problems(root: &Path, folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    let library = folder.join("src").join("lib.rs");
    if !library.is_file() {
        let main = folder.join("src").join("main.rs");
        if !read(&main)?.starts_with("//!") {
            problems.push(format!(
                "`{}` opens with no `//!` page",
                relative(root, &main)
            ));
        }
        return Ok(problems);
    }
    let text = read(&library)?;
    let readme = folder.join("README.md");
    let readme_text = if readme.is_file() {
        read(&readme)?
    } else {
        String::new()
    };
    // More than a heading.
    if readme_text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .count()
        < 3
    {
        let shown = relative(root, &readme);
        problems.push(format!(
            "`{shown}`: expected a page that says what the crate is for"
        ));
    }
    let page = if text.starts_with("#![doc = include_str!(\"../README.md\")]") {
        readme_text
    } else {
        let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
        lines
            .map(|line| line.trim_start().to_owned() + "\n")
            .collect()
    };
    let shown = relative(root, &library);
    if page.is_empty() {
        problems.push(format!("`{shown}` opens with no `//!` page"));
    } else if !has_example(&page) {
        problems.push(format!(
            "`{shown}`: the page has no example that runs as a test"
        ));
    }
    Ok(problems)
}

/// Whether a page has a code block that rustdoc runs or at least compiles.
fn has_example(page: &str) -> bool {
    let mut is_inside = false;
    page.lines().any(|line| {
        let Some(tags) = line.trim_start().strip_prefix("```") else {
            return false;
        };
        is_inside = !is_inside;
        let is_rust = |tag: &str| matches!(tag.trim(), "" | "rust" | "no_run" | "should_panic");
        is_inside && tags.split(',').all(is_rust)
    })
}

fn banned_words(path: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for (head, tail) in BANNED {
            let word = format!("{head}{tail}");
            if line.contains(&word) {
                problems.push(format!(
                    "`{path}`, line {}: `{word}` is unfinished work",
                    at + 1
                ));
            }
        }
    }
    problems
}

/// Whether the code, comments left out, opens something `unsafe`.
fn has_unsafe(text: &str) -> bool {
    text.lines().any(|line| {
        let code = line.split("//").next().unwrap_or_default();
        let mut words = code.split(|c: char| !(c.is_alphanumeric() || "_{".contains(c)));
        let opens = |word: &str| matches!(word, "{" | "fn" | "impl" | "trait" | "extern");
        let mut was_unsafe = false;
        words.any(|word| {
            if word.is_empty() {
                return false;
            }
            let is_opened = was_unsafe && opens(word);
            was_unsafe = word == "unsafe";
            is_opened
        })
    })
}

fn unsafe_problems(found: &[String], allowed: &[(&str, &str)]) -> Vec<String> {
    let unexpected = found
        .iter()
        .filter(|path| !allowed.iter().any(|(known, _)| known == path))
        .map(|path| format!("`{path}` holds `unsafe` and is not listed with a reason"));
    let stale = allowed
        .iter()
        .filter(|(known, _)| !found.iter().any(|path| path == known))
        .map(|(known, _)| format!("`{known}` is listed for its `unsafe` and holds none"));
    unexpected.chain(stale).collect()
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    let unreadable = || format!("cannot list `{}`", folder.display());
    for entry in std::fs::read_dir(folder).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        if path.is_dir() {
            rust_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))
}

fn relative(root: &Path, path: &Path) -> String {
    let path = path.strip_prefix(root).unwrap_or(path);
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The problems of one library with this README and this `lib.rs`.
    fn check_library(readme: &str, library: &str) -> Vec<String> {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("crates").join("made");
        std::fs::create_dir_all(folder.join("src")).unwrap();
        std::fs::write(folder.join("README.md"), readme).unwrap();
        std::fs::write(folder.join("src").join("lib.rs"), library).unwrap();
        page_problems(root.path(), &folder).unwrap()
    }

    const README: &str = "# made\n\nWhat it is for.\nAnd what not.\n";

    #[test]
    fn a_library_has_a_readme_and_a_page_with_an_example() {
        let page = "//! A page.\n//!\n//! ```\n//! assert!(true);\n//! ```\n\nmod a;\n";
        assert_eq!(check_library(README, page), [""; 0]);
        let whole = "#![doc = include_str!(\"../README.md\")]\n";
        let readme = format!("{README}\n```rust\nassert!(true);\n```\n");
        assert_eq!(check_library(&readme, whole), [""; 0]);

        let only_heading = check_library("# made\n", page);
        assert!(only_heading[0].contains("README.md"), "{only_heading:?}");
        let no_page = check_library(README, "mod a;\n//! late\n");
        assert!(no_page[0].contains("no `//!` page"), "{no_page:?}");
        for block in ["text", "ignore", "rust,ignore"] {
            let page = format!("//! A page.\n//! ```{block}\n//! x\n//! ```\n");
            let problems = check_library(README, &page);
            assert!(problems[0].contains("no example"), "{block}: {problems:?}");
        }
    }

    #[test]
    fn unfinished_work_is_found_with_its_line() {
        for (head, tail) in BANNED {
            let problems = banned_words("a.rs", &format!("fn a() {{\n    {head}{tail}\n}}\n"));
            assert_eq!(problems.len(), 1, "{head}{tail}");
            assert!(problems[0].starts_with("`a.rs`, line 2"), "{problems:?}");
        }
        assert_eq!(
            banned_words("a.rs", "// to do: nothing\nfn ignore() {}\n"),
            [""; 0]
        );
    }

    #[test]
    fn unsafe_code_is_found_and_talk_of_it_is_not() {
        let word = "unsafe";
        for code in [
            "{ x }",
            "fn f() {}",
            "impl Send for A {}",
            "extern \"C\" {}",
        ] {
            assert!(
                has_unsafe(&format!("    let y = 1; {word} {code}")),
                "{code}"
            );
        }
        assert!(has_unsafe(&format!("pub {word} fn f() {{}}")));
        for talk in [
            "// UNSAFE { x }",
            "#![deny(UNSAFE_op_in_UNSAFE_fn)]",
            "let UNSAFE_fn = 1;",
        ] {
            assert!(!has_unsafe(&talk.replace("UNSAFE", word)), "{talk}");
        }
    }

    #[test]
    fn the_list_of_unsafe_files_is_exact() {
        let found = ["a.rs".to_owned(), "b.rs".to_owned()];
        assert_eq!(
            unsafe_problems(&found, &[("a.rs", "why"), ("b.rs", "why")]),
            [""; 0]
        );
        let problems = unsafe_problems(&found, &[("a.rs", "why"), ("c.rs", "why")]);
        assert_eq!(problems.len(), 2);
        assert!(problems[0].contains("`b.rs`") && problems[1].contains("`c.rs`"));
    }
}
