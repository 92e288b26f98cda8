//! Tensors in what a pickle builds.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::PickleError;
use crate::error::shown;
use crate::machine::{Id, Value, Values};

/// The type of a tensor's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ElementType {
    /// Double precision.
    F64,
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// The upper half of single precision.
    BF16,
    /// 64-bit integers.
    I64,
    /// 32-bit integers.
    I32,
    /// 16-bit integers.
    I16,
    /// 8-bit integers.
    I8,
    /// Bytes.
    U8,
    /// 0 or 1 in a byte.
    Bool,
}

impl ElementType {
    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    fn of_storage(class: &str) -> Option<Self> {
        Some(match class {
            "DoubleStorage" => Self::F64,
            "FloatStorage" => Self::F32,
            "HalfStorage" => Self::F16,
            "BFloat16Storage" => Self::BF16,
            "LongStorage" => Self::I64,
            "IntStorage" => Self::I32,
            "ShortStorage" => Self::I16,
            "CharStorage" => Self::I8,
            "ByteStorage" => Self::U8,
            "BoolStorage" => Self::Bool,
            _ => return None,
        })
    }
}

/// A tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    /// Its name in the state dictionary.
    pub name: String,
    /// The type of its numbers.
    pub element: ElementType,
    /// Its sides.
    pub shape: Vec<usize>,
    /// Its numbers, the last side the fastest, each with its lowest byte first.
    pub bytes: Vec<u8>,
}

/// What a file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredWeights {
    /// Its tensors, in its order.
    pub tensors: Vec<StoredTensor>,
    /// The keys under which they were found, from the outside; empty where the file is a state dictionary or a module itself.
    pub found_under: Vec<String>,
    /// Names beside them of what is no tensor, such as `epoch`.
    pub others: Vec<String>,
}

/// Where the numbers of tensors are, by the name that tensors give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StorageName {
    pub(crate) key: String,
    pub(crate) element: ElementType,
    /// How many numbers it is to have.
    count: usize,
    /// Where it begins within the storage of that key, in numbers.
    offset: usize,
}

/// The bytes of a storage.
#[derive(Debug)]
pub(crate) struct Storage<'a> {
    element: ElementType,
    bytes: &'a [u8],
}

impl<'a> Storage<'a> {
    pub(crate) fn new(name: &StorageName, bytes: &'a [u8]) -> Result<Self, PickleError> {
        let expected = name.count.checked_mul(name.element.bytes());
        // A part of it may be named; a whole is as long as it says.
        let fits = match name.offset {
            0 => expected.is_some_and(|expected| expected <= bytes.len()),
            _ => true,
        };
        match fits {
            true => Ok(Self {
                element: name.element,
                bytes,
            }),
            false => Err(PickleError::Archive {
                problem: format!(
                    "the storage `{}` has {} bytes, and is to have {} numbers",
                    shown(&name.key),
                    bytes.len(),
                    name.count
                ),
            }),
        }
    }
}

/// The most tensors of a file.
const MOST_TENSORS: usize = 1 << 17;
/// The most sides of a tensor.
const MOST_SIDES: usize = 16;
/// How deep modules may be within each other.
const DEEPEST: usize = 64;
/// The most entries of modules that are looked at.
const MOST_ENTRIES: usize = 1 << 23;
/// Keys under which a state dictionary or a module is looked for, in this order.
const KEYS: [&str; 8] = [
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "weights",
    "params",
];

/// Every storage that the values name, each key once.
pub(crate) fn storages(values: &Values<'_>) -> Result<Vec<StorageName>, PickleError> {
    let mut found: Vec<StorageName> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for id in 0.. {
        if !values.has(id) {
            break;
        }
        let Value::Persistent(name) = values.get(id) else {
            continue;
        };
        let Some(name) = storage_name(values, *name)? else {
            continue;
        };
        match places.get(&name.key) {
            None => {
                places.insert(name.key.clone(), found.len());
                found.push(name);
            }
            Some(&place) if found[place].element == name.element => {
                // Of several parts that which needs most.
                if name.offset == 0 && name.count > found[place].count {
                    found[place] = name;
                }
            }
            Some(_) => {
                return Err(PickleError::Archive {
                    problem: format!("the storage `{}` is of two types", shown(&name.key)),
                });
            }
        }
    }
    Ok(found)
}

