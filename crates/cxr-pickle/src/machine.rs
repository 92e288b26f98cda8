//! The pickle machine: the opcodes that `torch.save` writes, on values that only say what they are.
//!
//! The opcodes are those of Python's `pickletools`, protocols 2 to 5. Calls are recorded and never made.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::PickleError;

/// A value by its place; places stay.
pub(crate) type Id = u32;

/// What a pickle builds.
#[derive(Debug)]
pub(crate) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits.
    BigInt(&'a [u8]),
    Float,
    Text(Cow<'a, str>),
    Bytes,
    /// Tuples, lists and sets.
    Sequence(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or a function, by its names.
    Global(Cow<'a, str>, Cow<'a, str>),
    /// What calling `callee` with `arguments` would give, with what was put into it afterwards.
    Call {
        callee: Id,
        arguments: Id,
        items: Vec<(Id, Id)>,
        state: Option<Id>,
    },
    /// Something outside of the pickle, such as a storage.
    Persistent(Id),
}

/// All values of a pickle.
#[derive(Debug, Default)]
pub(crate) struct Values<'a>(Vec<Value<'a>>);

/// The most opcodes that are run, over all pickles of a file: a module of a thousand layers has a tenth of it.
const MOST_OPCODES: usize = 1 << 23;

impl<'a> Values<'a> {
    pub(crate) fn get(&self, id: Id) -> &Value<'a> {
        const NONE: &Value<'static> = &Value::None;
        self.0.get(id as usize).unwrap_or(NONE)
    }

    /// Whether there is a value at this place.
    pub(crate) fn has(&self, id: Id) -> bool {
        (id as usize) < self.0.len()
    }

    fn add(&mut self, value: Value<'a>) -> Id {
        // There are no more values than opcodes.
        let id = self.0.len() as Id;
        self.0.push(value);
        id
    }

    pub(crate) fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn int(&self, id: Id) -> Option<i64> {
        match self.get(id) {
            Value::Int(number) => Some(*number),
            _ => None,
        }
    }

    pub(crate) fn sequence(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::Sequence(items) => Some(items),
            _ => None,
        }
    }

    /// The entries of a dictionary, or of an ordered one.
    pub(crate) fn entries(&self, id: Id) -> Option<Vec<(Id, Id)>> {
        match self.get(id) {
            Value::Dict(items) => Some(items.clone()),
            Value::Call {
                callee,
                arguments,
                items,
                ..
            } => {
                if !self.is_global(*callee, "collections", "OrderedDict") {
                    return None;
                }
                // Python 2 gave the entries to the call, as a list of pairs.
                let mut entries = Vec::new();
                let given = self.sequence(*arguments)?.first().copied();
                for &pair in given.and_then(|given| self.sequence(given)).unwrap_or(&[]) {
                    let &[key, value] = self.sequence(pair)? else {
                        return None;
                    };
                    entries.push((key, value));
                }
                entries.extend(items);
                Some(entries)
            }
            _ => None,
        }
    }

    pub(crate) fn is_global(&self, id: Id, module: &str, name: &str) -> bool {
        matches!(self.get(id), Value::Global(m, n) if m == module && n == name)
    }

    /// What a value is, for people.
    pub(crate) fn describe(&self, id: Id) -> String {
        match self.get(id) {
            Value::None => "nothing (`None`)".to_owned(),
            Value::Bool(_) | Value::Int(_) | Value::BigInt(_) | Value::Float => {
                "a number".to_owned()
            }
            Value::Text(_) | Value::Bytes => "a text".to_owned(),
            Value::Sequence(items) => format!("a list of {} values", items.len()),
            Value::Dict(_) => "a dictionary".to_owned(),
            Value::Global(module, name) => format!(
                "the class `{}`",
                crate::error::shown(&format!("{module}.{name}"))
            ),
            Value::Call { callee, .. } => match self.get(*callee) {
                Value::Global(module, name) => {
                    format!(
                        "an object of `{}`",
                        crate::error::shown(&format!("{module}.{name}"))
                    )
                }
                _ => "an object".to_owned(),
            },
            Value::Persistent(_) => "a storage".to_owned(),
        }
    }
}

/// Runs one pickle after the other, from the beginning of some bytes.
pub(crate) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    opcodes: usize,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    pub(crate) values: Values<'a>,
}

