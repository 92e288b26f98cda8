//! The labels of one data set under the names of another: unions of labels, and labels that imply others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use crate::formats::key;
use crate::{DatasetError, Index, LabelSet, LabelState};

/// The map that is shipped.
const COMMON_18: &str = include_str!("common-18.toml");
/// No map is longer.
const MAX_BYTES: u64 = 1 << 20;

/// Labels that several data sets have under other names, as data: a TOML file.
///
/// ```toml
/// name = "mine"
/// labels = ["Effusion", "Opacity", "Edema"]
///
/// [names]                        # other names, in any data set; cases and `_` for a space do not matter
/// Effusion = ["Pleural Effusion"]
///
/// [data.padchest]                # by the name of the format, in place of the names
/// Effusion = { any = ["pleural effusion", "loculated pleural effusion"] }
/// Edema = { containing = ["edema"] }
///
/// [hierarchy]                    # an image with one of these has the label
/// Opacity = ["Edema"]
/// ```
///
/// A label with several sources is positive where one of them is, negative where all are, uncertain where one is, and
/// unknown else. A label that a data set does not have is unknown on its images, never negative. By the hierarchy a label
/// is positive where one that implies it is, and one that implies it is negative where it is negative and nothing else is
/// known.
///
/// ```
/// use cxr_dataset::{Index, LabelMap, LabelSet, LabelState, Record};
/// let labels = LabelSet::new(vec!["Pleural Effusion".to_owned()])?;
/// let index = Index::new(labels, vec![Record::new("a.png".parse()?, [LabelState::Positive])])?;
/// let mapped = LabelMap::common_18().apply(&index)?;
/// let effusion = mapped.label_set().index_of("Effusion").unwrap();
/// assert_eq!(mapped.records()[0].labels[effusion], LabelState::Positive);
/// assert_eq!(mapped.records()[0].labels[0], LabelState::Unknown);
/// # Ok::<(), cxr_dataset::DatasetError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelMap {
    name: String,
    labels: LabelSet,
    names: BTreeMap<String, Vec<String>>,
    data: BTreeMap<String, BTreeMap<String, Sources>>,
    hierarchy: BTreeMap<String, Vec<String>>,
}

/// A map's file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    labels: Vec<String>,
    #[serde(default)]
    names: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    data: BTreeMap<String, BTreeMap<String, Sources>>,
    #[serde(default)]
    hierarchy: BTreeMap<String, Vec<String>>,
}

/// Of which labels one is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Sources {
    /// Labels of these names.
    any: Vec<String>,
    /// Labels whose names contain one of these texts.
    containing: Vec<String>,
}

impl LabelMap {
    /// The eighteen labels that torchxrayvision's models share, with the names that each data set has for them.
    pub fn common_18() -> Self {
        Self::parse(COMMON_18, Path::new("common-18.toml")).unwrap_or_else(|_| Self {
            // The tests read it.
            name: "common-18".to_owned(),
            labels: LabelSet::chest_x_ray14(),
            names: BTreeMap::new(),
            data: BTreeMap::new(),
            hierarchy: BTreeMap::new(),
        })
    }

    /// The shipped map of this name (`common-18`), or the one in a file.
    ///
    /// # Errors
    /// A file that cannot be read, or as [`Self::parse`].
    pub fn open(name_or_path: &str) -> Result<Self, DatasetError> {
        if name_or_path == "common-18" {
            return Ok(Self::common_18());
        }
        Self::read(name_or_path)
    }

