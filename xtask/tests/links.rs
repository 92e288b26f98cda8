//! Every link of every page leads somewhere: to a file or folder of the repository, and to a heading where it names one.
//! Links to other places are not followed.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// What a page has: the fragments of its headings, and its links with their lines.
#[derive(Default)]
struct Page {
    fragments: BTreeSet<String>,
    links: Vec<(usize, String)>,
}

/// A heading's fragment as GitHub makes it; a second one of the same text has a number.
fn fragment(heading: &str, earlier: &BTreeSet<String>) -> String {
    let kept = heading.to_lowercase();
    let kept = kept
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    let name: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
    let numbered = (1..).map(|at| format!("{name}-{at}"));
    let mut names = std::iter::once(name.clone()).chain(numbered);
    names.find(|name| !earlier.contains(name)).unwrap()
}

fn read(text: &str) -> Page {
    let mut page = Page::default();
    let mut heading: Option<String> = None;
    let line = |at: usize| text[..at].matches('\n').count() + 1;
    for (event, range) in Parser::new_ext(text, Options::all()).into_offset_iter() {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let name = fragment(&heading.take().unwrap(), &page.fragments);
                page.fragments.insert(name);
            }
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
            }
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                page.links.push((line(range.start), dest_url.into_string()));
            }
            Event::Html(html) | Event::InlineHtml(html) => {
                for attribute in ["src=\"", "href=\""] {
                    for rest in html.split(attribute).skip(1) {
                        let link = rest.split('"').next().unwrap();
                        page.links.push((line(range.start), link.to_owned()));
                    }
                }
            }
            _ => {}
        }
    }
    page
}

/// Without `.` and `..`, so that one page has one name.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // What builds and runs have left.
        if path.is_dir() && !name.starts_with("target") && !["runs", ".git"].contains(&&*name) {
            pages(&path, found);
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}

#[test]
fn links_lead_somewhere() {
    let root = plain(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    let mut paths = Vec::new();
    pages(&root, &mut paths);
    let pages: BTreeMap<PathBuf, Page> = paths
        .into_iter()
        .map(|path| {
            let page = read(&std::fs::read_to_string(&path).unwrap());
            (path, page)
        })
        .collect();
    assert!(pages.len() > 30 && pages.values().map(|page| page.links.len()).sum::<usize>() > 100);
    let mut broken = Vec::new();
    for (path, page) in &pages {
        for (line, link) in &page.links {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                file => plain(&path.parent().unwrap().join(file)),
            };
            // A crate's page is also rustdoc's, where a link may be an item.
            let is_item = link.contains("::") || !(link.contains(['/', '.', '#']));
            let has_fragment = || {
                let page = pages.get(&target);
                page.is_none_or(|page| page.fragments.contains(fragment))
            };
            let is_there = target.exists() && (fragment.is_empty() || has_fragment());
            if !is_there && !is_item {
                let path = path.strip_prefix(&root).unwrap().display();
                broken.push(format!("{path}, line {line}: {link}"));
            }
        }
    }
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

#[test]
fn headings_and_links_are_found() {
    let page = read("# A `b`: c, d\n\n# A b: c d\n\nSee [x](y.md#z)\nand <img src=\"p.png\">.\n");
    let fragments: Vec<&str> = page.fragments.iter().map(String::as_str).collect();
    assert_eq!(fragments, ["a-b-c-d", "a-b-c-d-1"]);
    assert_eq!(
        page.links,
        [(5, "y.md#z".to_owned()), (6, "p.png".to_owned())]
    );
}
