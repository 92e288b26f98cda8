//! Which of our crates may depend on which: the table of `docs/architecture.md`, kept here so that a
//! new arrow is a decision and not an accident.

use std::collections::{BTreeMap, BTreeSet};

use super::manifest::Manifest;

/// What each crate may depend on. Tests, examples and benchmarks may reach further, but never so that
/// a crate comes to depend on itself.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("cxr-fs", &[]),
    ("cxr-table", &["cxr-fs"]),
    ("cxr-terminal", &[]),
    ("cxr-metrics", &[]),
    ("cxr-losses", &[]),
    ("cxr-ops", &[]),
    ("cxr-dataset", &["cxr-fs", "cxr-table"]),
    ("cxr-pickle", &[]),
    ("cxr-phantom", &["cxr-fs"]),
    ("cxr-augment", &[]),
    (
        "cxr-run",
        &[
            "cxr-fs",
            "cxr-table",
            "cxr-metrics",
            "cxr-dataset",
            "cxr-augment",
        ],
    ),
    ("cxr-backbone", &["cxr-fs", "cxr-ops"]),
    ("cxr-top", &["cxr-ops"]),
    (
        "cxr-model",
        &[
            "cxr-metrics",
            "cxr-fs",
            "cxr-run",
            "cxr-ops",
            "cxr-dataset",
            "cxr-augment",
            "cxr-backbone",
            "cxr-top",
        ],
    ),
    (
        "cxr-train",
        &[
            "cxr-model",
            "cxr-fs",
            "cxr-table",
            "cxr-metrics",
            "cxr-losses",
            "cxr-ops",
            "cxr-dataset",
            "cxr-augment",
            "cxr-run",
            "cxr-backbone",
            "cxr-top",
        ],
    ),
    (
        "cxr-exchange",
        &[
            "cxr-fs",
            "cxr-ops",
            "cxr-backbone",
            "cxr-top",
            "cxr-model",
            "cxr-pickle",
        ],
    ),
    ("cxr-explain", &["cxr-model", "cxr-dataset"]),
    (
        "cxr-report",
        &["cxr-fs", "cxr-table", "cxr-metrics", "cxr-run"],
    ),
    ("cxr-hub", &["cxr-fs"]),
    (
        "cxr",
        &[
            "cxr-fs",
            "cxr-table",
            "cxr-metrics",
            "cxr-losses",
            "cxr-ops",
            "cxr-dataset",
            "cxr-phantom",
            "cxr-augment",
            "cxr-run",
            "cxr-backbone",
            "cxr-top",
            "cxr-model",
            "cxr-train",
            "cxr-exchange",
            "cxr-explain",
            "cxr-report",
            "cxr-hub",
            "cxr-terminal",
        ],
    ),
    ("xtask", &["cxr-fs", "cxr-terminal"]),
];

/// Packages that are for binaries: a library has errors of its own and knows no terminal.
const FOR_BINARIES: [&str; 2] = ["anyhow", "clap"];

pub(super) fn problems(manifests: &[Manifest]) -> Vec<String> {
    check(manifests, MAY_DEPEND_ON)
}

fn check(manifests: &[Manifest], allowed: &[(&str, &[&str])]) -> Vec<String> {
    let ours: BTreeSet<&str> = manifests
        .iter()
        .map(|manifest| manifest.name.as_str())
        .collect();
    let mut problems = Vec::new();
    for manifest in manifests {
        let name = &manifest.name;
        let Some((_, may)) = allowed.iter().find(|(known, _)| known == name) else {
            problems.push(format!(
                "`{name}` is missing from the table of crates: add what it may depend on"
            ));
            continue;
        };
        for needed in manifest
            .needs
            .iter()
            .filter(|needed| ours.contains(needed.as_str()))
        {
            if !may.contains(&needed.as_str()) {
                problems.push(format!("`{name}` must not depend on `{needed}`"));
            }
        }
        let for_binaries = FOR_BINARIES
            .iter()
            .filter(|package| manifest.needs.contains(**package));
        if manifest.is_library {
            problems.extend(for_binaries.map(|package| {
                format!("`{name}` is a library and must not depend on `{package}`")
            }));
        }
    }
    for (name, _) in allowed {
        if !ours.contains(name) {
            problems.push(format!(
                "the table of crates names `{name}`, which there is not"
            ));
        }
    }
    problems
        .extend(cycle(manifests).map(|path| {
            format!("crates depend on each other in a circle, tests included: {path}")
        }));
    problems
}

/// One circle among all dependencies, if there is any.
fn cycle(manifests: &[Manifest]) -> Option<String> {
    let edges: BTreeMap<&str, BTreeSet<&str>> = manifests
        .iter()
        .map(|manifest| {
            let all = manifest.needs.iter().chain(&manifest.dev_needs);
            (manifest.name.as_str(), all.map(String::as_str).collect())
        })
        .collect();
    let mut done = BTreeSet::new();
    edges
        .keys()
        .find_map(|start| circle_from(start, &edges, &mut Vec::new(), &mut done))
}

