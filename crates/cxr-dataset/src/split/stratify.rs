//! Patients dealt into folds that resemble each other.

use std::cmp::Reverse;

/// What belongs together: all images of one patient.
pub(super) struct Group {
    pub(super) n_images: usize,
    /// For each label, how many of the images have it.
    pub(super) positives: Vec<usize>,
}

/// The fold of each group, from 0 to `n_folds` − 1.
///
/// This is iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML PKDD 2011) of whole
/// groups: the label of which the fewest images are left goes first, its groups with most of them
/// at the front, and each group goes where that label is most wanted, which is where the fewest of
/// it were dealt. What is equal is decided by the images still wanted, then by the order of
/// `groups`, which the caller has made random. Groups without any label even out the numbers of
/// images at the end.
pub(super) fn deal(groups: &[Group], n_labels: usize, n_folds: usize) -> Vec<usize> {
    let mut n_images = vec![0; n_folds];
    let mut fold_of = vec![None; groups.len()];
    loop {
        let left = |label: usize| -> usize {
            (groups.iter().zip(&fold_of))
                .filter(|(_, fold)| fold.is_none())
                .map(|(group, _)| positives(group, label))
                .sum()
        };
        let rarest = (0..n_labels)
            .map(|label| (left(label), label))
            .filter(|(n_left, _)| *n_left > 0)
            .min();
        let Some((_, label)) = rarest else { break };
        deal_by(groups, &mut fold_of, &mut n_images, |group| {
            positives(group, label)
        });
    }
    deal_by(groups, &mut fold_of, &mut n_images, |group| group.n_images);
    fold_of.into_iter().map(Option::unwrap_or_default).collect()
}

/// Deals the groups that are left and of which `weight` is not zero, the heaviest first, each to
/// the fold with the smallest sum of weights.
fn deal_by(
    groups: &[Group],
    fold_of: &mut [Option<usize>],
    n_images: &mut [usize],
    weight: impl Fn(&Group) -> usize,
) {
    let mut sums: Vec<usize> = vec![0; n_images.len()];
    for (group, fold) in groups.iter().zip(fold_of.iter()) {
        if let Some(sum) = fold.and_then(|fold| sums.get_mut(fold)) {
            *sum += weight(group);
        }
    }
    let mut waiting: Vec<usize> = (0..groups.len())
        .filter(|&at| fold_of.get(at) == Some(&None) && groups.get(at).map_or(0, &weight) > 0)
        .collect();
    // A stable sort: equal weights stay in the random order.
    waiting.sort_by_key(|&at| Reverse(groups.get(at).map_or(0, &weight)));
    for at in waiting {
        let neediest = (sums.iter().zip(n_images.iter()).enumerate())
            .min_by_key(|(_, (sum, n_images))| (**sum, **n_images))
            .map_or(0, |(fold, _)| fold);
        let (Some(group), Some(place)) = (groups.get(at), fold_of.get_mut(at)) else {
            continue;
        };
        *place = Some(neediest);
        if let (Some(sum), Some(images)) = (sums.get_mut(neediest), n_images.get_mut(neediest)) {
            *sum += weight(group);
            *images += group.n_images;
        }
    }
}

fn positives(group: &Group, label: usize) -> usize {
    group.positives.get(label).copied().unwrap_or(0)
}
