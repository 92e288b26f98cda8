//! Weights trained elsewhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use cxr_ops::{OpsError, Parameters, WeightFile, check_weights};

/// Why weights were not loaded. The network is then as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PretrainedError {
    /// The file cannot be read.
    #[error("cannot read weights from `{}`", path.display())]
    Read {
        /// The weight file.
        path: PathBuf,
        /// The I/O error.
        source: std::io::Error,
    },
    /// The file is no safetensors file, was changed after it was written, or holds values that no network can
    /// compute with.
    #[error("`{}` holds no usable weights", path.display())]
    Unusable {
        /// The weight file.
        path: PathBuf,
        /// What is wrong with it.
        source: OpsError,
    },
    /// The tensors are not those of the network.
    #[error("`{}` is not for this network", path.display())]
    Mismatch {
        /// The weight file.
        path: PathBuf,
        /// Which tensors differ and how.
        source: OpsError,
    },
}

/// What became of a weight file's tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PretrainedReport {
    /// Number of tensors that the network took.
    pub loaded: usize,
    /// Names in the file that a feature extractor has no use for: step counters of batch
    /// normalisations (`…num_batches_tracked`), the ImageNet classifier (`classifier.…`, `head.…`)
    /// and the token that masks patches in pretraining (`mask_token`).
    pub ignored: Vec<String>,
}

/// What the names of a published network's tensors begin with where its classifier is apart.
const PUBLISHED: &str = "features.";

/// Sets every parameter under `prefix` (such as `features.`) from the safetensors file at `path`.
///
/// Names are torchvision's, which begin with `features.` wherever the network stands. The older spelling of its files, `norm.1` for `norm1` and `conv.2`
/// for `conv2`, is understood. Half- and double-precision weights are converted to `f32`.
///
/// # Errors
/// A file that cannot be read or was changed after it was written, or in which a tensor is missing, superfluous, of
/// another shape, of integers, not finite, or a negative variance; the network is then unchanged.
pub fn load_pretrained(
    path: &Path,
    parameters: &Parameters,
    prefix: &str,
) -> Result<PretrainedReport, PretrainedError> {
    load(path, parameters, prefix, |name| {
        let unused = name.ends_with(".num_batches_tracked") || name.starts_with("classifier.");
        (!unused).then(|| match name.strip_prefix(PUBLISHED) {
            Some(rest) if !name.starts_with(prefix) => current_name(&format!("{prefix}{rest}")),
            _ => current_name(name),
        })
    })
}

/// Sets every parameter of a [`FrozenExtractor`](crate::FrozenExtractor) under `prefix` from the
/// safetensors file at `path`, as timm and DINOv2's authors name the tensors: without the prefix.
///
/// # Errors
/// As [`load_pretrained`].
pub fn load_extractor(
    path: &Path,
    parameters: &Parameters,
    prefix: &str,
) -> Result<PretrainedReport, PretrainedError> {
    load(path, parameters, prefix, |name| {
        let unused = name.starts_with("head.") || name == "mask_token";
        let is_ours = name.starts_with(prefix);
        (!unused).then(|| {
            if is_ours {
                name.to_owned()
            } else {
                format!("{prefix}{name}")
            }
        })
    })
}

/// Sets every parameter of a described network under `prefix` (such as `features.`) from the safetensors file at `path`,
/// as torchvision or timm names the tensors: with this prefix, with `features.` or without. Tensors whose names begin with one of
/// `classifiers` are ignored.
///
/// # Errors
/// As [`load_pretrained`].
pub fn load_network(
    path: &Path,
    parameters: &Parameters,
    prefix: &str,
    classifiers: &[&str],
) -> Result<PretrainedReport, PretrainedError> {
    load(path, parameters, prefix, |name| {
        let is_ignored = classifiers.iter().any(|start| name.starts_with(start));
        let is_ours = name.starts_with(prefix);
        (!is_ignored && !name.ends_with(".num_batches_tracked")).then(|| {
            if is_ours {
                name.to_owned()
            } else {
                let rest = name.strip_prefix(PUBLISHED).unwrap_or(name);
                format!("{prefix}{rest}")
            }
        })
    })
}

/// The largest file of weights that is read. The largest network here has less than a tenth of it.
const MAX_BYTES: u64 = 1 << 34;

/// Loads the tensors that `rename` has a name for.
fn load(
    path: &Path,
    parameters: &Parameters,
    prefix: &str,
    rename: impl Fn(&str) -> Option<String>,
) -> Result<PretrainedReport, PretrainedError> {
    // A header of JSON follows its length in eight bytes.
    let is_wanted = |start: &[u8]| start.get(8) == Some(&b'{');
    let bytes = cxr_fs::read_recognised(path, MAX_BYTES, is_wanted);
    let bytes = bytes.map_err(|error| PretrainedError::Read {
        path: path.to_owned(),
        source: error.source,
    })?;
    let unusable = |source| PretrainedError::Unusable {
        path: path.to_owned(),
        source,
    };
    let tensors = WeightFile::parse(&bytes).map_err(unusable)?.tensors;
    let (mut used, mut ignored) = (BTreeMap::<String, Tensor>::new(), Vec::new());
    for (name, tensor) in tensors {
        match rename(&name) {
            Some(name) => {
                if used.contains_key(&name) {
                    let problem = "is in the file under two spellings".to_owned();
                    return Err(unusable(OpsError::Weights { name, problem }));
                }
                used.insert(name, tensor);
            }
            None => ignored.push(name),
        }
    }
    check_weights(&used).map_err(unusable)?;
    let loaded = used.len();
    parameters
        .load(prefix, &used)
        .map_err(|source| PretrainedError::Mismatch {
            path: path.to_owned(),
            source,
        })?;
    ignored.sort();
    Ok(PretrainedReport { loaded, ignored })
}

/// `…denselayer1.norm.1.weight` is `…denselayer1.norm1.weight` today.
fn current_name(name: &str) -> String {
    let mut name = name.to_owned();
    if name.contains(".denselayer") {
        for (old, new) in [
            (".norm.1.", ".norm1."),
            (".norm.2.", ".norm2."),
            (".conv.1.", ".conv1."),
            (".conv.2.", ".conv2."),
        ] {
            name = name.replace(old, new);
        }
    }
    name
}
