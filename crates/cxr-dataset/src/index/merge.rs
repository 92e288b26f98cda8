//! Several data sets as one index.

use std::collections::HashMap;

use super::{Index, Release};
use crate::label_map::either;
use crate::{DatasetError, ImageName, LabelSet, LabelState, PatientId, Record, StudyId};

/// One of several data sets that [`Index::merge`] makes one of, and what is called otherwise there.
#[derive(Clone, Debug)]
pub struct MergeSource<'a> {
    index: &'a Index,
    folder: Option<String>,
    patient_prefix: Option<String>,
    /// By the source's own names; `None` for a label that is left out.
    labels: HashMap<String, Option<String>>,
}

impl<'a> MergeSource<'a> {
    /// A data set as it is.
    pub fn new(index: &'a Index) -> Self {
        Self {
            index,
            folder: None,
            patient_prefix: None,
            labels: HashMap::new(),
        }
    }

    /// Its images are called `folder/name`, as they are found below the folder that holds this folder: for data sets
    /// whose images have the same names.
    #[must_use]
    pub fn in_folder(self, folder: &str) -> Self {
        Self {
            folder: Some(folder.to_owned()),
            ..self
        }
    }

    /// What the identities of its patients and studies begin with: number 17 of this data set is not number 17 of another. An empty prefix
    /// says that equal identities are one patient, as in two tables of one hospital.
    #[must_use]
    pub fn patient_prefix(self, prefix: &str) -> Self {
        Self {
            patient_prefix: Some(prefix.to_owned()),
            ..self
        }
    }

    /// Its label `from` is called `to`. Labels that get one name become one: positive where one of them is, negative where
    /// all are, uncertain where one is, unknown else.
    #[must_use]
    pub fn rename_label(mut self, from: &str, to: &str) -> Self {
        self.labels.insert(from.to_owned(), Some(to.to_owned()));
        self
    }

    /// Its label `name` is left out.
    #[must_use]
    pub fn without_label(mut self, name: &str) -> Self {
        self.labels.insert(name.to_owned(), None);
        self
    }

    /// The new name of each of its labels, in its order; `None` for those that are left out.
    fn label_names(&self) -> Result<Vec<Option<&str>>, DatasetError> {
        let own = self.index.label_set();
        if let Some(unknown) = self.labels.keys().find(|name| own.index_of(name).is_none()) {
            return Err(DatasetError::LabelSet {
                problem: format!(
                    "`{}` is to be renamed or left out; the data set has the labels {}",
                    cxr_table::excerpt(unknown),
                    own.names().join(", ")
                ),
            });
        }
        let name_of =
            |name: &'a String| (self.labels.get(name)).map_or(Some(&**name), |to| to.as_deref());
        Ok(own.names().iter().map(name_of).collect())
    }

    /// A record by the names of the merged index; `places` are those of its labels there.
    fn record(
        &self,
        record: &Record,
        places: &[Option<usize>],
        n_labels: usize,
    ) -> Result<Record, DatasetError> {
        let mut labels: Vec<Option<LabelState>> = vec![None; n_labels];
        for (state, place) in record.labels.iter().zip(places) {
            if let Some(label) = place.and_then(|place| labels.get_mut(place)) {
                *label = Some(label.map_or(*state, |other| either(other, *state)));
            }
        }
        let labels: Vec<LabelState> = (labels.into_iter())
            .map(|state| state.unwrap_or(LabelState::Unknown))
            .collect();
        let name = match &self.folder {
            None => record.name.clone(),
            Some(folder) => ImageName::new(&format!("{folder}/{}", record.name))?,
        };
        let patient = match (&record.patient, self.patient_prefix.as_deref()) {
            (Some(patient), Some(prefix)) => Some(PatientId::new(&format!("{prefix}{patient}"))?),
            (patient, _) => patient.clone(),
        };
        let study = match (&record.study, self.patient_prefix.as_deref()) {
            (Some(study), Some(prefix)) => Some(StudyId::new(&format!("{prefix}{study}"))?),
            (study, _) => study.clone(),
        };
        Ok(Record {
            name,
            patient,
            study,
            labels: labels.into(),
            ..record.clone()
        })
    }
}

impl Index {
    /// One index of several: the images of all, in the order of `sources`, and the labels of all, in the order in which
    /// they occur first. A label that a data set does not have is unknown on its images.
    ///
    /// ```
    /// use cxr_dataset::{Index, LabelSet, LabelState, MergeSource, Record};
    ///
    /// let index = |labels: [&str; 2]| {
    ///     let labels = LabelSet::new(labels.map(str::to_owned).to_vec())?;
    ///     let states = [LabelState::Positive, LabelState::Negative];
    ///     Index::new(labels, vec![Record::new("1.png".parse()?, states)])
    /// };
    /// let (nih, chexpert) = (index(["Effusion", "Mass"])?, index(["Edema", "Pleural Effusion"])?);
    /// let merged = Index::merge(&[
    ///     MergeSource::new(&nih).in_folder("nih"),
    ///     MergeSource::new(&chexpert).in_folder("chexpert").rename_label("Pleural Effusion", "Effusion"),
    /// ])?;
    /// assert_eq!(merged.label_set().names(), ["Effusion", "Mass", "Edema"]);
    /// let second = &merged.records()[1];
    /// assert_eq!(second.name.as_str(), "chexpert/1.png");
    /// assert_eq!(second.labels[..], [LabelState::Negative, LabelState::Unknown, LabelState::Positive]);
    /// # Ok::<(), cxr_dataset::DatasetError>(())
    /// ```
    ///
    /// # Errors
    /// An image that two data sets have; a patient that two have, unless each says by
    /// [`patient_prefix`](MergeSource::patient_prefix) whose it is; a label to rename that there is not; no label.
    pub fn merge(sources: &[MergeSource<'_>]) -> Result<Self, DatasetError> {
        let of_sources = sources.iter().map(MergeSource::label_names);
        let of_sources: Vec<Vec<Option<&str>>> = of_sources.collect::<Result<_, _>>()?;
        let mut names: Vec<String> = Vec::new();
        for name in of_sources.iter().flatten().flatten() {
            if !names.iter().any(|known| known == name) {
                names.push((*name).to_owned());
            }
        }
        let label_set = LabelSet::new(names)?;
        let mut records = Vec::new();
        // The source in which a patient occurs first.
        let mut patients: HashMap<PatientId, usize> = HashMap::new();
        for (number, (source, names)) in sources.iter().zip(&of_sources).enumerate() {
            let place = |name: &Option<&str>| name.and_then(|name| label_set.index_of(name));
            let places: Vec<Option<usize>> = names.iter().map(place).collect();
            for record in source.index.records() {
                let record = source.record(record, &places, label_set.len())?;
                if let Some(patient) = &record.patient {
                    let first = *patients.entry(patient.clone()).or_insert(number);
                    let is_said = |number: usize| {
                        sources
                            .get(number)
                            .is_some_and(|source| source.patient_prefix.is_some())
                    };
                    if first != number && !(is_said(first) && is_said(number)) {
                        return Err(DatasetError::Record {
                            name: record.name.to_string(),
                            problem: format!(
                                "its patient `{patient}` is in another data set too; give the patients of each \
                                 a `patient_prefix`, an empty one where it is the same person"
                            ),
                        });
                    }
                }
                records.push(record);
            }
        }
        let mut merged = Self::new(label_set, records)?;
        merged.release = Release::SEVERAL;
        for source in sources {
            merged.tables.extend(source.index.tables().iter().cloned());
        }
        Ok(merged)
    }
}
