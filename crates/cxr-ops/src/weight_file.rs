//! The bytes of weight files, looked at before anything uses them.

use std::collections::{BTreeMap, HashMap};

use candle_core::safetensors::Load as _;
use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensors, View};
use sha2::{Digest, Sha256};

use crate::error::OpsError;

/// The key of the file's metadata under which our files describe themselves.
const KEY: &str = "cxr";
/// How the description of a file with a digest begins, before the digest's 64 hexadecimal digits.
const DIGEST: &str = "{\"sha256\":\"";
const DIGITS: usize = 64;
/// How the names of running variances end, in PyTorch's files and ours.
const VARIANCE: &str = ".running_var";

/// What a safetensors file holds.
///
/// Files that [`WeightFile::to_bytes`] wrote carry a SHA-256 over their description and over names, dtypes, shapes
/// and bytes of all tensors, so that a changed bit is found. Files from elsewhere have none; what can be seen of their
/// tensors alone, [`check_weights`] sees.
#[derive(Debug, Clone)]
pub struct WeightFile {
    /// What the file says of itself, a JSON object: `None` in a file from elsewhere.
    pub description: Option<String>,
    /// Whether it had a digest, which then was right.
    pub has_digest: bool,
    /// The tensors by name, on the CPU. Floating-point numbers of 16, 32 and 64 bits are `f32` here; integers, such as
    /// the counters of batch normalisations, are as in the file.
    pub tensors: BTreeMap<String, Tensor>,
}

impl WeightFile {
    /// Takes a file's bytes apart.
    ///
    /// # Errors
    /// Bytes that are not a whole safetensors file, a type of numbers that is not supported, or a digest that does not
    /// match.
    pub fn parse(bytes: &[u8]) -> Result<Self, OpsError> {
        let (_, metadata) = SafeTensors::read_metadata(bytes)?;
        let file = SafeTensors::deserialize(bytes)?;
        let text = metadata.metadata().as_ref().and_then(|all| all.get(KEY));
        let views: BTreeMap<&str, _> = file.iter().collect();
        let (expected, description) = match text {
            Some(text) => {
                let (digest, description) = Self::split_digest(text);
                (digest, Some(description))
            }
            None => (None, None),
        };
        if let Some(expected) = expected {
            let views = views.iter().map(|(name, view)| (*name, view));
            let found = digest(description.as_deref().unwrap_or_default(), views);
            if found != expected {
                return Err(OpsError::WeightFileDamaged);
            }
        }
        let mut tensors = BTreeMap::new();
        for (name, view) in &views {
            let tensor = match view.dtype() {
                Dtype::F32 | Dtype::F64 | Dtype::F16 | Dtype::BF16 => {
                    view.load(&Device::Cpu)?.to_dtype(DType::F32)?
                }
                Dtype::U8 | Dtype::I16 | Dtype::I32 | Dtype::U32 | Dtype::I64 => {
                    view.load(&Device::Cpu)?
                }
                other => {
                    return Err(OpsError::Weights {
                        name: (*name).to_owned(),
                        problem: format!("is of the unsupported type {other}"),
                    });
                }
            };
            tensors.insert((*name).to_owned(), tensor);
        }
        Ok(Self {
            has_digest: expected.is_some(),
            description,
            tensors,
        })
    }

    /// The bytes of a file with these tensors; `description` is a JSON object.
    ///
    /// # Errors
    /// A tensor that cannot be read back from its device.
    pub fn to_bytes(
        description: &str,
        tensors: &BTreeMap<String, Tensor>,
    ) -> Result<Vec<u8>, OpsError> {
        // Read back from a GPU once; on the CPU this copies nothing.
        let tensors = tensors
            .iter()
            .map(|(name, tensor)| Ok((name.as_str(), tensor.to_device(&Device::Cpu)?)))
            .collect::<candle_core::Result<BTreeMap<_, _>>>()?;
        let digest = digest(
            description,
            tensors.iter().map(|(name, tensor)| (*name, tensor)),
        );
        let fields = description.trim_start().strip_prefix('{').unwrap_or("}");
        let comma = if fields.trim_start().starts_with('}') {
            ""
        } else {
            ","
        };
        let text = format!("{DIGEST}{digest}\"{comma}{fields}");
        // One entry: the file's bytes would depend on the order of several.
        let metadata = HashMap::from([(KEY.to_owned(), text)]);
        Ok(safetensors::serialize(&tensors, Some(metadata))?)
    }

    /// The digest and the description in what stands under our key of a file's metadata; there is no digest in files of
    /// early versions.
    pub fn split_digest(text: &str) -> (Option<&str>, String) {
        let parts = text.strip_prefix(DIGEST).and_then(|rest| {
            let (digest, rest) = rest.split_at_checked(DIGITS)?;
            let rest = rest.strip_prefix('"')?;
            Some((digest, rest.strip_prefix(',').unwrap_or(rest)))
        });
        match parts {
            Some((digest, fields)) => (Some(digest), format!("{{{fields}")),
            None => (None, text.to_owned()),
        }
    }
}

/// Whether tensors can be the weights of a network: floating-point numbers, all of them finite, and no variance
/// below zero.
///
/// # Errors
/// [`OpsError::Weights`] with the first tensor, in name order, that cannot.
pub fn check_weights(tensors: &BTreeMap<String, Tensor>) -> Result<(), OpsError> {
    for (name, tensor) in tensors {
        let wrong = |problem| OpsError::Weights {
            name: name.clone(),
            problem,
        };
        if !tensor.dtype().is_float() {
            let dtype = tensor.dtype().as_str().to_uppercase();
            return Err(wrong(format!(
                "holds {dtype}, expected floating-point numbers"
            )));
        }
        let values = tensor.flatten_all()?.to_dtype(DType::F32)?;
        let values = values.to_vec1::<f32>()?;
        let not_finite = values.iter().filter(|value| !value.is_finite()).count();
        if not_finite > 0 {
            let of = values.len();
            return Err(wrong(format!(
                "holds {not_finite} of {of} values that are not finite"
            )));
        }
        let negative = |value: &&f32| **value < 0.;
        if name.ends_with(VARIANCE)
            && let Some(value) = values.iter().find(negative)
        {
            return Err(wrong(format!("holds the negative variance {value}")));
        }
    }
    Ok(())
}

/// Lengths before contents, so that no two files give the same bytes to hash.
fn digest<'a, V: View + 'a>(
    description: &str,
    tensors: impl Iterator<Item = (&'a str, V)>,
) -> String {
    let mut hash = Sha256::new();
    hash.update(b"cxr weights 1\0");
    let text = |hash: &mut Sha256, text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    text(&mut hash, description);
    for (name, view) in tensors {
        text(&mut hash, name);
        text(&mut hash, &view.dtype().to_string());
        hash.update((view.shape().len() as u64).to_le_bytes());
        for &size in view.shape() {
            hash.update((size as u64).to_le_bytes());
        }
        let data = view.data();
        hash.update((data.len() as u64).to_le_bytes());
        hash.update(&data);
    }
    let digest = hash.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
