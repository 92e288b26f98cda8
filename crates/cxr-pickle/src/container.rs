//! The two formats around a pickle: the ZIP archive, and the row of pickles before it.

use std::collections::{BTreeSet, HashMap};

use crate::archive::Archive;
use crate::error::shown;
use crate::machine::{Id, Machine, Value, Values};
use crate::weights::{Storage, StorageName, storages, weights};
use crate::{PickleError, StoredWeights};

/// The number that begins a file of before PyTorch 1.6, as its pickle has it.
const MAGIC: &[u8] = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
/// The version of that format.
const VERSION: i64 = 1001;
/// The longest pickle that is read; that of a network of a thousand layers has a megabyte.
const LONGEST_PICKLE: usize = 1 << 27;

/// Reads the weights in a file that `torch.save` wrote.
///
/// Tensors are in the file's order, under the names of the state dictionary. What is found first counts: a state dictionary, one
/// under a key such as `state_dict` or `model`, or a module's parameters and buffers.
///
/// # Errors
/// [`PickleError`]: bytes of another kind, that are cut off or damaged, that do what `torch.save` never writes, or that hold
/// no weights.
pub fn read_weights(bytes: &[u8]) -> Result<StoredWeights, PickleError> {
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
        return read_archive(bytes);
    }
    let is_tar = bytes.get(257..262) == Some(b"ustar") || bytes.starts_with(b"././@PaxHeader");
    if is_tar {
        return Err(PickleError::Format {
            what: "a TAR archive, as PyTorch wrote it before version 0.1.10",
            hint: "load it with the PyTorch that it was made with, and save its `state_dict()` again",
        });
    }
    if bytes.starts_with(b"\x89HDF") {
        return Err(PickleError::Format {
            what: "a file of HDF5, as Keras writes it",
            hint: "only weights of PyTorch and safetensors can be read",
        });
    }
    if bytes.first() == Some(&0x80) {
        return read_row(bytes);
    }
    Err(PickleError::Format {
        what: "not written by `torch.save`",
        hint: "expected a file of weights, such as `.pth`, `.pt` or `.safetensors`",
    })
}

fn archive_error(error: impl ToString) -> PickleError {
    PickleError::Archive {
        problem: error.to_string(),
    }
}

/// The ZIP archive: `NAME/data.pkl`, and `NAME/data/KEY` for every storage.
fn read_archive(bytes: &[u8]) -> Result<StoredWeights, PickleError> {
    let mut archive = Archive::new(bytes)?;
    let names = archive.names();
    let mut pickles = (names.iter()).filter_map(|name| name.strip_suffix("data.pkl"));
    let Some(folder) = pickles.next() else {
        return Err(archive_error("there is no `data.pkl` in it"));
    };
    if pickles.next().is_some() {
        return Err(archive_error("there are two `data.pkl` in it"));
    }
    let has = |name: &str| names.contains(&name);
    if has(&format!("{folder}constants.pkl")) {
        return Err(PickleError::Format {
            what: "a TorchScript archive, which holds code",
            hint: "save the `state_dict()` of the module with `torch.save`",
        });
    }
    let order = format!("{folder}byteorder");
    if has(&order) && archive.read(&order, 16)? != b"little" {
        return Err(archive_error("its numbers have their highest byte first"));
    }
    let pickle = archive.read(&format!("{folder}data.pkl"), LONGEST_PICKLE)?;
    let mut machine = Machine::new(pickle);
    let root = machine.run()?;
    let mut contents = HashMap::new();
    for name in storages(&machine.values)? {
        let content = archive.read(&format!("{folder}data/{}", name.key), bytes.len())?;
        contents.insert(name.key.clone(), Storage::new(&name, content)?);
    }
    weights(&machine.values, root, &contents)
}

/// The format before: pickles of a number, a version, the machine, the object and the names of storages; then the
/// storages.
fn read_row(bytes: &[u8]) -> Result<StoredWeights, PickleError> {
    let mut machine = Machine::new(bytes);
    let not_ours = || PickleError::Format {
        what: "a pickle that was not written by `torch.save`",
        hint: "expected a file of weights, such as `.pth`, `.pt` or `.safetensors`",
    };
    let magic = machine.run()?;
    if !matches!(machine.values.get(magic), Value::BigInt(bytes) if *bytes == MAGIC) {
        return Err(not_ours());
    }
    let version = machine.run()?;
    if machine.values.int(version) != Some(VERSION) {
        return Err(not_ours());
    }
    let system = machine.run()?;
    if is_big_endian(&machine.values, system) {
        return Err(archive_error("its numbers have their highest byte first"));
    }
    let root = machine.run()?;
    let keys = machine.run()?;
    let keys = machine.values.sequence(keys).ok_or_else(not_ours)?;
    let named = storages(&machine.values)?;
    let by_key: HashMap<&str, &StorageName> =
        named.iter().map(|name| (name.key.as_str(), name)).collect();
    let mut rest = machine.rest();
    let mut contents = HashMap::new();
    let mut seen = BTreeSet::new();
    for &key in keys {
        let Some(name) = machine.values.text(key).and_then(|key| by_key.get(key)) else {
            return Err(archive_error("it has a storage that no tensor is of"));
        };
        let cut = || PickleError::Truncated {
            what: format!("the storage `{}`", shown(&name.key)),
        };
        let (count, after) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
        let length = usize::try_from(i64::from_le_bytes(*count))
            .ok()
            .and_then(|count| count.checked_mul(name.element.bytes()));
        let (content, after) = length
            .and_then(|length| after.split_at_checked(length))
            .ok_or_else(cut)?;
        if !seen.insert(&name.key) {
            return Err(archive_error(format!(
                "the storage `{}` is there twice",
                shown(&name.key)
            )));
        }
        contents.insert(name.key.clone(), Storage::new(name, content)?);
        rest = after;
    }
    weights(&machine.values, root, &contents)
}

fn is_big_endian(values: &Values<'_>, system: Id) -> bool {
    let entries = values.entries(system).unwrap_or_default();
    entries.iter().any(|&(key, value)| {
        values.text(key) == Some("little_endian") && matches!(values.get(value), Value::Bool(false))
    })
}