    /// Reads a map's file.
    ///
    /// # Errors
    /// A file that cannot be read, or as [`Self::parse`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self, DatasetError> {
        let path = path.as_ref();
        Self::parse(&cxr_fs::read_text(path, MAX_BYTES)?, path)
    }

    /// Parses a map; `path` names it in errors.
    ///
    /// # Errors
    /// [`DatasetError::Table`] for text that is no TOML, an unknown key, a label that is not among `labels`, or a hierarchy in
    /// which a label implies itself.
    pub fn parse(text: &str, path: &Path) -> Result<Self, DatasetError> {
        let wrong = |problem: String| DatasetError::table(path, problem, "correct the label map");
        let file: File = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let labels = LabelSet::new(file.labels).map_err(|error| wrong(error.to_string()))?;
        let of_data = file.data.values().flat_map(BTreeMap::keys);
        let of_hierarchy = file.hierarchy.iter();
        let of_hierarchy = of_hierarchy.flat_map(|(parent, of)| std::iter::once(parent).chain(of));
        let named = file.names.keys().chain(of_data).chain(of_hierarchy);
        for label in named {
            if labels.index_of(label).is_none() {
                let shown = cxr_table::excerpt(label);
                return Err(wrong(format!("`{shown}` is not among `labels`")));
            }
        }
        let map = Self {
            name: file.name,
            labels,
            names: file.names,
            data: file.data,
            hierarchy: file.hierarchy,
        };
        for label in map.hierarchy.keys() {
            if map.implied_by(label).contains(label.as_str()) {
                let shown = cxr_table::excerpt(label);
                return Err(wrong(format!("`{shown}` implies itself in `hierarchy`")));
            }
        }
        Ok(map)
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The labels that it maps to.
    pub fn labels(&self) -> &LabelSet {
        &self.labels
    }

    /// The label that a finding of this name is, whatever the data set: one of [`Self::labels`], or one of their other
    /// names.
    pub fn label_of(&self, name: &str) -> Option<&str> {
        let is_it = |label: &&String| {
            let others = self.names.get(*label).into_iter().flatten();
            key(label) == key(name) || others.into_iter().any(|other| key(other) == key(name))
        };
        self.labels.names().iter().find(is_it).map(String::as_str)
    }

    /// The labels of an index of which a label is made, by their places; none where its data set does not have it.
    pub fn sources(&self, index: &Index, label: &str) -> Vec<usize> {
        let names = index.label_set().names().iter().enumerate();
        let rule = (self.data.get(index.release().name())).and_then(|rules| rules.get(label));
        let is_source = |name: &str| match rule {
            Some(rule) => {
                let name = key(name);
                rule.any.iter().any(|source| key(source) == name)
                    || rule.containing.iter().any(|part| name.contains(&key(part)))
            }
            None => self.label_of(name) == Some(label),
        };
        names
            .filter(|(_, name)| is_source(name))
            .map(|(place, _)| place)
            .collect()
    }

    /// The same images with those of `labels` that the data set has: under the same name, or under another name of the
    /// same label of this map. A model's labels, say, of a data set that it was not trained on. They keep the order of
    /// `labels`.
    ///
    /// # Errors
    /// [`DatasetError::LabelSet`] where the data set has none of them.
    pub fn for_labels(&self, index: &Index, labels: &[String]) -> Result<Index, DatasetError> {
        let sources = |label: &String| {
            let own = index.label_set().index_of(label).map(|place| vec![place]);
            let mapped = || {
                let common = self.label_of(label)?;
                Some(self.sources(index, common)).filter(|sources| !sources.is_empty())
            };
            let no_finding = || {
                let place = index.label_set().no_finding()?;
                let is_it = LabelSet::new(vec![label.clone()])
                    .ok()?
                    .no_finding()
                    .is_some();
                is_it.then(|| vec![place])
            };
            let sources = own.or_else(mapped).or_else(no_finding)?;
            Some((label.clone(), sources))
        };
        let (names, sources): (Vec<String>, Vec<Vec<usize>>) =
            labels.iter().filter_map(sources).unzip();
        if names.is_empty() {
            return Err(self.no_label(index, &labels.join(", ")));
        }
        Ok(self.made_of(index, LabelSet::new(names)?, &sources, &[]))
    }

    /// The same images with these labels; boxes go by the new names, and those of other labels are left out.
    ///
    /// # Errors
    /// [`DatasetError::LabelSet`] where the data set has none of the labels.
    pub fn apply(&self, index: &Index) -> Result<Index, DatasetError> {
        let names = self.labels.names();
        let sources: Vec<Vec<usize>> = names
            .iter()
            .map(|label| self.sources(index, label))
            .collect();
        if sources.iter().all(Vec::is_empty) {
            return Err(self.no_label(index, &names.join(", ")));
        }
        Ok(self.made_of(index, self.labels.clone(), &sources, &self.hierarchy()))
    }

    fn no_label(&self, index: &Index, wanted: &str) -> DatasetError {
        DatasetError::LabelSet {
            problem: format!(
                "by the map `{}`, {} has none of the labels {wanted}; it has {}",
                self.name,
                index.release(),
                index.label_set().names().join(", ")
            ),
        }
    }

    /// The same images with labels that are made of others.
    fn made_of(
        &self,
        index: &Index,
        labels: LabelSet,
        sources: &[Vec<usize>],
        hierarchy: &[(usize, Vec<usize>)],
    ) -> Index {
        let relabel = |states: &[LabelState]| {
            let joined = |sources: &Vec<usize>| {
                let states = sources
                    .iter()
                    .filter_map(|&place| states.get(place).copied());
                states.reduce(either).unwrap_or(LabelState::Unknown)
            };
            let mut states: Vec<LabelState> = sources.iter().map(joined).collect();
            imply(hierarchy, &mut states);
            states
        };
        let names = labels.names().to_vec();
        let rename = |finding: &str| {
            let place = index.label_set().index_of(finding)?;
            let at = sources
                .iter()
                .position(|sources| sources.contains(&place))?;
            names.get(at).cloned()
        };
        index.relabelled(labels, relabel, rename)
    }

    /// The labels that imply a label, also by others.
    fn implied_by(&self, label: &str) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        let mut to_look: Vec<&str> = vec![label];
        while let Some(label) = to_look.pop() {
            for child in self.hierarchy.get(label).into_iter().flatten() {
                if found.insert(child.as_str()) {
                    to_look.push(child);
                }
            }
        }
        found
    }

    /// For each label that others imply, its place and theirs.
    fn hierarchy(&self) -> Vec<(usize, Vec<usize>)> {
        let place = |label: &str| self.labels.index_of(label);
        let of = |label: &String| {
            let children = self.implied_by(label).into_iter().filter_map(place);
            Some((place(label)?, children.collect()))
        };
        self.hierarchy.keys().filter_map(of).collect()
    }
}

