//! Keys of experiment files that had another name in earlier versions.

/// The keys of an experiment file that are old, each with its new name.
pub(super) fn of(text: &str) -> Vec<(String, &'static str)> {
    let table: toml::Table = toml::from_str(text).unwrap_or_default();
    let mut found = Vec::new();
    let has_top = table.get("model").and_then(|model| model.get("top"));
    if has_top.is_some() {
        found.push(("model.top".to_owned(), "model.head.top-network"));
    }
    found
}
