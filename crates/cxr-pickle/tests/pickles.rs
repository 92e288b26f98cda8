//! Files that `torch.save` wrote, tensor for tensor, and files that nobody should.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use std::io::Write as _;
use std::path::{Path, PathBuf};

use cxr_pickle::{ElementType, PickleError, StoredTensor, read_weights};
use proptest::prelude::*;
use serde_json::Value;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn bytes_of(name: &str) -> Vec<u8> {
    std::fs::read(golden(name)).unwrap()
}

fn expected() -> serde_json::Map<String, Value> {
    let text = std::fs::read_to_string(golden("expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The numbers of a tensor.
fn numbers(tensor: &StoredTensor) -> Vec<f64> {
    let half = |bits: u16| {
        let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
        let size = match exponent {
            0 => fraction * 2f64.powi(-24),
            _ => (1. + fraction / 1024.) * 2f64.powi(exponent - 15),
        };
        if bits >> 15 == 1 { -size } else { size }
    };
    let number = |bytes: &[u8]| match (tensor.element, bytes) {
        (ElementType::F64, _) => f64::from_le_bytes(bytes.try_into().unwrap()),
        (ElementType::F32, _) => f32::from_le_bytes(bytes.try_into().unwrap()).into(),
        (ElementType::F16, _) => half(u16::from_le_bytes(bytes.try_into().unwrap())),
        (ElementType::BF16, &[low, high]) => f32::from_le_bytes([0, 0, low, high]).into(),
        (ElementType::I64, _) => i64::from_le_bytes(bytes.try_into().unwrap()) as f64,
        (ElementType::U8 | ElementType::Bool, &[byte]) => byte.into(),
        other => panic!("{other:?}"),
    };
    tensor
        .bytes
        .chunks(tensor.element.bytes())
        .map(number)
        .collect()
}

#[test]
fn files_of_both_formats_are_read_tensor_for_tensor() {
    let kinds = |text: &str| match text {
        "float64" => ElementType::F64,
        "float32" => ElementType::F32,
        "float16" => ElementType::F16,
        "bfloat16" => ElementType::BF16,
        "int64" => ElementType::I64,
        "uint8" => ElementType::U8,
        "bool" => ElementType::Bool,
        other => panic!("{other}"),
    };
    let all = expected();
    assert_eq!(all.len(), 8);
    for (name, expected) in all {
        let read = read_weights(&bytes_of(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let tensors = expected["tensors"].as_array().unwrap();
        assert_eq!(read.tensors.len(), tensors.len(), "{name}");
        // A module's parameters come before its buffers, as in its state dictionary.
        for (found, expected) in read.tensors.iter().zip(tensors) {
            assert_eq!(found.name, expected["name"].as_str().unwrap(), "{name}");
            assert_eq!(found.element, kinds(expected["type"].as_str().unwrap()));
            assert_eq!(
                serde_json::to_value(&found.shape).unwrap(),
                expected["shape"]
            );
            let values: Vec<f64> = serde_json::from_value(expected["values"].clone()).unwrap();
            assert_eq!(numbers(found), values, "{name}: {}", found.name);
        }
        assert_eq!(
            serde_json::to_value(&read.found_under).unwrap(),
            expected["found_under"]
        );
        assert_eq!(
            serde_json::to_value(&read.others).unwrap(),
            expected["others"]
        );
    }
}

#[track_caller]
fn refused(bytes: &[u8], says: &str) {
    let error = read_weights(bytes).unwrap_err().to_string();
    assert!(error.contains(says), "{error}");
}

#[test]
fn other_formats_are_named() {
    refused(&bytes_of("before-0.1.10.tar"), "before version 0.1.10");
    refused(b"\x89HDF\r\n\x1a\n", "Keras");
    refused(b"", "not written by `torch.save`");
    refused(b"weights", "not written by `torch.save`");
    // Python's own pickle of a dictionary.
    refused(
        b"\x80\x04\x95\x0b\0\0\0\0\0\0\0}\x94\x8c\x01a\x94K\x01s.",
        "a pickle that was not written by `torch.save`",
    );
    refused(
        &archive(&[("a/data.pkl", b"\x80\x02}."), ("a/constants.pkl", b"")]),
        "TorchScript",
    );
    refused(&archive(&[("a/readme", b"")]), "no `data.pkl`");
    refused(
        &archive(&[("a/data.pkl", b"\x80\x02}.")]),
        "holds no weights",
    );
    refused(
        &archive(&[("a/data.pkl", b"\x80\x02]."), ("a/byteorder", b"big")]),
        "highest byte first",
    );
}

fn archive_with(method: CompressionMethod, entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        let options = SimpleFileOptions::default().compression_method(method);
        zip.start_file(*name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    archive_with(CompressionMethod::Stored, entries)
}

fn int(value: i32) -> Vec<u8> {
    [b"J".as_slice(), &value.to_le_bytes()].concat()
}

fn text(text: &str) -> Vec<u8> {
    [
        b"X".as_slice(),
        &(text.len() as u32).to_le_bytes(),
        text.as_bytes(),
    ]
    .concat()
}

fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(".to_vec(), items.concat(), b"t".to_vec()].concat()
}

/// A call that rebuilds a tensor of the storage `0`, of `count` numbers of single precision.
fn tensor(count: i32, offset: i32, sides: &[i32], strides: &[i32]) -> Vec<u8> {
    let ints = |values: &[i32]| tuple(&values.iter().map(|&value| int(value)).collect::<Vec<_>>());
    let storage = [
        tuple(&[
            text("storage"),
            b"ctorch\nFloatStorage\n".to_vec(),
            text("0"),
            text("cpu"),
            int(count),
        ]),
        b"Q".to_vec(),
    ];
    let arguments = [
        storage.concat(),
        int(offset),
        ints(sides),
        ints(strides),
        b"\x89".to_vec(),
        b"}".to_vec(),
    ];
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n".to_vec(),
        tuple(&arguments),
        b"R".to_vec(),
    ]
    .concat()
}

/// An archive with the dictionary `{"w": tensor}` and six numbers.
fn of_tensor(tensor: &[u8]) -> Vec<u8> {
    let pickle = [b"\x80\x02}".as_slice(), &text("w"), tensor, b"s."].concat();
    let numbers: Vec<u8> = (0..6)
        .flat_map(|value| (value as f32).to_le_bytes())
        .collect();
    archive(&[("a/data.pkl", &pickle), ("a/data/0", &numbers)])
}

#[test]
fn tensors_stay_within_their_storages() {
    let read = read_weights(&of_tensor(&tensor(6, 1, &[2, 2], &[1, 3]))).unwrap();
    assert_eq!(numbers(&read.tensors[0]), [1., 4., 2., 5.]);
    for (count, offset, sides, strides, says) in [
        (6, 0, &[7][..], &[1][..], "reaches outside"),
        (6, 1, &[6], &[1], "reaches outside"),
        (6, 0, &[2, 3], &[4, 1], "reaches outside"),
        (6, -1, &[2], &[1], "no place in its storage"),
        (6, 0, &[2], &[-1], "sides or strides"),
        (6, 0, &[-2], &[1], "sides or strides"),
        (6, 0, &[2, 2], &[1], "another number of strides"),
        (6, i32::MAX, &[1], &[1], "reaches outside"),
        (
            6,
            0,
            &[i32::MAX, i32::MAX, i32::MAX],
            &[1, 1, 1],
            "reaches outside",
        ),
        (6, 0, &[2], &[i32::MAX], "reaches outside"),
        // One number, many times over.
        (6, 0, &[6], &[0], "more than once"),
        (6, 0, &[2, 2], &[1, 1], "more than once"),
        (6, 0, &[2, 2], &[2, 0], "more than once"),
        // A storage that is shorter than it says.
        (7, 0, &[1], &[1], "24 bytes"),
        (i32::MAX, 0, &[1], &[1], "24 bytes"),
        (-1, 0, &[1], &[1], "without a key or a length"),
    ] {
        let error = read_weights(&of_tensor(&tensor(count, offset, sides, strides))).unwrap_err();
        assert!(
            error.to_string().contains(says),
            "{sides:?} {strides:?}: {error}"
        );
    }
    // Empty tensors have no numbers to be outside.
    let read = read_weights(&of_tensor(&tensor(6, 6, &[0, 3], &[3, 1]))).unwrap();
    assert!(read.tensors[0].bytes.is_empty());
}

/// Entries that lie over each other would unpack to more than the file; zip bombs are made of them.
#[test]
fn entries_of_an_archive_lie_side_by_side() {
    // Two storages, each of them all the numbers.
    let pickle = |key: &str| {
        let one = tensor(300, 0, &[1], &[1]);
        let at = one
            .windows(6)
            .position(|window| window == text("0"))
            .unwrap();
        [&one[..at], &text(key), &one[at + 6..]].concat()
    };
    let dictionary = [
        &b"\x80\x02}"[..],
        &text("v"),
        &pickle("0"),
        b"s",
        &text("w"),
        &pickle("1"),
        b"s.",
    ]
    .concat();
    let numbers = [0; 1200];
    let mut bytes = archive(&[
        ("a/data.pkl", &dictionary),
        ("a/data/0", &numbers),
        ("a/data/1", &numbers),
    ]);
    assert_eq!(read_weights(&bytes).unwrap().tensors.len(), 2);
    // The second entry's header is said to be where the first one's is.
    let find = |bytes: &[u8], what: &[u8]| -> Vec<usize> {
        (0..bytes.len() - what.len())
            .filter(|&at| bytes[at..].starts_with(what))
            .collect()
    };
    let headers = find(&bytes, b"PK\x03\x04");
    let directory = find(&bytes, b"PK\x01\x02");
    let first = (headers[1] as u32).to_le_bytes();
    bytes[directory[2] + 42..][..4].copy_from_slice(&first);
    assert!(
        read_weights(&bytes).is_ok(),
        "two storages of one size, no more than the file"
    );
    // In a file that is no longer than one of them there is no room for both.
    let second = find(&bytes, b"PK\x03\x04")[2];
    let removed = find(&bytes, b"PK\x01\x02")[0] - second;
    bytes.drain(second..second + removed);
    let end = find(&bytes, b"PK\x05\x06")[0];
    let offset = (find(&bytes, b"PK\x01\x02")[0] as u32).to_le_bytes();
    bytes[end + 16..][..4].copy_from_slice(&offset);
    refused(&bytes, "lies over other entries");
}

#[test]
fn nothing_that_a_pickle_asks_for_is_done_or_believed() {
    let pickled = |pickle: &[u8]| archive(&[("a/data.pkl", pickle), ("a/data/0", &[0; 24])]);
    // A call of a function is a record of it.
    let error =
        read_weights(&pickled(b"\x80\x02cposix\nsystem\nX\x04\0\0\0true\x85R.")).unwrap_err();
    assert_eq!(
        error,
        PickleError::NoWeights {
            found: "an object of `posix.system`".to_owned()
        }
    );
    // Lengths that no memory has, values that are not there, opcodes of protocols that torch.save has not.
    for (pickle, says) in [
        (&b"\x80\x02X\xff\xff\xff\xff"[..], "cut off"),
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", "cut off"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f", "cut off"),
        (b"\x80\x02", "cut off"),
        (b"\x80\x02.", "not there"),
        (b"\x80\x02)(R.", "not there"),
        (b"\x80\x02h\x05.", "not kept"),
        (b"\x80\x02t.", "not begun"),
        (b"\x80\x02}(K\x01u.", "without a value"),
        (b"\x80\x02K\x01b.", "not there"),
        (b"\x80\x02K\x01}b.", "no object"),
        (b"\x80\x02K\x01K\x02K\x03s.", "no dictionary"),
        (b"\x80\x02K\x01K\x02a.", "no list"),
        (b"\x80\x02X\x01\0\0\0\xff.", "not UTF-8"),
        (b"\x80\x02ios\nsystem\n.", "the opcode 0x69"),
        (b"\x80\x01N.", "protocol 1"),
    ] {
        refused(&pickled(pickle), says);
    }
    // Names of the file are paths of nothing, and errors show them on one line.
    let hostile = [
        b"\x80\x02}".as_slice(),
        &text("../../etc/\u{1b}[2Jpasswd\n"),
        &tensor(6, 9, &[1], &[1]),
        b"s.",
    ]
    .concat();
    refused(
        &pickled(&hostile),
        "`../../etc/\\u{1b}[2Jpasswd\\n` reaches outside",
    );
    // A storage of another name, of another type, compressed, or twice as long as the archive.
    let other = [
        b"\x80\x02}".as_slice(),
        &text("w"),
        &tensor(6, 0, &[1], &[1]),
        b"s.",
    ]
    .concat();
    refused(&archive(&[("a/data.pkl", &other)]), "data/0");
    let zeros = vec![0; 1 << 20];
    let bomb = archive_with(
        CompressionMethod::Deflated,
        &[("a/data.pkl", &other), ("a/data/0", &zeros)],
    );
    refused(&bomb, "compressed");
    refused(
        &archive(&[("a/data.pkl", b"\x80\x02}."), ("b/data.pkl", b"\x80\x02}.")]),
        "two `data.pkl`",
    );
}

/// An object of a class with the state `{"_parameters": {}, "_modules": MODULES}`.
fn module(modules: &[u8]) -> Vec<u8> {
    let state = [
        b"}".as_slice(),
        &text("_parameters"),
        b"}s",
        &text("_modules"),
        modules,
        b"s",
    ]
    .concat();
    [b"cnn\nModule\n)\x81".as_slice(), &state, b"b"].concat()
}

/// Modules within modules: so deep that a stack ends, or each twice in the next, which is more than a lifetime.
#[test]
fn modules_are_walked_as_far_as_networks_go() {
    let mut deep = module(b"}");
    for _ in 0..2000 {
        deep = module(&[b"}".as_slice(), &text("m"), &deep, b"s"].concat());
    }
    let pickle = [b"\x80\x02".as_slice(), &deep, b"."].concat();
    refused(
        &archive(&[("a/data.pkl", &pickle)]),
        "more than 64 modules within each other",
    );
    let mut twice = [module(b"}"), b"q\x00".to_vec()].concat();
    for _ in 0..60 {
        let both = [
            b"}".as_slice(),
            &text("a"),
            &twice,
            b"q\x00s",
            &text("b"),
            b"h\x00s",
        ]
        .concat();
        twice = module(&both);
    }
    let pickle = [b"\x80\x02".as_slice(), &twice, b"."].concat();
    refused(
        &archive(&[("a/data.pkl", &pickle)]),
        "entries in its modules",
    );
    // A list that holds itself.
    refused(
        &archive(&[("a/data.pkl", b"\x80\x02]q\x00h\x00a.")]),
        "a list of 1 values",
    );
    // A dictionary under itself.
    let itself = [b"\x80\x02}q\x00".as_slice(), &text("model"), b"h\x00s."].concat();
    refused(
        &archive(&[("a/data.pkl", &itself)]),
        "a dictionary with `model`",
    );
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    for name in expected().keys() {
        let bytes = bytes_of(name);
        for length in 0..bytes.len() {
            // Numbers may end a file of before PyTorch 1.6 only where the last storage does.
            assert!(
                read_weights(&bytes[..length]).is_err(),
                "{name} of {length} bytes"
            );
        }
    }
}

proptest! {
    #[test]
    fn changed_bytes_give_an_error_or_tensors_as_long_as_they_say(
        which in 0..8_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let all = expected();
        let mut bytes = bytes_of(all.keys().nth(which).unwrap());
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Ok(weights) = read_weights(&bytes) {
            for tensor in &weights.tensors {
                let count: usize = tensor.shape.iter().product();
                prop_assert_eq!(tensor.bytes.len(), count * tensor.element.bytes());
            }
        }
    }
}