fn circle_from<'a>(
    name: &'a str,
    edges: &BTreeMap<&'a str, BTreeSet<&'a str>>,
    path: &mut Vec<&'a str>,
    done: &mut BTreeSet<&'a str>,
) -> Option<String> {
    if let Some(at) = path.iter().position(|&earlier| earlier == name) {
        let circle: Vec<&str> = path[at..].iter().copied().chain([name]).collect();
        return Some(format!("`{}`", circle.join("` → `")));
    }
    if done.contains(name) {
        return None;
    }
    path.push(name);
    let next = edges.get(name).into_iter().flatten();
    let found = next
        .filter(|next| edges.contains_key(*next))
        .find_map(|next| circle_from(next, edges, path, done));
    path.pop();
    done.insert(name);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[(&str, &[&str])] =
        &[("low", &[]), ("high", &["low"]), ("app", &["low", "high"])];

    /// Checks made manifests, each given as name, dependencies and development dependencies.
    fn check_made(crates: &[(&str, &str, &str)]) -> Vec<String> {
        let manifests: Vec<Manifest> = crates
            .iter()
            .map(|(name, needs, dev_needs)| {
                let text = format!(
                    "[package]\nname = \"{name}\"\n[dependencies]\n{needs}\n[dev-dependencies]\n{dev_needs}\n"
                );
                Manifest {
                    is_library: *name != "app",
                    ..Manifest::parse(&text).unwrap()
                }
            })
            .collect();
        check(&manifests, TABLE)
    }

    const APP: (&str, &str, &str) = (
        "app",
        "high.workspace = true\nclap = \"4\"\nanyhow = \"1\"",
        "",
    );
    const HIGH: (&str, &str, &str) = ("high", "low = { path = \"../low\" }\nserde = \"1\"", "");
    const LOW: (&str, &str, &str) = ("low", "", "");

    #[test]
    fn the_allowed_arrows_pass() {
        assert_eq!(check_made(&[APP, HIGH, LOW]), [""; 0]);
    }

    #[test]
    fn an_arrow_that_the_table_does_not_have_is_named() {
        let low = ("low", "[dependencies.high]\nworkspace = true", "");
        let problems = check_made(&[APP, ("high", "", ""), low]);
        assert_eq!(problems, ["`low` must not depend on `high`"]);
        let renamed = (
            "low",
            "other = { package = \"app\", path = \"../app\" }",
            "",
        );
        let problems = check_made(&[("app", "", ""), HIGH, renamed]);
        assert_eq!(problems[0], "`low` must not depend on `app`");
    }

    #[test]
    fn build_and_platform_dependencies_count() {
        for table in ["build-dependencies", "target.'cfg(unix)'.dependencies"] {
            let text = format!("[package]\nname = \"low\"\n[{table}]\nhigh.workspace = true\n");
            let manifest = Manifest::parse(&text).unwrap();
            assert!(manifest.needs.contains("high"), "{table}");
        }
    }

    #[test]
    fn tests_may_reach_further_but_not_in_a_circle() {
        let low = ("low", "", "proptest = \"1\"");
        let high = ("high", "", "low.workspace = true");
        assert_eq!(check_made(&[APP, high, low]), [""; 0]);
        let low = ("low", "", "app.workspace = true");
        let problems = check_made(&[APP, HIGH, low]);
        assert_eq!(
            problems,
            [
                "crates depend on each other in a circle, tests included: `app` → `high` → `low` → `app`"
            ]
        );
    }

    #[test]
    fn a_crate_and_a_row_need_each_other() {
        let problems = check_made(&[APP, HIGH, LOW, ("new", "", "")]);
        assert!(
            problems[0].starts_with("`new` is missing from the table"),
            "{problems:?}"
        );
        let problems = check_made(&[HIGH, LOW]);
        assert_eq!(
            problems,
            ["the table of crates names `app`, which there is not"]
        );
    }

    #[test]
    fn libraries_have_no_terminal() {
        let problems = check_made(&[APP, HIGH, ("low", "anyhow = \"1\"", "clap = \"4\"")]);
        assert_eq!(
            problems,
            ["`low` is a library and must not depend on `anyhow`"]
        );
    }

    #[test]
    fn the_table_itself_has_no_circle() {
        let manifests: Vec<Manifest> = MAY_DEPEND_ON
            .iter()
            .map(|(name, may)| Manifest {
                name: (*name).to_owned(),
                needs: may.iter().map(|&needed| needed.to_owned()).collect(),
                ..Manifest::default()
            })
            .collect();
        assert_eq!(check(&manifests, MAY_DEPEND_ON), [""; 0]);
    }
}
