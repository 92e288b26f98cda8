//! That all ranks train the same network on the same data, and are where the others are.

use cxr_ops::InstructionSet;
use sha2::{Digest, Sha256};

use super::Trainer;
use crate::TrainError;

impl Trainer<'_> {
    /// Whether the ranks are at work on the same run, with the same program, and go on from the same place; collective.
    pub(super) fn check_ranks(&self) -> Result<(), TrainError> {
        if self.ranks.size() == 1 {
            return Ok(());
        }
        let data = serde_json::to_string(&self.data_fingerprints);
        let data = data.map_err(|error| TrainError::setting("data", "fingerprints", error))?;
        self.ranks.check_equal(&[
            (
                "the version of the program",
                env!("CARGO_PKG_VERSION").to_owned(),
            ),
            ("the experiment", self.experiment_text.clone()),
            ("the data (labels, lists or prepared images)", data),
            (
                "the processor's instruction set (CXR_INSTRUCTION_SET chooses one that all have)",
                InstructionSet::current().name().to_owned(),
            ),
        ])?;
        self.check_replicas()
    }

    /// Whether the ranks have the same weights and running statistics, bit by bit, at the same step; collective.
    ///
    /// They have, as they make the same steps, unless a part from outside keeps something of its own, such as running
    /// statistics that it moves itself. Nothing that has come apart is ever saved.
    pub(super) fn check_replicas(&self) -> Result<(), TrainError> {
        if self.ranks.size() == 1 {
            return Ok(());
        }
        let position = serde_json::to_string(&self.state.progress.position);
        let position = position.map_err(|error| TrainError::setting("position", "text", error))?;
        let mut hash = Sha256::new();
        let parameters = self.classifier.parameters().tensors("").into_iter();
        let of_loss = self.loss_variables.iter();
        let of_loss = of_loss.map(|(name, var)| (name.clone(), var.as_tensor().detach()));
        for (name, tensor) in parameters.chain(of_loss) {
            hash.update(name.as_bytes());
            hash.update([0]);
            let mut bytes = Vec::with_capacity(4 * tensor.elem_count());
            for value in tensor.flatten_all()?.to_vec1::<f32>()? {
                bytes.extend(value.to_le_bytes());
            }
            hash.update(&bytes);
        }
        let weights = hash.finalize();
        let weights = weights.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(self.ranks.check_equal(&[
            ("how far the training is", position),
            ("the weights and running statistics", weights),
        ])?)
    }
}