impl<'a> Machine<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            opcodes: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            values: Values::default(),
        }
    }

    /// What follows the pickles that were run.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Runs the next pickle to its end; returns what it builds.
    pub(crate) fn run(&mut self) -> Result<Id, PickleError> {
        self.stack.clear();
        self.marks.clear();
        self.memo.clear();
        loop {
            self.opcodes += 1;
            if self.opcodes > MOST_OPCODES {
                return Err(PickleError::TooMany {
                    what: "steps in its pickle",
                    limit: MOST_OPCODES,
                });
            }
            let opcode = self.byte()?;
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode)?;
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            // PROTO, FRAME.
            0x80 => {
                let version = self.byte()?;
                if !(2..=5).contains(&version) {
                    return Err(self.wrong(format!("protocol {version}")));
                }
            }
            0x95 => {
                self.take(8)?;
            }
            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.above_mark()?;
            }
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'J' => {
                let number = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(number.into()));
            }
            b'K' => {
                let number = self.byte()?;
                self.push(Value::Int(number.into()));
            }
            b'M' => {
                let number = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(number.into()));
            }
            // LONG1, LONG4.
            0x8a => {
                let length = usize::from(self.byte()?);
                self.long(length)?;
            }
            0x8b => {
                let length = self.length4()?;
                self.long(length)?;
            }
            b'G' => {
                self.take(8)?;
                self.push(Value::Float);
            }
            // Text, with lengths of 1, 4 and 8 bytes.
            0x8c => {
                let length = usize::from(self.byte()?);
                self.text(length)?;
            }
            b'X' => {
                let length = self.length4()?;
                self.text(length)?;
            }
            0x8d => {
                let length = self.length8()?;
                self.text(length)?;
            }
            // Strings of Python 2, and bytes.
            b'U' => {
                let length = usize::from(self.byte()?);
                self.string(length)?;
            }
            b'T' => {
                let length = self.length4()?;
                self.string(length)?;
            }
            b'C' => {
                let length = usize::from(self.byte()?);
                self.take(length)?;
                self.push(Value::Bytes);
            }
            b'B' => {
                let length = self.length4()?;
                self.take(length)?;
                self.push(Value::Bytes);
            }
            0x8e | 0x96 => {
                let length = self.length8()?;
                self.take(length)?;
                self.push(Value::Bytes);
            }
            b']' | b')' | 0x8f => self.push(Value::Sequence(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            b't' | b'l' | 0x91 => {
                let items = self.above_mark()?;
                self.push(Value::Sequence(items));
            }
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let first = self.floor(count)?;
                let items = self.stack.split_off(first);
                self.push(Value::Sequence(items));
            }
            b'd' => {
                let items = self.above_mark()?;
                let pairs = self.pairs(&items)?;
                self.push(Value::Dict(pairs));
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(&[item])?;
            }
            b'e' | 0x90 => {
                let items = self.above_mark()?;
                self.extend(&items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set(&[(key, value)])?;
            }
            b'u' => {
                let items = self.above_mark()?;
                let pairs = self.pairs(&items)?;
                self.set(&pairs)?;
            }
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.push(Value::Global(module, name));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) =
                    (self.values.get(module), self.values.get(name))
                else {
                    return Err(self.wrong("a class whose name is no text"));
                };
                let global = Value::Global(module.clone(), name.clone());
                self.push(global);
            }
            // REDUCE, NEWOBJ and NEWOBJ_EX: calls.
            b'R' | 0x81 | 0x92 => {
                if opcode == 0x92 {
                    self.pop()?;
                }
                let (arguments, callee) = (self.pop()?, self.pop()?);
                self.push(Value::Call {
                    callee,
                    arguments,
                    items: Vec::new(),
                    state: None,
                });
            }
            b'b' => {
                let new = self.pop()?;
                let object = self.top()?;
                match self.values.0.get_mut(object as usize) {
                    Some(Value::Call { state, .. }) => *state = Some(new),
                    _ => return Err(self.wrong("a state for what is no object")),
                }
            }
            b'q' => {
                let place = u32::from(self.byte()?);
                self.remember(place)?;
            }
            b'r' => {
                let place = u32::from_le_bytes(self.array()?);
                self.remember(place)?;
            }
            0x94 => {
                let place = self.memo.len() as u32;
                self.remember(place)?;
            }
            b'h' => {
                let place = u32::from(self.byte()?);
                self.recall(place)?;
            }
            b'j' => {
                let place = u32::from_le_bytes(self.array()?);
                self.recall(place)?;
            }
            b'Q' => {
                let name = self.pop()?;
                self.push(Value::Persistent(name));
            }
            other => return Err(self.wrong(format!("the opcode {other:#04x}"))),
        }
        Ok(())
    }

    fn wrong(&self, problem: impl Into<String>) -> PickleError {
        PickleError::Pickle {
            problem: problem.into(),
            at: self.at,
        }
    }

    fn push(&mut self, value: Value<'a>) {
        let id = self.values.add(value);
        self.stack.push(id);
    }

    /// The lowest place of the uppermost `count` values, which no mark divides.
    fn floor(&self, count: usize) -> Result<usize, PickleError> {
        let least = self.marks.last().copied().unwrap_or(0);
        let floor = self.stack.len().checked_sub(count);
        floor
            .filter(|&floor| floor >= least)
            .ok_or_else(|| self.wrong("a value that is not there"))
    }

    fn pop(&mut self) -> Result<Id, PickleError> {
        let place = self.floor(1)?;
        let top = self.stack[place];
        self.stack.truncate(place);
        Ok(top)
    }

    fn top(&self) -> Result<Id, PickleError> {
        Ok(self.stack[self.floor(1)?])
    }

    fn above_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark.min(self.stack.len()))),
            None => Err(self.wrong("the end of a list that was not begun")),
        }
    }

    fn pairs(&self, items: &[Id]) -> Result<Vec<(Id, Id)>, PickleError> {
        let (pairs, rest) = items.as_chunks::<2>();
        match rest {
            [] => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
            _ => Err(self.wrong("a key without a value")),
        }
    }

    fn extend(&mut self, new: &[Id]) -> Result<(), PickleError> {
        let list = self.top()?;
        match self.values.0.get_mut(list as usize) {
            Some(Value::Sequence(items)) => items.extend(new),
            // Of a class of the author's own, whose items nobody reads.
            Some(Value::Call { .. }) => {}
            _ => return Err(self.wrong("an item for what is no list")),
        }
        Ok(())
    }

    fn set(&mut self, new: &[(Id, Id)]) -> Result<(), PickleError> {
        let dictionary = self.top()?;
        match self.values.0.get_mut(dictionary as usize) {
            Some(Value::Dict(items) | Value::Call { items, .. }) => items.extend(new),
            _ => return Err(self.wrong("an entry for what is no dictionary")),
        }
        Ok(())
    }

    fn remember(&mut self, place: u32) -> Result<(), PickleError> {
        let top = self.top()?;
        self.memo.insert(place, top);
        Ok(())
    }

    fn recall(&mut self, place: u32) -> Result<(), PickleError> {
        match self.memo.get(&place) {
            Some(&id) => {
                self.stack.push(id);
                Ok(())
            }
            None => Err(self.wrong("a value that was not kept")),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], PickleError> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| PickleError::Truncated {
            what: "its pickle".to_owned(),
        })?;
        self.at += count;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, PickleError> {
        Ok(self.array::<1>()?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn length4(&mut self) -> Result<usize, PickleError> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn length8(&mut self) -> Result<usize, PickleError> {
        let length = u64::from_le_bytes(self.array()?);
        usize::try_from(length).map_err(|_| self.wrong("a length that no memory has"))
    }

    /// An integer in two's complement, the lowest byte first.
    fn long(&mut self, length: usize) -> Result<(), PickleError> {
        let bytes = self.take(length)?;
        let value = if length > 8 {
            Value::BigInt(bytes)
        } else {
            let is_negative = bytes.last().is_some_and(|&last| last & 0x80 != 0);
            let mut all = [if is_negative { 0xff } else { 0 }; 8];
            all[..length].copy_from_slice(bytes);
            Value::Int(i64::from_le_bytes(all))
        };
        self.push(value);
        Ok(())
    }

    fn text(&mut self, length: usize) -> Result<(), PickleError> {
        let bytes = self.take(length)?;
        let text =
            std::str::from_utf8(bytes).map_err(|_| self.wrong("a text that is not UTF-8"))?;
        self.push(Value::Text(text.into()));
        Ok(())
    }

    fn string(&mut self, length: usize) -> Result<(), PickleError> {
        let bytes = self.take(length)?;
        self.push(Value::Text(String::from_utf8_lossy(bytes)));
        Ok(())
    }

    fn line(&mut self) -> Result<Cow<'a, str>, PickleError> {
        let rest = self.rest();
        let length = rest.iter().position(|&byte| byte == b'\n');
        let length = length.ok_or_else(|| PickleError::Truncated {
            what: "its pickle".to_owned(),
        })?;
        self.at += length + 1;
        Ok(String::from_utf8_lossy(&rest[..length]))
    }
}
