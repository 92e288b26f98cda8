//! `cxr export` and `cxr import`, run as a user runs them.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

mod common;

use std::path::Path;
use std::process::Output;

use common::{cxr, stderr, trained};
use safetensors::SafeTensors;

const RUN: &str = "models/runs/tiny/bce";

#[track_caller]
fn ends(output: &Output, code: i32, says: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", stderr(output));
    assert!(stderr(output).contains(says), "{}", stderr(output));
    assert!(!stderr(output).contains("panicked"), "{}", stderr(output));
}

fn contains(path: &Path, text: &str) -> bool {
    let bytes = std::fs::read(path).unwrap();
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[test]
fn a_trained_model_is_written_for_onnx_and_pytorch() {
    let folder = trained();
    let folder = folder.path();
    let export = |arguments: &[&str]| cxr(folder, &[&["export", RUN][..], arguments].concat());

    let output = export(&["--onnx", "model.onnx", "--torch", "for torch"]);
    ends(&output, 0, "written to `model.onnx`");
    let graph = folder.join("model.onnx");
    assert!(
        std::fs::read(&graph)
            .unwrap()
            .starts_with(b"\x08\x08\x12\x03cxr")
    );
    for text in [
        "images",
        "logits",
        "features.conv0.weight",
        "Pleural_Thickening",
        "not a medical device",
        "cc-by-4.0",
    ] {
        assert!(contains(&graph, text), "{text}");
    }

    // The tensors are those of the model, under torchvision's names; the paper's head has a class of its own.
    let [ours, theirs] = [
        "models/runs/tiny/bce/model.safetensors",
        "for torch/model.safetensors",
    ]
    .map(|path| std::fs::read(folder.join(path)).unwrap());
    let [ours, theirs] = [&ours, &theirs].map(|bytes| SafeTensors::deserialize(bytes).unwrap());
    let mut counters = 0;
    for (name, tensor) in theirs.iter() {
        match name.strip_suffix(".num_batches_tracked") {
            Some(_) => counters += 1,
            None => assert_eq!(ours.tensor(name).unwrap().data(), tensor.data(), "{name}"),
        }
    }
    // Stem, three dense layers of two, a transition, the last; four of the head.
    assert_eq!(counters, 1 + 6 + 1 + 1 + 4);
    assert_eq!(theirs.len(), ours.len() + counters);
    let module = std::fs::read_to_string(folder.join("for torch/model.py")).unwrap();
    assert!(
        module.contains("block_config=(1, 2,), num_init_features=8"),
        "{module}"
    );
    assert!(!module.contains('@'), "{module}");

    // Its own files are replaced, those of others are not, and the model never is.
    ends(
        &export(&["--onnx", "model.onnx", "--torch", "for torch"]),
        0,
        "",
    );
    std::fs::write(folder.join("notes.onnx"), "mine").unwrap();
    ends(&export(&["--onnx", "notes.onnx"]), 1, "--force");
    ends(&export(&["--onnx", "notes.onnx", "--force"]), 0, "");
    let model = "models/runs/tiny/bce/model.safetensors";
    let before = std::fs::read(folder.join(model)).unwrap();
    ends(&export(&["--onnx", model, "--force"]), 1, "also read");
    ends(&export(&["--torch", RUN, "--force"]), 1, "also read");
    assert!(std::fs::read(folder.join(model)).unwrap() == before);

    let whole = ["--onnx", "whole.onnx", "--include", "resize,probabilities"];
    ends(&export(&whole), 0, "");
    for text in ["antialias", "probabilities"] {
        assert!(contains(&folder.join("whole.onnx"), text), "{text}");
    }

    // Wrong usage says what would be right; what is no model is named, and nothing is written.
    ends(&export(&[]), 2, "--onnx");
    ends(
        &export(&["--torch", "x", "--include", "resize"]),
        2,
        "--onnx",
    );
    ends(
        &export(&["--onnx", "x", "--include", "labels"]),
        2,
        "normalization",
    );
    let output = cxr(
        folder,
        &["export", "for torch/model.safetensors", "--onnx", "x.onnx"],
    );
    ends(&output, 1, "it does not say what it is of");
    assert!(!folder.join("x.onnx").exists());
}

/// What the example of torchvision's users is: a classifier as `torch_files` writes it is imported as the model that it was.
#[test]
fn weights_of_others_become_a_model_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // A network of random weights under torchvision's names, with three outputs.
    let card = cxr_model::ModelCard::parse(
        r#"{"experiment": "e", "variant": "v", "loss": "bce", "loss_parameters": {}, "labels": ["a", "b", "c"],
            "backbone": {"resnet18": {}}, "head": {"linear": {}}, "image_size": 64, "crop_size": 64,
            "normalization_mean": [0.485, 0.456, 0.406], "normalization_std": [0.229, 0.224, 0.225],
            "logit_thresholds": [0.0, 0.0, 0.0]}"#,
    );
    let card = card.unwrap();
    let classifier = cxr_model::Classifier::new(&card, 3, &candle_core::Device::Cpu).unwrap();
    cxr_model::save_model(&folder.join("own.safetensors"), &card, &classifier).unwrap();
    let export = ["export", "own.safetensors", "--torch", "theirs"];
    ends(&cxr(folder, &export), 0, "");
    let import = |arguments: &[&str]| {
        let fixed = [
            "import",
            "theirs/model.safetensors",
            "--architecture",
            "resnet18",
        ];
        cxr(folder, &[&fixed[..], arguments].concat())
    };
    let sizes = ["--crop-size", "64", "-o", "again.safetensors"];
    ends(
        &import(&[&["--labels", "a,b,c", "--licence", "mit"][..], &sizes].concat()),
        0,
        "3 labels, images of 64 pixels",
    );
    let mut film = Vec::new();
    let mut encoder = png::Encoder::new(&mut film, 64, 64);
    encoder.set_color(png::ColorType::Grayscale);
    let pixels: Vec<u8> = (0..64 * 64_u32)
        .map(|at| (3 * (at % 64) + 17 * (at / 64)) as u8)
        .collect();
    encoder
        .write_header()
        .unwrap()
        .write_image_data(&pixels)
        .unwrap();
    std::fs::write(folder.join("film.png"), film).unwrap();
    let predict = |model: &str| {
        let output = cxr(folder, &["predict", model, "film.png"]);
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(predict("own.safetensors"), predict("again.safetensors"));
    assert!(contains(
        &folder.join("again.safetensors"),
        r#"\"licence\":\"mit\""#
    ));

    // An output without a name is left out.
    ends(
        &import(&[&["--labels", "a,,c"][..], &sizes].concat()),
        0,
        "1 outputs have no name",
    );
    let table = predict("again.safetensors");
    assert!(
        table.starts_with("image,patient,study,logit_a,logit_c,"),
        "{table}"
    );

    // What does not fit is named, and nothing is written.
    std::fs::remove_file(folder.join("again.safetensors")).unwrap();
    for (arguments, says) in [
        (&["--labels", "a,b"][..], "3, one for each output"),
        (&["--labels", "a,b,a"], "`a` twice"),
        (&[], "--labels Mass,Nodule"),
        (
            &["--labels", "a,b,c", "--training", "nih"],
            "there is no training `nih`",
        ),
        (
            &["--labels", "a,b,c", "--mean", "1,2"],
            "expected one number, or three",
        ),
        (&["--labels", "a,b,c", "--std", "0"], "std"),
        (&["--labels", "a,b,c", "--image-size", "32"], "crop size"),
        (
            &["--labels", "a,b,c", "--architecture", "resnet50"],
            "cannot be used multiple times",
        ),
    ] {
        let output = import(&[arguments, &sizes].concat());
        assert!(!output.status.success());
        assert!(
            stderr(&output).contains(says),
            "{arguments:?}: {}",
            stderr(&output)
        );
    }
    let other = |file: &str, architecture: &str, says: &str| {
        let arguments = [
            "import",
            file,
            "--architecture",
            architecture,
            "--labels",
            "a,b,c",
        ];
        ends(&cxr(folder, &[&arguments[..], &sizes].concat()), 1, says);
    };
    other(
        "theirs/model.safetensors",
        "resnet34",
        "features.layer1.2.bn1.bias` is missing",
    );
    other(
        "theirs/model.safetensors",
        "densenet121",
        "features.conv0.weight` is missing",
    );
    other(
        "theirs/model.safetensors",
        "resnet-18",
        "`torchxrayvision-densenet121`",
    );
    other(
        "own.safetensors",
        "resnet18",
        "a file of this program already",
    );
    other("film.png", "resnet18", "not written by `torch.save`");
    std::fs::write(folder.join("old.pth"), {
        let mut tar = vec![0_u8; 1024];
        tar[257..262].copy_from_slice(b"ustar");
        tar
    })
    .unwrap();
    other("old.pth", "resnet18", "before version 0.1.10");
    assert!(!folder.join("again.safetensors").exists());

    // A pickle, as `torch.save` writes it, and one that asks for a call.
    std::fs::write(folder.join("state.pth"), pickled(folder, false)).unwrap();
    let arguments = [
        "import",
        "state.pth",
        "--architecture",
        "resnet18",
        "--labels",
        "a,b,c",
    ];
    ends(
        &cxr(folder, &[&arguments[..], &sizes].concat()),
        0,
        "1 values beside the tensors are left out: `epoch`",
    );
    assert_eq!(predict("own.safetensors"), predict("again.safetensors"));
    std::fs::write(folder.join("hostile.pth"), pickled(folder, true)).unwrap();
    other(
        "hostile.pth",
        "resnet18",
        "`features.conv1.weight` is missing",
    );
    assert!(!folder.join("executed").exists());

    let listed = cxr(folder, &["import", "--list"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(
        listed.contains("torchxrayvision-densenet121 (224→224 pixels; --training all|nih|"),
        "{listed}"
    );
}

/// The tensors of `theirs/model.safetensors` as PyTorch's archive; a hostile one has a call of `os.system` in the place of one.
fn pickled(folder: &Path, is_hostile: bool) -> Vec<u8> {
    use std::io::Write as _;

    let bytes = std::fs::read(folder.join("theirs/model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let text = |text: &str| {
        [
            &b"X"[..],
            &(text.len() as u32).to_le_bytes(),
            text.as_bytes(),
        ]
        .concat()
    };
    let int = |number: usize| [&b"J"[..], &(number as i32).to_le_bytes()].concat();
    let ints = |numbers: &[usize]| {
        let numbers: Vec<u8> = numbers.iter().flat_map(|&number| int(number)).collect();
        [&b"("[..], &numbers, b"t"].concat()
    };
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut pickle = [&b"\x80\x02}"[..], &text("epoch"), b"K\x03s"].concat();
    for (at, (name, tensor)) in file.iter().enumerate() {
        let (class, width) = match tensor.dtype() {
            safetensors::Dtype::I64 => ("LongStorage", 8),
            _ => ("FloatStorage", 4),
        };
        let shape = tensor.shape();
        let strides: Vec<usize> = (1..=shape.len())
            .map(|at| shape[at..].iter().product())
            .collect();
        pickle.extend(text(name));
        if is_hostile && name == "conv1.weight" {
            pickle.extend(b"cposix\nsystem\n");
            pickle.extend(text("touch executed"));
            pickle.extend(b"\x85R");
        } else {
            pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
            pickle.extend(text("storage"));
            pickle.extend(format!("ctorch\n{class}\n").bytes());
            pickle.extend(
                [
                    text(&at.to_string()),
                    text("cpu"),
                    int(tensor.data().len() / width),
                ]
                .concat(),
            );
            pickle.extend(
                [
                    &b"tQ"[..],
                    &int(0),
                    &ints(shape),
                    &ints(&strides),
                    b"\x89}tR",
                ]
                .concat(),
            );
            zip.start_file(format!("archive/data/{at}"), options)
                .unwrap();
            zip.write_all(tensor.data()).unwrap();
        }
        pickle.push(b's');
    }
    pickle.push(b'.');
    zip.start_file("archive/data.pkl", options).unwrap();
    zip.write_all(&pickle).unwrap();
    zip.finish().unwrap().into_inner()
}

/// What the author did not say is said in a copy; the weights are the same.
#[test]
fn a_licence_and_a_use_can_be_given_to_a_model() {
    let folder = trained();
    let folder = folder.path();
    let card = |arguments: &[&str]| cxr(folder, &[&["card", RUN][..], arguments].concat());
    let page = |output: &Output| String::from_utf8(output.stdout.clone()).unwrap();
    // The experiment has a licence, and no use.
    let output = card(&[]);
    ends(&output, 0, "");
    assert!(
        page(&output).contains("license: \"cc-by-4.0\""),
        "{}",
        page(&output)
    );
    let given = ["--licence", "mit", "--intended-use", "teaching alone"];
    ends(
        &card(&[&given[..], &["--save", "published.safetensors"]].concat()),
        0,
        "written to",
    );
    let output = cxr(folder, &["card", "published.safetensors"]);
    ends(&output, 0, "");
    let said = page(&output);
    assert!(
        said.contains("license: \"mit\"") && said.contains("teaching alone"),
        "{said}"
    );
    let tensors = |path: &str| {
        let bytes = std::fs::read(folder.join(path)).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let all = file
            .iter()
            .map(|(name, view)| (name.to_owned(), view.data().to_vec()));
        all.collect::<std::collections::BTreeMap<_, _>>()
    };
    let model = format!("{RUN}/model.safetensors");
    assert!(tensors(&model) == tensors("published.safetensors"));
    ends(&card(&["--save", &model, "--force"]), 1, "also read");
}