/// `("storage", class, key, location, count)`, and a part of it in older files; `None` for what is not a storage.
fn storage_name(values: &Values<'_>, id: Id) -> Result<Option<StorageName>, PickleError> {
    let damaged = |problem: &str| PickleError::Archive {
        problem: format!("it names a storage {problem}"),
    };
    let Some(items) = values.sequence(id) else {
        return Err(damaged("in a way that is not known"));
    };
    if items.first().and_then(|&kind| values.text(kind)) != Some("storage") {
        return Ok(None);
    }
    let [_, class, key, _, count, view @ ..] = items else {
        return Err(damaged("in a way that is not known"));
    };
    let element = match values.get(*class) {
        Value::Global(module, name) if module == "torch" => ElementType::of_storage(name),
        _ => None,
    };
    let element = element.ok_or_else(|| {
        damaged(&format!(
            "of an unsupported type, {}",
            values.describe(*class)
        ))
    })?;
    let key = values.text(*key).map(str::to_owned);
    let count = values
        .int(*count)
        .and_then(|count| usize::try_from(count).ok());
    let (Some(key), Some(count)) = (key, count) else {
        return Err(damaged("without a key or a length"));
    };
    // (key of the part, offset, count).
    let part = view.first().and_then(|&view| values.sequence(view));
    let offset = match part {
        None => 0,
        Some(part) => part
            .get(1)
            .and_then(|&offset| values.int(offset))
            .and_then(|offset| usize::try_from(offset).ok())
            .ok_or_else(|| damaged("whose part has no place"))?,
    };
    Ok(Some(StorageName {
        key,
        element,
        count,
        offset,
    }))
}

/// The weights in the value `root`.
pub(crate) fn weights(
    values: &Values<'_>,
    root: Id,
    storages: &HashMap<String, Storage<'_>>,
) -> Result<StoredWeights, PickleError> {
    let mut reader = Reader {
        values,
        storages,
        found: StoredWeights::default(),
        names: BTreeSet::new(),
        entries_left: MOST_ENTRIES,
        bytes_left: storages
            .values()
            .map(|storage| storage.bytes.len())
            .sum::<usize>(),
    };
    // Whatever refers to numbers more than once, such as tied weights, is read once more.
    reader.bytes_left = reader.bytes_left.saturating_mul(4);
    let mut place = root;
    let mut seen = HashSet::new();
    loop {
        if !seen.insert(place) {
            break;
        }
        if reader.is_module(place) {
            reader.module(place, "", 0)?;
            break;
        }
        let Some(entries) = values.entries(place) else {
            break;
        };
        if entries.iter().any(|&(_, value)| reader.is_tensor(value)) {
            reader.dictionary(&entries)?;
            break;
        }
        let next = KEYS.iter().find_map(|key| {
            let entry = entries
                .iter()
                .find(|&&(name, _)| values.text(name) == Some(key));
            let &(_, value) = entry?;
            let is_inside = reader.is_module(value) || values.entries(value).is_some();
            is_inside.then_some((*key, value))
        });
        let Some((key, value)) = next else {
            break;
        };
        reader.found.found_under.push(key.to_owned());
        place = value;
    }
    if reader.found.tensors.is_empty() {
        let keys = values.entries(root).unwrap_or_default();
        let keys: Vec<String> = (keys.iter().take(20))
            .filter_map(|&(key, _)| values.text(key))
            .map(|key| format!("`{}`", shown(key)))
            .collect();
        let found = match keys.is_empty() {
            true => values.describe(root),
            false => format!("a dictionary with {}", keys.join(", ")),
        };
        return Err(PickleError::NoWeights { found });
    }
    Ok(reader.found)
}

struct Reader<'a> {
    values: &'a Values<'a>,
    storages: &'a HashMap<String, Storage<'a>>,
    found: StoredWeights,
    names: BTreeSet<String>,
    /// How many bytes tensors may still have.
    bytes_left: usize,
    /// How many entries of modules may still be looked at: a module may be in others many times over.
    entries_left: usize,
}

