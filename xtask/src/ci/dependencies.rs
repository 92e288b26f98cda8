//! What a crate never links, neither itself nor through others: read from `cargo metadata`.

use std::collections::{BTreeMap, VecDeque};

use anyhow::Context;
use serde::Deserialize;

/// Packages that a crate's own code must not bring in. A name that ends in `-` stands for all that
/// begin with it.
const NEVER: &[(&str, &[&str])] = &[
    ("cxr-metrics", &["candle-", "image", "csv"]),
    ("cxr-losses", &["candle-nn", "image", "csv"]),
    ("cxr-dataset", &["candle-", "rand", "ureq"]),
    ("cxr-phantom", &["candle-", "rand", "ureq"]),
    ("cxr-augment", &["candle-", "image", "rand"]),
    ("cxr-train", &["clap", "ureq", "indicatif", "signal-hook"]),
    ("cxr-run", &["candle-", "clap", "ureq"]),
    ("cxr-report", &["candle-", "ureq"]),
    ("cxr-model", &["clap", "ureq", "indicatif", "signal-hook"]),
    ("cxr-hub", &["candle-", "image"]),
    ("cxr-pickle", &["candle-", "image", "ureq"]),
    ("cxr-exchange", &["clap", "ureq", "tract-"]),
    ("xtask", &["candle-"]),
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    /// `dev`, `build`, or nothing for a normal dependency.
    kind: Option<String>,
}

/// Takes what `cargo metadata` writes.
pub(super) fn problems(metadata: &str) -> anyhow::Result<Vec<String>> {
    check(metadata, NEVER)
}

fn check(metadata: &str, never: &[(&str, &[&str])]) -> anyhow::Result<Vec<String>> {
    let metadata: Metadata =
        serde_json::from_str(metadata).context("`cargo metadata` writes another format")?;
    let names: BTreeMap<&str, &str> = metadata
        .packages
        .iter()
        .map(|package| (package.id.as_str(), package.name.as_str()))
        .collect();
    let needs: BTreeMap<&str, Vec<&str>> = metadata
        .resolve
        .nodes
        .iter()
        .map(|node| {
            let normal = node.deps.iter().filter(|dependency| dependency.is_normal());
            let ids = normal.map(|dependency| dependency.pkg.as_str());
            (node.id.as_str(), ids.collect())
        })
        .collect();
    let mut problems = Vec::new();
    for (name, forbidden) in never {
        let Some((start, _)) = names.iter().find(|(_, other)| *other == name) else {
            problems.push(format!("expected a package `{name}`, found none"));
            continue;
        };
        for path in shortest_paths(start, &needs) {
            let path: Vec<&str> = path
                .iter()
                .filter_map(|id| names.get(id).copied())
                .collect();
            let is_forbidden = |package: &&str| forbidden.iter().any(|rule| matches(rule, package));
            if path.last().is_some_and(is_forbidden) {
                problems.push(format!(
                    "`{name}` must never link that: `{}`",
                    path.join("` → `")
                ));
            }
        }
    }
    Ok(problems)
}

impl Dependency {
    fn is_normal(&self) -> bool {
        self.dep_kinds.iter().any(|kind| kind.kind.is_none())
    }
}

fn matches(rule: &str, package: &str) -> bool {
    if rule.ends_with('-') {
        package.starts_with(rule)
    } else {
        package == rule
    }
}

/// To every package below `start`, one shortest way.
fn shortest_paths<'a>(
    start: &'a str,
    needs: &BTreeMap<&'a str, Vec<&'a str>>,
) -> Vec<Vec<&'a str>> {
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut waiting = VecDeque::from([start]);
    let mut order = Vec::new();
    while let Some(id) = waiting.pop_front() {
        for &next in needs.get(id).into_iter().flatten() {
            if next != start && !came_from.contains_key(next) {
                came_from.insert(next, id);
                waiting.push_back(next);
                order.push(next);
            }
        }
    }
    let path_to = |end: &'a str| {
        let mut path = vec![end];
        let mut at = end;
        while let Some(&from) = came_from.get(at) {
            path.push(from);
            at = from;
        }
        path.reverse();
        path
    };
    order.into_iter().map(path_to).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Metadata of packages `a` … whose dependencies are given as (from, to, kind).
    fn made(edges: &[(&str, &str, Option<&str>)]) -> String {
        let mut names: Vec<&str> = edges.iter().flat_map(|&(from, to, _)| [from, to]).collect();
        names.sort_unstable();
        names.dedup();
        let packages: Vec<_> = names
            .iter()
            .map(|name| serde_json::json!({"id": format!("path+{name}"), "name": name}))
            .collect();
        let node = |name: &str| {
            let of_name = edges.iter().filter(|(from, _, _)| *from == name);
            let deps: Vec<_> = of_name
                .map(|(_, to, kind)| {
                    serde_json::json!({"pkg": format!("path+{to}"), "dep_kinds": [{"kind": kind, "target": null}]})
                })
                .collect();
            serde_json::json!({"id": format!("path+{name}"), "deps": deps})
        };
        let nodes: Vec<_> = names.iter().map(|name| node(name)).collect();
        serde_json::json!({"packages": packages, "resolve": {"nodes": nodes}}).to_string()
    }

    const RULE: &[(&str, &[&str])] = &[("ours", &["candle-", "image"])];

    #[test]
    fn a_forbidden_package_is_found_with_the_way_to_it() {
        let metadata = made(&[
            ("ours", "serde", None),
            ("ours", "middle", None),
            ("middle", "candle-core", None),
            ("middle", "imageproc", None),
        ]);
        assert_eq!(
            check(&metadata, RULE).unwrap(),
            ["`ours` must never link that: `ours` → `middle` → `candle-core`"]
        );
    }

    #[test]
    fn tests_and_build_scripts_may_link_it() {
        let metadata = made(&[
            ("ours", "image", Some("dev")),
            ("ours", "candle-core", Some("build")),
        ]);
        assert_eq!(check(&metadata, RULE).unwrap(), [""; 0]);
    }

    #[test]
    fn circles_through_tests_of_others_end() {
        let metadata = made(&[("ours", "b", None), ("b", "c", None), ("c", "b", None)]);
        assert_eq!(check(&metadata, RULE).unwrap(), [""; 0]);
    }

    #[test]
    fn a_rule_about_no_package_is_a_problem() {
        let metadata = made(&[("other", "b", None)]);
        assert_eq!(
            check(&metadata, RULE).unwrap(),
            ["expected a package `ours`, found none"]
        );
    }
}
