use crate::error::{MetricError, check_length};

/// Clusters from names, such as patient identifiers: the same number for the same name, 0, 1, 2 … in
/// the order of the names, so that nothing depends on the order of the rows.
///
/// ```
/// use cxr_metrics::clusters_of;
/// assert_eq!(clusters_of(&["P7", "P1", "P7", "p1"]), [1, 0, 1, 2]);
/// ```
pub fn clusters_of(names: &[impl AsRef<str>]) -> Vec<u64> {
    let mut distinct: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    distinct.sort_unstable();
    distinct.dedup();
    let number = |name: &str| distinct.partition_point(|other| *other < name) as u64;
    names.iter().map(|name| number(name.as_ref())).collect()
}

/// Which cluster (patient) each example belongs to, numbered 0 … n−1 by ascending identifier, so
/// that nothing depends on the order of the rows.
#[derive(Clone, Debug)]
pub(crate) struct Clusters {
    of_row: Vec<u32>,
    count: usize,
}

impl Clusters {
    pub(crate) fn new(identifiers: &[u64], n_examples: usize) -> Result<Self, MetricError> {
        check_length("clusters, one per example", n_examples, identifiers.len())?;
        let mut distinct = identifiers.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        let of_row = identifiers
            .iter()
            .map(|identifier| distinct.partition_point(|other| other < identifier) as u32)
            .collect();
        Ok(Self {
            of_row,
            count: distinct.len(),
        })
    }

    /// Every example alone.
    pub(crate) fn singletons(n_examples: usize) -> Self {
        Self {
            of_row: (0..n_examples as u32).collect(),
            count: n_examples,
        }
    }

    /// The clusters that were given, or every example alone.
    pub(crate) fn or_singletons(
        identifiers: Option<&[u64]>,
        n_examples: usize,
    ) -> Result<Self, MetricError> {
        match identifiers {
            Some(identifiers) => Self::new(identifiers, n_examples),
            None => Ok(Self::singletons(n_examples)),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// The cluster of each row.
    pub(crate) fn of_row(&self) -> &[u32] {
        &self.of_row
    }

    /// The clusters of some of the rows.
    pub(crate) fn of_rows<'a>(&'a self, rows: Option<&'a [u32]>) -> std::borrow::Cow<'a, [u32]> {
        match rows {
            None => self.of_row.as_slice().into(),
            Some(rows) => rows
                .iter()
                .filter_map(|&row| self.of_row.get(row as usize).copied())
                .collect(),
        }
    }
}
