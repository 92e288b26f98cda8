//! Files of weights, whatever wrote them.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use cxr_ops::WeightFile;
use cxr_pickle::{ElementType, StoredTensor, read_weights};

use super::{chain, mismatch};
use crate::ExchangeError;

/// The largest file that is read: more than any network here has.
const MAX_BYTES: u64 = 1 << 33;

/// The tensors of a file.
pub(super) struct Weights {
    pub(super) tensors: BTreeMap<String, Tensor>,
    /// What stands beside them.
    pub(super) others: Vec<String>,
}

/// Reads safetensors or what `torch.save` wrote.
pub(super) fn read(path: &Path) -> Result<Weights, ExchangeError> {
    let bytes = cxr_fs::read_regular(path, MAX_BYTES).map_err(cxr_model::ModelError::from)?;
    if bytes.get(8) == Some(&b'{') {
        let file = WeightFile::parse(&bytes).map_err(|error| mismatch(path, chain(&error)))?;
        if file.description.is_some() {
            let problem = "it is a file of this program already\nhint: `cxr predict` and all other commands take it as it is";
            return Err(mismatch(path, problem.to_owned()));
        }
        return Ok(Weights {
            tensors: file.tensors,
            others: Vec::new(),
        });
    }
    let read = read_weights(&bytes).map_err(|error| mismatch(path, chain(&error)))?;
    let mut tensors = BTreeMap::new();
    for tensor in read.tensors {
        tensors.insert(tensor.name.clone(), to_tensor(&tensor)?);
    }
    Ok(Weights {
        tensors,
        others: read.others,
    })
}

/// Floating-point numbers in single precision, integers as they are.
fn to_tensor(stored: &StoredTensor) -> Result<Tensor, ExchangeError> {
    let dtype = match stored.element {
        ElementType::F64 => DType::F64,
        ElementType::F32 => DType::F32,
        ElementType::F16 => DType::F16,
        ElementType::BF16 => DType::BF16,
        ElementType::I64 => DType::I64,
        ElementType::I32 => DType::I32,
        ElementType::I16 => DType::I16,
        ElementType::U8 | ElementType::Bool | ElementType::I8 => DType::U8,
        _ => {
            return Err(ExchangeError::Parameter {
                name: stored.name.clone(),
                problem: format!("is of the unsupported type {:?}", stored.element),
            });
        }
    };
    let tensor = Tensor::from_raw_buffer(&stored.bytes, dtype, &stored.shape, &Device::Cpu)?;
    match dtype.is_float() {
        true => Ok(tensor.to_dtype(DType::F32)?),
        false => Ok(tensor),
    }
}
