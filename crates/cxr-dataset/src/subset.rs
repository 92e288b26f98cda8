//! Which images of a data set an experiment wants.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{DatasetError, LabelSet, LabelState, Record, Sex, ViewPosition};

/// Conditions that an image must meet, all of them; without any, every image does.
///
/// [`Split::select`](crate::Split::select) applies it, after the split is made, and counts what it
/// takes out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Subset {
    /// Taken in this direction, as [`ViewPosition::is`] says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub view: Option<ViewPosition>,
    /// At least this old, in years.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_age: Option<u16>,
    /// At most this old, in years.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<u16>,
    /// Of this sex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sex: Option<Sex>,
    /// With this finding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finding: Option<String>,
}

impl Subset {
    /// Whether it has no condition: every image is in it.
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the image meets every condition.
    ///
    /// # Errors
    /// [`DatasetError::Split`] for a finding outside `label_set`, or a condition on something that
    /// the record does not state: such an image is neither in nor out.
    pub fn contains(&self, record: &Record, label_set: &LabelSet) -> Result<bool, DatasetError> {
        let unknown = |fact: &str| DatasetError::Split {
            problem: format!("the {fact} of `{}` is not known", record.name),
            repair: format!("state the {fact} in the table, or leave that condition out"),
        };
        let mut contains = true;
        if let Some(view) = self.view {
            contains &= record
                .view
                .ok_or_else(|| unknown("view position"))?
                .is(view);
        }
        if let Some(sex) = self.sex {
            contains &= record.sex.ok_or_else(|| unknown("sex"))? == sex;
        }
        if self.min_age.is_some() || self.max_age.is_some() {
            let age = record.age_years.ok_or_else(|| unknown("age"))?;
            contains &= self.min_age.is_none_or(|least| age >= least);
            contains &= self.max_age.is_none_or(|most| age <= most);
        }
        if let Some(finding) = &self.finding {
            let state = label_set
                .index_of(finding)
                .and_then(|position| record.labels.get(position));
            contains &= match state {
                Some(state) => *state == LabelState::Positive,
                None => {
                    return Err(DatasetError::Split {
                        problem: format!("`{finding}` is none of the labels"),
                        repair: format!("take one of {}", label_set.names().join(", ")),
                    });
                }
            };
        }
        Ok(contains)
    }
}

impl fmt::Display for Subset {
    /// The conditions in words, such as `view PA, at least 18 years`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conditions = [
            self.view.map(|view| format!("view {view}")),
            self.min_age.map(|least| format!("at least {least} years")),
            self.max_age.map(|most| format!("at most {most} years")),
            self.sex.map(|sex| sex.to_string()),
            self.finding
                .as_ref()
                .map(|finding| format!("with {finding}")),
        ];
        let conditions: Vec<String> = conditions.into_iter().flatten().collect();
        match conditions.as_slice() {
            [] => formatter.write_str("all images"),
            _ => formatter.write_str(&conditions.join(", ")),
        }
    }
}
