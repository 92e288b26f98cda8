//! Which images to show: by a rule, so that nobody picks the ones that look well.

/// What is known of an image that may be shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// For each label whether the image has it; images with unknown labels are not shown.
    pub labels: Vec<bool>,
    /// For each label the model's logit.
    pub logits: Vec<f32>,
}

/// How prediction and truth of an image agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreement {
    /// The one label it has is predicted and no other.
    RightSingle,
    /// Its several labels are predicted and no other, or it has none and none is.
    RightSeveralOrNone,
    /// Some label is missed or added.
    Wrong,
}

/// An image that was chosen, and the label whose heat map to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Its place among the candidates.
    pub candidate: usize,
    /// How prediction and truth agree.
    pub agreement: Agreement,
    /// The label to explain.
    pub label: usize,
}

impl Candidate {
    /// The labels predicted at these thresholds: those with a logit above.
    pub fn predicted(&self, thresholds: &[f32]) -> Vec<bool> {
        let above = |(logit, threshold): (&f32, &f32)| logit > threshold;
        self.logits.iter().zip(thresholds).map(above).collect()
    }

    /// How prediction and truth agree.
    pub fn agreement(&self, thresholds: &[f32]) -> Agreement {
        let n_labels = self.labels.iter().filter(|&&has| has).count();
        if self.predicted(thresholds) != self.labels {
            Agreement::Wrong
        } else if n_labels == 1 {
            Agreement::RightSingle
        } else {
            Agreement::RightSeveralOrNone
        }
    }

    /// The label to explain: of the predicted ones that with the highest logit, without any the one
    /// with the highest logit of all. `None` without labels.
    pub fn explained(&self, thresholds: &[f32]) -> Option<usize> {
        let predicted = self.predicted(thresholds);
        let any = predicted.contains(&true);
        let of_those = (0..self.logits.len()).filter(|&label| !any || predicted[label]);
        // Of equal logits the first.
        of_those.reduce(|best, label| {
            if self.logits[label] > self.logits[best] {
                label
            } else {
                best
            }
        })
    }
}

/// Chooses `per_kind` images of each [`Agreement`], in this order of kinds: the first candidates of
/// which the explained label is not yet shown in that kind, then, where those do not suffice, the
/// first others. Fewer where there are not so many.
pub fn choose_panel(candidates: &[Candidate], thresholds: &[f32], per_kind: usize) -> Vec<Choice> {
    let mut panel = Vec::new();
    for agreement in [
        Agreement::RightSingle,
        Agreement::RightSeveralOrNone,
        Agreement::Wrong,
    ] {
        let of_kind: Vec<Choice> = candidates
            .iter()
            .enumerate()
            .filter(|(_, candidate)| candidate.agreement(thresholds) == agreement)
            .filter_map(|(at, candidate)| {
                Some(Choice {
                    candidate: at,
                    agreement,
                    label: candidate.explained(thresholds)?,
                })
            })
            .collect();
        let mut chosen: Vec<Choice> = Vec::new();
        for fresh_only in [true, false] {
            for choice in &of_kind {
                let is_new = chosen.iter().all(|other| other.label != choice.label);
                let is_chosen = chosen.contains(choice);
                if chosen.len() < per_kind && !is_chosen && (is_new || !fresh_only) {
                    chosen.push(*choice);
                }
            }
        }
        panel.extend(chosen);
    }
    panel
}
