//! The report's page, opened and used as a reader would.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use cxr_terminal::{say, tell};
use serde_json::Value;

use super::Arguments;
use super::browser::{Browser, find};
use crate::workspace::{Workspace, absolute};
use cxr_terminal::{Ending, Interrupt};

/// Width, height, whether dark, and the name of the picture that is kept.
const WINDOWS: [(u32, u32, bool, &str); 4] = [
    (1280, 900, false, "report-desktop"),
    (1280, 900, true, "report-desktop-dark"),
    (390, 844, false, "report-phone"),
    (390, 844, true, "report-phone-dark"),
];

pub(super) fn check(
    workspace: &Workspace,
    interrupt: &Interrupt,
    arguments: &Arguments,
) -> anyhow::Result<Ending> {
    let Some(program) = find(arguments.chromium.as_deref()) else {
        say!(
            "error: no Chromium in the PATH: the page was NOT checked\nhint: install one (Debian: `apt-get install chromium`), or name it with `--chromium FILE`"
        );
        return Ok(Ending::Failed);
    };
    let report = match &arguments.report {
        Some(report) => absolute(report)?,
        None => match made(workspace, interrupt)? {
            Ok(report) => report,
            Err(ending) => return Ok(ending),
        },
    };
    if !report.is_file() {
        bail!("expected a page at `{}`, found none", report.display());
    }
    tell!("   {} opens {}", program.display(), report.display());
    let mut browser = Browser::start(&program)?;
    let mut problems = Vec::new();
    for (width, height, is_dark, name) in WINDOWS {
        let colours = if is_dark { "dark" } else { "light" };
        let mut found = Vec::new();
        browser.resize(width, height, is_dark)?;
        let address = browser.open(&report)?;
        if let Some(folder) = &arguments.screenshots {
            keep(&mut browser, folder, name)?;
        }
        found.extend(layout(&mut browser, width)?);
        found.extend(contrast(&mut browser, is_dark)?);
        found.extend(figures(&mut browser)?);
        found.extend(sorting(&mut browser)?);
        found.extend(pointing(&mut browser)?);
        found.extend(browser.complaints(&address));
        tell!(
            "   {width}×{height} {colours}: {}",
            match found.len() {
                0 => "well".to_owned(),
                n => format!("{n} problems"),
            }
        );
        problems.extend(
            found
                .into_iter()
                .map(|problem| format!("{width} {colours}: {problem}")),
        );
    }
    for problem in &problems {
        say!("error: {problem}");
    }
    Ok(match problems.len() {
        0 => Ending::Done,
        _ => Ending::Failed,
    })
}

/// A report of runs that are made from formulas.
fn made(workspace: &Workspace, interrupt: &Interrupt) -> anyhow::Result<Result<PathBuf, Ending>> {
    let folder = workspace.root().join("target").join("verify").join("made");
    let mut command = workspace.cargo();
    command
        .args([
            "run",
            "--quiet",
            "--package",
            "cxr-report",
            "--example",
            "made_report",
            "--",
        ])
        .arg(&folder);
    let (ended, _) = interrupt.output(&mut command)?;
    Ok(match ended.ending {
        Ending::Done => Ok(folder.join("report.html")),
        other => Err(other),
    })
}

fn keep(browser: &mut Browser, folder: &Path, name: &str) -> anyhow::Result<()> {
    let path = folder.join(format!("{name}.png"));
    let picture = browser.screenshot()?;
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&path, picture))
        .with_context(|| format!("cannot write `{}`", path.display()))
}

/// Nothing is wider than the window, and everything that is to be there is.
fn layout(browser: &mut Browser, width: u32) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    let widest = browser.evaluate("document.documentElement.scrollWidth")?;
    if widest.as_u64().is_none_or(|widest| widest > width.into()) {
        problems.push(format!(
            "the page is {widest} pixels wide: it scrolls sideways"
        ));
    }
    for (selector, least) in [("h1", 1), ("#summary", 1), ("table", 3), ("nav a", 4)] {
        let n = browser.evaluate(&format!("document.querySelectorAll('{selector}').length"))?;
        if n.as_u64().is_none_or(|n| n < least) {
            problems.push(format!(
                "expected at least {least} of `{selector}`, got {n}"
            ));
        }
    }
    let dead = browser.evaluate(
        "[...document.querySelectorAll('nav a')].map(a => a.hash.slice(1)).filter(id => !document.getElementById(decodeURIComponent(id)))",
    )?;
    for name in texts(&dead) {
        problems.push(format!("a link leads to no section: `{name}`"));
    }
    Ok(problems)
}