impl Reader<'_> {
    /// A call of one of PyTorch's functions that rebuild a tensor, by its name and its arguments.
    fn rebuilt(&self, id: Id) -> Option<(&str, &[Id])> {
        let Value::Call {
            callee, arguments, ..
        } = self.values.get(id)
        else {
            return None;
        };
        match self.values.get(*callee) {
            Value::Global(module, name)
                if module == "torch._utils" && name.starts_with("_rebuild_") =>
            {
                Some((name, self.values.sequence(*arguments)?))
            }
            _ => None,
        }
    }

    fn is_tensor(&self, id: Id) -> bool {
        self.rebuilt(id).is_some()
    }

    /// The state of an object that has parameters or parts.
    fn state(&self, id: Id) -> Option<Vec<(Id, Id)>> {
        let Value::Call {
            state: Some(state), ..
        } = self.values.get(id)
        else {
            return None;
        };
        self.values.entries(*state)
    }

    fn is_module(&self, id: Id) -> bool {
        let state = self.state(id).unwrap_or_default();
        let has = |wanted: &str| {
            state
                .iter()
                .any(|&(key, _)| self.values.text(key) == Some(wanted))
        };
        has("_parameters") && has("_modules")
    }

    fn dictionary(&mut self, entries: &[(Id, Id)]) -> Result<(), PickleError> {
        for &(key, value) in entries {
            let Some(name) = self.values.text(key).map(str::to_owned) else {
                return Err(PickleError::NoWeights {
                    found: format!("a dictionary with {} as a key", self.values.describe(key)),
                });
            };
            match self.is_tensor(value) {
                true => self.tensor(name, value)?,
                false => self.found.others.push(name),
            }
        }
        Ok(())
    }

    /// Adds the parameters and buffers of a module and of the modules in it, as its `state_dict()` has them.
    fn module(&mut self, id: Id, prefix: &str, depth: usize) -> Result<(), PickleError> {
        if depth > DEEPEST {
            return Err(PickleError::TooMany {
                what: "modules within each other",
                limit: DEEPEST,
            });
        }
        let state = self.state(id).unwrap_or_default();
        self.spend(state.len() + 1)?;
        let of = |wanted: &str| {
            let entry = state
                .iter()
                .rev()
                .find(|&&(key, _)| self.values.text(key) == Some(wanted));
            entry.map(|&(_, value)| value)
        };
        let passing = of("_non_persistent_buffers_set");
        let passing: Vec<Id> = passing
            .and_then(|set| match self.values.get(set) {
                Value::Sequence(items) => Some(items.clone()),
                // `set([…])`.
                Value::Call { arguments, .. } => {
                    let list = self.values.sequence(*arguments)?.first().copied()?;
                    Some(self.values.sequence(list)?.to_vec())
                }
                _ => None,
            })
            .unwrap_or_default();
        let passing: HashSet<&str> = passing
            .iter()
            .filter_map(|&name| self.values.text(name))
            .collect();
        let (mut tensors, mut modules) = (Vec::new(), Vec::new());
        for kind in ["_parameters", "_buffers", "_modules"] {
            let entries = of(kind).and_then(|entries| self.values.entries(entries));
            let entries = entries.unwrap_or_default();
            self.spend(entries.len())?;
            for (key, value) in entries {
                let name = self.values.text(key).unwrap_or_default();
                let is_absent = matches!(self.values.get(value), Value::None);
                if is_absent || (kind == "_buffers" && passing.contains(name)) {
                    continue;
                }
                let full = format!("{prefix}{name}");
                match kind {
                    "_modules" => modules.push((full, value)),
                    _ => tensors.push((full, value)),
                }
            }
        }
        for (name, value) in tensors {
            self.tensor(name, value)?;
        }
        for (name, value) in modules {
            self.module(value, &format!("{name}."), depth + 1)?;
        }
        Ok(())
    }

    fn spend(&mut self, entries: usize) -> Result<(), PickleError> {
        self.entries_left = self
            .entries_left
            .checked_sub(entries)
            .ok_or(PickleError::TooMany {
                what: "entries in its modules",
                limit: MOST_ENTRIES,
            })?;
        Ok(())
    }

    fn tensor(&mut self, name: String, id: Id) -> Result<(), PickleError> {
        let wrong = |problem: String| PickleError::Tensor {
            name: shown(&name),
            problem,
        };
        if self.names.len() >= MOST_TENSORS {
            return Err(PickleError::TooMany {
                what: "tensors",
                limit: MOST_TENSORS,
            });
        }
        let mut arguments = self.rebuilt(id);
        // A parameter is made of a tensor.
        if let Some((function, &[inner, ..])) = arguments
            && function.starts_with("_rebuild_parameter")
        {
            arguments = self.rebuilt(inner);
        }
        let (storage, offset, size, stride) = match arguments {
            Some((
                "_rebuild_tensor" | "_rebuild_tensor_v2",
                &[storage, offset, size, stride, ..],
            )) => (storage, offset, size, stride),
            Some((function, _)) => {
                return Err(wrong(format!(
                    "is of an unsupported kind (`{}`)",
                    shown(function)
                )));
            }
            None => {
                return Err(wrong(format!(
                    "is no tensor, but {}",
                    self.values.describe(id)
                )));
            }
        };
        let Value::Persistent(storage) = self.values.get(storage) else {
            return Err(wrong("has no storage".to_owned()));
        };
        let Some(storage_name) = storage_name(self.values, *storage)? else {
            return Err(wrong("has no storage".to_owned()));
        };
        let storage = self.storages.get(&storage_name.key);
        let storage =
            storage.ok_or_else(|| wrong("has a storage that is not in the file".to_owned()))?;
        let sides = |id: Id| -> Option<Vec<usize>> {
            let items = self.values.sequence(id)?;
            let side = |&item: &Id| usize::try_from(self.values.int(item)?).ok();
            (items.len() <= MOST_SIDES).then(|| items.iter().map(side).collect())?
        };
        let (Some(shape), Some(strides)) = (sides(size), sides(stride)) else {
            return Err(wrong("has sides or strides that are no numbers".to_owned()));
        };
        let offset = self
            .values
            .int(offset)
            .and_then(|offset| usize::try_from(offset).ok());
        let offset = offset.and_then(|offset| offset.checked_add(storage_name.offset));
        let Some(offset) = offset.filter(|_| shape.len() == strides.len()) else {
            return Err(wrong(
                "has no place in its storage, or another number of strides than sides".to_owned(),
            ));
        };
        let width = storage.element.bytes();
        let in_storage = storage.bytes.len() / width;
        let outside = || {
            wrong(format!(
                "reaches outside its storage of {in_storage} numbers"
            ))
        };
        let count = shape
            .iter()
            .try_fold(1_usize, |product, &side| product.checked_mul(side));
        let count = count.ok_or_else(outside)?;
        if count > in_storage {
            return Err(outside());
        }
        if count > 0 {
            let last = shape
                .iter()
                .zip(&strides)
                .try_fold(offset, |last, (&side, &stride)| {
                    last.checked_add((side - 1).checked_mul(stride)?)
                });
            if last.is_none_or(|last| last >= in_storage) {
                return Err(outside());
            }
            if overlaps(&shape, &strides) {
                return Err(wrong(
                    "reads numbers of its storage more than once".to_owned(),
                ));
            }
        }
        let length = count * width;
        self.bytes_left = self
            .bytes_left
            .checked_sub(length)
            .ok_or(PickleError::TooMany {
                what: "numbers in tensors of shared storages",
                limit: in_storage,
            })?;
        let bytes = gather(storage.bytes, width, offset, &shape, &strides, count);
        if !self.names.insert(name.clone()) {
            return Err(wrong("is there twice".to_owned()));
        }
        self.found.tensors.push(StoredTensor {
            name,
            element: storage.element,
            shape,
            bytes,
        });
        Ok(())
    }
}