/// Whether one of two findings is there: positive where one is, negative where both are, uncertain where one is, unknown
/// else; two of which one is an empty cell and the other is negative or empty too are an empty cell.
pub(crate) fn either(first: LabelState, second: LabelState) -> LabelState {
    match (first, second) {
        (LabelState::Positive, _) | (_, LabelState::Positive) => LabelState::Positive,
        (LabelState::Negative, LabelState::Negative) => LabelState::Negative,
        (LabelState::Uncertain, _) | (_, LabelState::Uncertain) => LabelState::Uncertain,
        (LabelState::Unknown, _) | (_, LabelState::Unknown) => LabelState::Unknown,
        // Negative, both of them, where empty cells are.
        (LabelState::Blank, _) | (_, LabelState::Blank) => LabelState::Blank,
    }
}

/// Positives go up the hierarchy, and negatives down to where nothing is known.
fn imply(hierarchy: &[(usize, Vec<usize>)], states: &mut [LabelState]) {
    for (parent, children) in hierarchy {
        let is_positive = |child: &usize| states.get(*child) == Some(&LabelState::Positive);
        if children.iter().any(is_positive)
            && let Some(state) = states.get_mut(*parent)
        {
            *state = LabelState::Positive;
        }
    }
    for (parent, children) in hierarchy {
        if states.get(*parent) != Some(&LabelState::Negative) {
            continue;
        }
        for child in children {
            if let Some(state @ (LabelState::Unknown | LabelState::Blank)) = states.get_mut(*child)
            {
                *state = LabelState::Negative;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ImageName, Record};

    fn index(labels: &[&str], rows: &[&[LabelState]]) -> Index {
        let labels = LabelSet::new(labels.iter().map(|&label| label.to_owned()).collect()).unwrap();
        let record = |(number, states): (usize, &&[LabelState])| {
            Record::new(ImageName::new(&format!("{number}.png")).unwrap(), *states)
        };
        Index::new(labels, rows.iter().enumerate().map(record).collect()).unwrap()
    }

    fn parse(text: &str) -> Result<LabelMap, String> {
        LabelMap::parse(text, Path::new("map.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_shipped_map_has_the_labels_of_torchxrayvision() {
        let map = LabelMap::parse(COMMON_18, Path::new("common-18.toml")).unwrap();
        assert_eq!(map, LabelMap::common_18());
        assert_eq!(map.labels().len(), 18);
        assert_eq!(map.label_of("Pleural Effusion"), Some("Effusion"));
        assert_eq!(
            map.label_of("pleural thickening"),
            Some("Pleural_Thickening")
        );
        assert_eq!(map.label_of("Airspace opacity"), Some("Lung Opacity"));
        assert_eq!(map.label_of("Support Devices"), None);
        // Every NIH finding is one of them under its own name.
        for label in crate::CHEST_X_RAY14_LABELS {
            assert_eq!(map.label_of(label), Some(label));
        }
    }

    #[test]
    fn unions_and_hierarchies_keep_what_is_unknown_unknown() {
        use LabelState::{Negative, Positive, Uncertain, Unknown};
        let map = parse(
            "name = 'm'\nlabels = ['Opacity', 'Edema', 'Airspace', 'Hernia']\n\
             [names]\nAirspace = ['pneumonia', 'consolidation']\n[hierarchy]\nOpacity = ['Edema', 'Airspace']\n",
        )
        .unwrap();
        let index = index(
            &["Opacity", "edema", "Pneumonia", "Consolidation", "Mass"],
            &[
                &[Unknown, Positive, Negative, Negative, Positive],
                &[Negative, Unknown, Uncertain, Negative, Positive],
                &[Unknown, Negative, Unknown, Negative, Positive],
                &[Negative, Negative, Unknown, Positive, Unknown],
            ],
        );
        let mapped = map.apply(&index).unwrap();
        let states: Vec<&[LabelState]> = mapped
            .records()
            .iter()
            .map(|record| &*record.labels)
            .collect();
        assert_eq!(
            states,
            [
                [Positive, Positive, Negative, Unknown],
                [Negative, Negative, Uncertain, Unknown],
                [Unknown, Negative, Unknown, Unknown],
                [Positive, Negative, Positive, Unknown],
            ]
        );
        assert_eq!(map.sources(&index, "Hernia"), Vec::<usize>::new());
    }

    #[test]
    fn a_model_s_labels_are_found_under_other_names() {
        use LabelState::{Negative, Positive, Uncertain, Unknown};
        let chexpert = index(
            &[
                "No Finding",
                "Pleural Effusion",
                "Airspace Opacity",
                "Fracture",
            ],
            &[&[Unknown, Positive, Uncertain, Negative]],
        );
        let labels = ["Hernia", "Lung Opacity", "Effusion", "Normal"].map(str::to_owned);
        let found = LabelMap::common_18()
            .for_labels(&chexpert, &labels)
            .unwrap();
        assert_eq!(
            found.label_set().names(),
            ["Lung Opacity", "Effusion", "Normal"]
        );
        assert_eq!(*found.records()[0].labels, [Uncertain, Positive, Unknown]);
        let error = LabelMap::common_18()
            .for_labels(&chexpert, &labels[..1])
            .unwrap_err();
        assert!(
            error.to_string().contains("none of the labels Hernia"),
            "{error}"
        );
    }

    #[test]
    fn a_map_that_contradicts_itself_is_refused() {
        for (text, problem) in [
            ("labels = ['a']", "missing field `name`"),
            ("name = 'm'\nlabels = []", "at least one label"),
            (
                "name = 'm'\nlabels = ['a']\n[names]\nb = ['x']",
                "`b` is not among `labels`",
            ),
            (
                "name = 'm'\nlabels = ['a', 'b']\n[hierarchy]\na = ['b']\nb = ['a']",
                "implies itself",
            ),
            (
                "name = 'm'\nlabels = ['a']\n[data.chexpert]\na = { each = ['x'] }",
                "unknown field",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(problem), "{error} lacks {problem}");
        }
        let none = LabelMap::common_18().apply(&index(&["Device"], &[&[LabelState::Positive]]));
        assert!(none.unwrap_err().to_string().contains("none of the labels"));
    }
}