/// The colours are those that were asked for, and text can be read (WCAG 2, contrast at least 4.5).
fn contrast(browser: &mut Browser, is_dark: bool) -> anyhow::Result<Vec<String>> {
    const LEAST: f64 = 4.5;
    let colours = browser.evaluate(
        "(() => { const backdrop = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (c !== 'rgba(0, 0, 0, 0)') return c; } return 'rgb(255, 255, 255)'; };
         return [...document.querySelectorAll('body, .warning, #summary, figcaption, td small, nav a, pre, .download')].map(e => [e.tagName + '.' + e.className, getComputedStyle(e).color, backdrop(e)]); })()",
    )?;
    let mut problems = Vec::new();
    for (place, entry) in colours.as_array().into_iter().flatten().enumerate() {
        let name = entry[0].as_str().unwrap_or_default();
        let luminance = |at: usize| entry[at].as_str().and_then(luminance);
        let (Some(ink), Some(ground)) = (luminance(1), luminance(2)) else {
            problems.push(format!("no colours of `{name}`: {entry}"));
            continue;
        };
        let ratio = (ink.max(ground) + 0.05) / (ink.min(ground) + 0.05);
        if ratio < LEAST {
            problems.push(format!(
                "text of `{name}` has a contrast of {ratio:.1}: {entry}"
            ));
        }
        if place == 0 && (ground < ink) != is_dark {
            problems.push(format!(
                "the page is not {}: {entry}",
                if is_dark { "dark" } else { "light" }
            ));
        }
    }
    problems.dedup();
    Ok(problems)
}

/// Relative luminance of a computed colour such as `rgb(1, 2, 3)`.
fn luminance(colour: &str) -> Option<f64> {
    let inside = colour.split_once('(')?.1.trim_end_matches(')');
    let channels: Vec<f64> = inside
        .split(',')
        .take(3)
        .map(|channel| channel.trim().parse().ok())
        .collect::<Option<_>>()?;
    let linear = |channel: f64| {
        let share = channel / 255.0;
        if share <= 0.04045 {
            share / 12.92
        } else {
            ((share + 0.055) / 1.055).powf(2.4)
        }
    };
    match channels[..] {
        [red, green, blue] => {
            Some(0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue))
        }
        _ => None,
    }
}

/// Every figure has a size, shapes in it, and pictures that could be decoded.
fn figures(browser: &mut Browser) -> anyhow::Result<Vec<String>> {
    let found = browser.evaluate(
        "Promise.all([...document.images].map(i => i.decode().catch(() => {}))).then(() => [
           ...[...document.querySelectorAll('svg.drawing')].map(svg => {
             const box = svg.getBoundingClientRect();
             const shapes = [...svg.querySelectorAll('path, rect, circle, image, line')].filter(e => { const b = e.getBBox(); return b.width + b.height > 0; });
             return [svg.closest('figure').id, box.width, box.height, shapes.length];
           }),
           ...[...document.images].map(i => [i.alt, i.naturalWidth, i.naturalHeight, i.complete ? 3 : 0]),
         ])",
    )?;
    let found = found.as_array().cloned().unwrap_or_default();
    let mut problems = Vec::new();
    if !found.iter().any(|figure| figure[0] == "figure1") {
        problems.push("Figure 1, which every report has, is not there".to_owned());
    }
    for figure in found {
        let number = |at: usize| figure[at].as_f64().unwrap_or(0.0);
        if number(1) < 50.0 || number(2) < 50.0 || number(3) < 3.0 {
            problems.push(format!("not drawn: {figure}"));
        }
    }
    Ok(problems)
}