/// Whether two places of a tensor may be one number: each side, from that of the smallest stride on, must step over all that the
/// sides before it reach.
fn overlaps(shape: &[usize], strides: &[usize]) -> bool {
    let mut sides: Vec<(usize, usize)> = (strides.iter().copied().zip(shape.iter().copied()))
        .filter(|&(_, side)| side > 1)
        .collect();
    sides.sort_unstable();
    let mut reach = 0_usize;
    for (stride, side) in sides {
        if stride <= reach {
            return true;
        }
        reach = reach.saturating_add(stride.saturating_mul(side - 1));
    }
    false
}

/// The numbers of a tensor that lies within `bytes`, in the order of its places.
fn gather(
    bytes: &[u8],
    width: usize,
    offset: usize,
    shape: &[usize],
    strides: &[usize],
    count: usize,
) -> Vec<u8> {
    let mut expected = 1;
    let is_plain = shape.iter().zip(strides).rev().all(|(&side, &stride)| {
        let fits = side <= 1 || stride == expected;
        expected *= side.max(1);
        fits
    });
    if is_plain {
        let range = offset * width..(offset + count) * width;
        return bytes.get(range).unwrap_or_default().to_vec();
    }
    let mut gathered = Vec::with_capacity(count * width);
    let mut place = vec![0_usize; shape.len()];
    for _ in 0..count {
        let at: usize = place
            .iter()
            .zip(strides)
            .map(|(&p, &stride)| p * stride)
            .sum();
        let at = (offset + at) * width;
        gathered.extend(bytes.get(at..at + width).unwrap_or_default());
        for (place, &side) in place.iter_mut().zip(shape).rev() {
            *place += 1;
            if *place < side {
                break;
            }
            *place = 0;
        }
    }
    gathered
}
