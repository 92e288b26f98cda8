//! Whether the commands and the tests share their dependencies: a newcomer who runs the demo and then the tests
//! compiles each dependency once.

use serde_json::Value;

/// What builds the tests.
pub(super) const TESTS: [&str; 5] = ["test", "--workspace", "--no-run", "--locked", "--quiet"];
/// What builds the commands, as the alias `cargo xtask` and then `cargo xtask reproduce` do.
pub(super) const COMMANDS: [&[&str]; 2] = [
    &["build", "--bin", "xtask", "--locked", FORMAT],
    &["build", "--bin", "cxr", "--locked", FORMAT],
];
const FORMAT: &str = "--message-format=json-render-diagnostics";

/// The dependencies that building the commands compiled although the tests had been built. `messages` are cargo's.
pub(super) fn problems(messages: &str) -> Vec<String> {
    let values = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    values
        .filter_map(|message| {
            let package = message.get("package_id")?.as_str()?;
            let is_compiled =
                message.get("reason")? == "compiler-artifact" && message.get("fresh")? == false;
            let is_own = package.starts_with("path+");
            (is_compiled && !is_own).then(|| {
                format!(
                    "`{package}` is compiled once for the tests and once for the commands: its features differ (`cargo tree --invert … --edges features`)"
                )
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_compiled_twice_is_named() {
        let message = |package: &str, fresh: bool| {
            format!(r#"{{"reason":"compiler-artifact","package_id":"{package}","fresh":{fresh}}}"#)
        };
        let lines = [
            message("registry+https://index#a@1.0.0", true),
            message("registry+https://index#b@1.0.0", false),
            message("path+file:///somewhere/cxr#0.1.0", false),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
        ];
        let problems = problems(&lines.join("\n"));
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("#b@1.0.0"));
    }
}