/// A click on a heading sorts by its column, a second one the other way round, and the rows below the
/// line stay where they are.
fn sorting(browser: &mut Browser) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    let n_tables = browser.evaluate("document.querySelectorAll('table').length")?;
    for table in 0..n_tables.as_u64().unwrap_or(0) {
        let cells = |browser: &mut Browser,
                     part: &str,
                     column: u64|
         -> anyhow::Result<Vec<String>> {
            let value = browser.evaluate(&format!(
                "[...document.querySelectorAll('table')[{table}].querySelectorAll('{part} tr')].map(row => row.cells[{column}].textContent.trim())"
            ))?;
            Ok(texts(&value))
        };
        let n_columns = browser.evaluate(&format!(
            "document.querySelectorAll('table')[{table}].tHead.rows[0].cells.length"
        ))?;
        let feet = cells(browser, "tfoot", 0)?;
        for column in 0..n_columns.as_u64().unwrap_or(0) {
            let before = cells(browser, "tbody", column)?;
            for is_second in [false, true] {
                let place = browser.evaluate(&format!(
                    "(() => {{ const b = document.querySelectorAll('table')[{table}].tHead.rows[0].cells[{column}].querySelector('button'); b.scrollIntoView({{block: 'center', inline: 'center', behavior: 'instant'}}); const r = b.getBoundingClientRect(); return [r.left + r.width / 2, r.top + r.height / 2]; }})()"
                ))?;
                let at = |end: usize| place[end].as_f64().unwrap_or(0.0);
                browser.click(at(0), at(1))?;
                let after = cells(browser, "tbody", column)?;
                let is_ascending = (column == 0) != is_second;
                if let Some(problem) = unsorted(&before, &after, column == 0, is_ascending) {
                    problems.push(format!("table {table}, column {column}: {problem}"));
                }
            }
        }
        if cells(browser, "tfoot", 0)? != feet {
            problems.push(format!("table {table}: its last rows moved"));
        }
    }
    Ok(problems)
}

/// What is wrong with a sorted column, if anything.
fn unsorted(
    before: &[String],
    after: &[String],
    is_text: bool,
    is_ascending: bool,
) -> Option<String> {
    let (mut a, mut b) = (before.to_vec(), after.to_vec());
    a.sort();
    b.sort();
    if a != b {
        return Some(format!("sorting changed the cells {before:?} to {after:?}"));
    }
    if is_text {
        // The browser's order of letters is its own; that it is one way round is checked.
        let (Some(first), Some(last)) = (after.first(), after.last()) else {
            return None;
        };
        let key = |text: &String| text.to_lowercase();
        let is_right = match is_ascending {
            true => key(first) <= key(last),
            false => key(first) >= key(last),
        };
        return (!is_right).then(|| format!("not in order: {after:?}"));
    }
    let is_figure = |text: &String| {
        let ends = |c: char| c.is_whitespace() || "%(".contains(c);
        let word = text.split(ends).next().unwrap_or_default();
        let is_part = |c: char| c.is_ascii_digit() || ".,+−".contains(c);
        word.chars().all(is_part) && word.matches('.').count() <= 1
    };
    if !after.iter().all(|text| text == "–" || is_figure(text)) {
        // Words, in the browser's order of letters.
        return None;
    }
    let numbers: Vec<Option<f64>> = after.iter().map(|text| leading_number(text)).collect();
    let defined: Vec<f64> = numbers.iter().copied().flatten().collect();
    if defined.is_empty() {
        return None;
    }
    let is_right = defined.windows(2).all(|pair| match is_ascending {
        true => pair[0] <= pair[1],
        false => pair[0] >= pair[1],
    });
    let undefined_last = numbers.iter().skip(defined.len()).all(Option::is_none);
    (!(is_right && undefined_last)).then(|| format!("not in order: {after:?}"))
}

/// The number that a cell begins with, read without the page's help.
fn leading_number(text: &str) -> Option<f64> {
    let text = text.replace(',', "").replace('−', "-");
    let text = text.strip_prefix('+').unwrap_or(&text);
    let end = text
        .char_indices()
        .find(|&(at, c)| !(c.is_ascii_digit() || c == '.' || at == 0 && c == '-'))
        .map_or(text.len(), |(at, _)| at);
    text.get(..end)?.trim_end_matches('.').parse().ok()
}

/// A curve that is pointed at, and an entry of the legend, stand out and say what they are.
fn pointing(browser: &mut Browser) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    let curves = browser.evaluate(
        "[...document.querySelectorAll('.roc')].map(curve => [curve.dataset.at, curve.dataset.about])",
    )?;
    let curves = curves.as_array().cloned().unwrap_or_default();
    let mut n_reached = 0;
    for curve in &curves {
        let at = curve[0].as_str().unwrap_or_default();
        let about = curve[1].as_str().unwrap_or_default();
        // A place of the curve that no other curve covers, then one of its entry in the legend.
        let on_curve = format!(
            "(() => {{ const svg = document.querySelector('.roc').closest('svg'); svg.scrollIntoView({{block: 'center', behavior: 'instant'}});
               const hit = document.querySelector('.roc[data-at=\"{at}\"] .hit'); svg.parentElement.scrollLeft = 0;
               const length = hit.getTotalLength();
               for (let n = 1; n < 400; n++) {{
                 const p = hit.getPointAtLength(length * n / 400).matrixTransform(hit.getScreenCTM());
                 if (document.elementFromPoint(p.x, p.y) === hit) return [p.x, p.y];
               }}
               return null; }})()"
        );
        let on_key = format!(
            "(() => {{ const key = document.querySelector('.roc-key[data-at=\"{at}\"]'); key.scrollIntoView({{block: 'center', inline: 'center', behavior: 'instant'}}); const r = key.getBoundingClientRect(); return [r.left + r.width / 2, r.top + r.height / 2]; }})()"
        );
        for (what, expression) in [("curve", on_curve), ("legend", on_key)] {
            let place = browser.evaluate(&expression)?;
            let (Some(x), Some(y)) = (place[0].as_f64(), place[1].as_f64()) else {
                continue;
            };
            n_reached += usize::from(what == "curve");
            browser.point_at(x, y)?;
            let shown = browser.evaluate(
                "[document.querySelector('.roc').closest('figure').querySelector('.readout').textContent, [...document.querySelectorAll('.roc.is-chosen')].map(c => c.dataset.at).join(' ')]",
            )?;
            let text = shown[0].as_str().unwrap_or_default();
            if !text.starts_with(about) || shown[1] != curve[0] {
                problems.push(format!("pointing at the {what} of `{about}` shows {shown}"));
            }
        }
    }
    // Curves lie on each other; most have a place of their own.
    if 2 * n_reached < curves.len() {
        problems.push(format!(
            "only {n_reached} of {} curves can be pointed at",
            curves.len()
        ));
    }
    browser.point_at(1.0, 1.0)?;
    Ok(problems)
}

fn texts(value: &Value) -> Vec<String> {
    let texts = value.as_array().into_iter().flatten();
    texts
        .filter_map(|text| text.as_str().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_cells_are_read_as_shown() {
        for (text, expected) in [
            ("0.8045 (0.79–0.82)", Some(0.8045)),
            ("−0.0123 (p 0.5)", Some(-0.0123)),
            ("+0.01", Some(0.01)),
            ("1,200", Some(1200.0)),
            ("12.0 s", Some(12.0)),
            ("–", None),
            ("bce", None),
        ] {
            assert_eq!(leading_number(text), expected, "{text}");
        }
    }

    #[test]
    fn a_column_out_of_order_is_found() {
        let cells =
            |texts: &[&str]| -> Vec<String> { texts.iter().map(|&t| t.to_owned()).collect() };
        let before = cells(&["0.1", "–", "0.3"]);
        let sorted = cells(&["0.3", "0.1", "–"]);
        assert_eq!(unsorted(&before, &sorted, false, false), None);
        assert!(unsorted(&before, &sorted, false, true).is_some());
        assert!(unsorted(&before, &cells(&["–", "0.3", "0.1"]), false, false).is_some());
        assert!(unsorted(&before, &cells(&["0.3", "0.3", "–"]), false, false).is_some());
        let words = cells(&["0.1.0", "97fa", "2"]);
        assert_eq!(
            unsorted(&words, &words, false, true),
            None,
            "a column of words"
        );
    }

    #[test]
    fn luminance_is_that_of_wcag() {
        assert_eq!(luminance("rgb(255, 255, 255)"), Some(1.0));
        assert_eq!(luminance("rgb(0, 0, 0)"), Some(0.0));
        let grey = luminance("rgb(119, 119, 119)").unwrap();
        // WCAG's example: #777 on white has 4.48 to 1.
        assert!((1.05 / (grey + 0.05) - 4.48).abs() < 0.005);
        assert_eq!(luminance("none"), None);
    }
}
