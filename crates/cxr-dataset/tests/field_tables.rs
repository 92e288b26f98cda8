//! Tables as people have them: pandas, spreadsheets, Kaggle's sample and CheXpert. Each case stands for a public
//! report, named beside it; the files are made here.

#![expect(clippy::unwrap_used, reason = "a test stops at what it cannot read")]

use cxr_dataset::{
    DatasetError, ImageName, Index, LabelState, OfficialLists, Release, Sex, Split,
    ValidationSplit, ViewPosition, read_boxes,
};

mod common;

const NIH: &str = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]";
const KAGGLE: &str = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,OriginalImageWidth,OriginalImageHeight,OriginalImagePixelSpacing_x,OriginalImagePixelSpacing_y";

fn read_bytes(bytes: &[u8]) -> Result<Index, DatasetError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.csv");
    std::fs::write(&path, bytes).unwrap();
    Index::read(&path)
}

fn read(text: &str) -> Index {
    read_bytes(text.as_bytes()).unwrap()
}

fn utf16(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    let text = format!("\u{feff}{text}");
    text.encode_utf16().flat_map(to_bytes).collect()
}

/// steinbock#28, ng-csv#28: spreadsheets separate and encode as their country does.
#[test]
fn one_table_in_every_form_is_one_index() {
    let text = "image,patient,age,Edema,Mass\na.png,p1,61,1,0\nb.png,p2,,0,\n";
    let expected = read(text);
    let separated = |separator: &str| text.replace(',', separator);
    for (form, bytes) in [
        ("semicolons", separated(";").into_bytes()),
        ("tabs", separated("\t").into_bytes()),
        ("sep=", format!("sep=;\r\n{}", separated(";")).into_bytes()),
        ("mark", format!("\u{feff}{text}").into_bytes()),
        ("CRLF", text.replace('\n', "\r\n").into_bytes()),
        ("CR", text.replace('\n', "\r").into_bytes()),
        ("UTF-16LE", utf16(text, u16::to_le_bytes)),
        ("UTF-16BE", utf16(&separated("\t"), u16::to_be_bytes)),
        (
            "blank lines",
            format!("\n{}\n\n", text.replace('\n', "\n\n")).into_bytes(),
        ),
        ("empty columns", text.replace('\n', ",,\n").into_bytes()),
        ("empty rows", format!("{text},,,,\n").into_bytes()),
        ("gzip", common::archives::gzip(text.as_bytes())),
        (
            "quotes",
            text.lines()
                .map(|line| format!("\"{}\"\n", line.replace(',', "\",\"")))
                .collect::<String>()
                .into_bytes(),
        ),
        // pandas#28335: floats, words for nothing, truth values, and the index of `to_csv`.
        (
            "pandas",
            b",image,patient,age,Edema,Mass\n0,a.png,p1,61.0,1.0,0.0\n1,b.png,p2,NaN,0.0,nan\n"
                .to_vec(),
        ),
        (
            "booleans",
            b"image,patient,age,Edema,Mass\na.png,p1,061Y,True,False\nb.png,p2,None,False,<NA>\n"
                .to_vec(),
        ),
        (
            "minus zero",
            b"image,patient,age,Edema,Mass\na.png,p1,61,1,-0.0\nb.png,p2,NA,0,None\n".to_vec(),
        ),
    ] {
        let found = read_bytes(&bytes).unwrap_or_else(|error| panic!("{form}: {error}"));
        assert_eq!(found.label_set(), expected.label_set(), "{form}");
        assert_eq!(found.records(), expected.records(), "{form}");
    }
}

#[test]
fn what_cannot_be_read_names_its_cause() {
    for (bytes, expected) in [
        (
            &b"image,\xd6dem\na.png,1\n"[..],
            "line 1: expected UTF-8 text, got the byte 0xD6, as Latin-1",
        ),
        (b"image|Mass\na.png|1\n", "got `|`"),
        (b"PK\x03\x04xlsx", "Excel"),
        (
            b"image,Mass\n\"a.png,1\nb.png,0\n",
            "line 2: a quote is opened",
        ),
        (
            b"image,patient,Mass\na.png,NaN,1\n",
            "line 2: expected a patient in `patient`, got nothing",
        ),
        (b"image,age,Mass\na.png,61.5,1\n", "expected whole years"),
        (b"image,age,Mass\na.png,old,1\n", "got `old`"),
        (b"image,Mass\na.png,yes\n", "expected 1, 0"),
        (
            b"image,Mass,\na.png,1,\nb.png,1,late\n",
            "line 3: column 3 has no name, and holds `late`",
        ),
        (
            b"image,view,Mass\na.png,oblique,1\n",
            "expected `PA`, `AP` or `lateral` in `view`",
        ),
        (b"image,Mass\n\x1b[2J,1\n", "control character"),
    ] {
        let error = read_bytes(bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error} lacks {expected}");
        assert!(!error.contains('\u{1b}'), "{error:?}");
    }
}

/// Kaggle's sample spells the header in its own way; pandas and spreadsheets add columns to NIH's.
#[test]
fn chest_x_ray14_is_known_in_every_spelling() {
    let rows = "00000013_005.png,Emphysema|Pleural_Thickening,5,13,60,M,AP,3056,2544,0.139,0.139\n\
                00000030_001.png,No Finding,1,30,79,F,PA,2992,2991,0.143,0.143\n";
    let expected = read(&format!("{NIH}\n{rows}"));
    assert_eq!(expected.release(), Release::CHEST_X_RAY14_V2020);
    let same = |text: &str, release: Release| {
        let found = read(text);
        assert_eq!(
            (found.records(), found.release()),
            (expected.records(), release),
            "{text}"
        );
    };
    same(&format!("{KAGGLE}\n{rows}"), Release::CHEST_X_RAY14_V2020);
    let first = Release::CHEST_X_RAY14_FIRST;
    same(
        &format!("{KAGGLE}\n{rows}")
            .replace(",60,", ",060Y,")
            .replace(",79,", ",079Y,"),
        first,
    );
    // With the trailing comma of the first release, through Excel and through pandas.
    let trailing = format!("{NIH}\n{rows}").replace('\n', ",\n");
    same(&trailing, first);
    same(&trailing.replace(',', ";").replace('\n', "\r\n"), first);
    same(&trailing.replacen("y],", "y],Unnamed: 11", 1), first);
    let mut numbered = String::new();
    for (at, line) in trailing
        .replacen("y],", "y],Unnamed: 11", 1)
        .lines()
        .enumerate()
    {
        let number = at
            .checked_sub(1)
            .map_or(String::new(), |row| row.to_string());
        numbered += &format!("{number},{line}\n");
    }
    same(&numbered, first);
}

/// CheXpert-Keras#1, chexpert-labeler#9: paths as names, one file name in each folder, a sex that is unknown.
#[test]
fn chexpert_is_read_with_its_paths() {
    let index = read(
        "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Cardiomegaly,Edema\n\
         C/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,\n\
         C/train/patient00002/study2/view1_frontal.jpg,Female,87,Frontal,PA,,-1.0,0.0\n\
         C/train/patient00002/study1/view2_lateral.jpg,Unknown,83,Lateral,,,,1.0\n\
         C/train/patient00003/study1/view1_frontal.jpg,Male,40,Frontal,LL,,,1.0\n",
    );
    assert_eq!((index.records().len(), index.n_patients()), (4, 3));
    assert_eq!(
        index.label_set().names(),
        ["No Finding", "Cardiomegaly", "Edema"]
    );
    let facts: Vec<_> = index
        .records()
        .iter()
        .map(|record| (record.sex, record.view))
        .collect();
    assert_eq!(
        facts,
        [
            (Some(Sex::Female), Some(ViewPosition::AnteroPosterior)),
            (Some(Sex::Female), Some(ViewPosition::PosteroAnterior)),
            (None, Some(ViewPosition::Lateral)),
            (Some(Sex::Male), Some(ViewPosition::Other)),
        ]
    );
    let name = ImageName::new("C/train/patient00002/study2/view1_frontal.jpg").unwrap();
    let record = index.get(&name).unwrap();
    assert_eq!(
        record.labels[1..],
        [LabelState::Uncertain, LabelState::Negative]
    );
    assert_eq!(record.patient.as_ref().unwrap().as_str(), "patient00002");
    // Lists and splits carry the paths, and no patient is on both sides.
    let folder = tempfile::tempdir().unwrap();
    let lists = OfficialLists::hold_out(&index, 0, 3).unwrap();
    let [train, test] = ["train.txt", "test.txt"].map(|name| folder.path().join(name));
    lists.write(&train, &test).unwrap();
    assert_eq!(OfficialLists::read(&train, &test).unwrap(), lists);
    let split = Split::new(&index, &lists, ValidationSplit::Official, 0).unwrap();
    let file = folder.path().join("split.csv");
    split.write(&file).unwrap();
    assert_eq!(Split::read(&file).unwrap(), split);
}

/// What the source calls uncertain is not what it leaves out.
#[test]
fn minus_one_is_uncertain_however_it_is_written() {
    let index = read("image,Mass\na.png,-1\nb.png,-1.0\nc.png,\u{2212}1\nd.png,\n");
    let states: Vec<LabelState> = index
        .records()
        .iter()
        .map(|record| record.labels[0])
        .collect();
    let uncertain = LabelState::Uncertain;
    assert_eq!(states, [uncertain, uncertain, uncertain, LabelState::Blank]);
    assert!(states.iter().all(|state| !state.is_known()));
}

/// PadChest's and MIMIC's words for a view.
#[test]
fn views_are_known_by_their_long_names() {
    let index = read(
        "image,view,Mass\na.png,POSTEROANTERIOR,1\nb.png,AP_horizontal,1\nc.png,LL,1\nd.png,nan,1\n",
    );
    let views: Vec<_> = index.records().iter().map(|record| record.view).collect();
    let frontal = [
        ViewPosition::PosteroAnterior,
        ViewPosition::AnteroPosteriorSupine,
    ];
    assert_eq!(
        views,
        [
            Some(frontal[0]),
            Some(frontal[1]),
            Some(ViewPosition::Lateral),
            None
        ]
    );
}

/// Lists, boxes and split files come through the same reader.
#[test]
fn lists_boxes_and_splits_are_read_in_every_encoding() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let train = write(
        "train.txt",
        &utf16("a.png\r\nb/c.png\r\n", u16::to_le_bytes),
    );
    let test = write("test.txt", &common::archives::gzip(b"d.png\re.png\r"));
    let lists = OfficialLists::read(&train, &test).unwrap();
    assert_eq!((lists.train_val().len(), lists.test().len()), (2, 2));
    let header = "Image Index;Finding Label;Bbox [x;y;w;h];;;";
    let boxes = format!("{header}\r\na.png;Mass;225,5;547;86,75;79;;;\r\n");
    let boxes = read_boxes(write("boxes.csv", &utf16(&boxes, u16::to_be_bytes))).unwrap();
    assert_eq!((boxes[0].x, boxes[0].width), (225.5, 86.75));

    let index = read("image,Mass\na.png,1\n\"b, c.png\",1\n#d.png,0\n");
    let names = index.records().iter().map(|record| record.name.clone());
    let names: Vec<ImageName> = names.collect();
    let lists = OfficialLists::new(names[..2].to_vec(), names[2..].to_vec()).unwrap();
    let split = Split::new(&index, &lists, ValidationSplit::Official, 0).unwrap();
    let path = folder.path().join("split.csv");
    split.write(&path).unwrap();
    assert_eq!(Split::read(&path).unwrap(), split);
    let text = std::fs::read_to_string(&path).unwrap();
    let excel = utf16(&text.replace('\n', "\r\n"), u16::to_le_bytes);
    assert_eq!(Split::read(write("excel.csv", &excel)).unwrap(), split);
    let broken = write(
        "broken.csv",
        text.replace("#d.png,test", "#d.png,tset").as_bytes(),
    );
    let error = Split::read(broken).unwrap_err();
    let last = text.lines().count() as u64;
    assert!(
        matches!(error, DatasetError::Line { line, .. } if line == last),
        "{error}"
    );
}

/// The files of the public reports themselves.
#[test]
fn the_field_s_own_tables_are_read_or_name_their_cause() {
    let Some(data) = common::shared_data() else {
        return;
    };
    let field = data.join("field");
    // Images, patients, labels; `None` for a table whose cause is named.
    for (file, expected) in [
        ("kaggle-sample/sample_labels.csv", Ok((4, 3, 14))),
        ("kaggle-sample/renamed_header.csv", Ok((4, 3, 14))),
        ("chexpert/train.csv", Ok((3, 2, 14))),
        ("chexpert/flat.csv", Ok((3, 3, 2))),
        ("pandas-tables/pandas_default.csv", Ok((4, 3, 2))),
        ("pandas-tables/pandas_with_index.csv", Ok((4, 3, 2))),
        ("pandas-tables/dicom_ages.csv", Ok((4, 3, 2))),
        ("pandas-tables/padchest_views.csv", Ok((4, 3, 2))),
        ("pandas-tables/label2.csv", Err("got `2`")),
        (
            "pandas-tables/patient_missing.csv",
            Err("expected a patient"),
        ),
        ("separators/semicolon.csv", Ok((3, 3, 2))),
        ("separators/tab.csv", Ok((2, 2, 2))),
        ("separators/sep_line.csv", Ok((2, 2, 2))),
        ("separators/bom_crlf.csv", Ok((3, 3, 2))),
        ("separators/cr_only.csv", Ok((2, 2, 2))),
        ("separators/utf16.csv", Ok((1, 1, 2))),
        ("separators/quoted.csv", Ok((2, 2, 2))),
        ("separators/blank_lines.csv", Ok((2, 0, 1))),
        ("separators/trailing_commas.csv", Ok((2, 2, 1))),
        ("separators/latin1.csv", Err("Latin-1")),
        ("separators/nih_pandas.csv", Ok((4, 3, 14))),
        ("separators/nih_pandas_idx.csv", Ok((1, 1, 14))),
        ("separators/Data_Entry_semicolon.csv", Ok((4, 3, 14))),
    ] {
        let found = Index::read(field.join(file));
        match (&found, expected) {
            (Ok(index), Ok(expected)) => assert_eq!(
                (
                    index.records().len(),
                    index.n_patients(),
                    index.label_set().len()
                ),
                expected,
                "{file}"
            ),
            (Err(error), Err(cause)) => {
                assert!(error.to_string().contains(cause), "{file}: {error}");
            }
            _ => panic!("{file}: {found:?}"),
        }
    }
    let chexpert = Index::read(data.join("formats/chexpert_train.csv.gz")).unwrap();
    // The counts of the published table.
    assert_eq!(
        (chexpert.records().len(), chexpert.n_patients()),
        (223_414, 64_540)
    );
    let count = |view| {
        chexpert
            .records()
            .iter()
            .filter(|record| record.view == view)
            .count()
    };
    assert_eq!(count(Some(ViewPosition::PosteroAnterior)), 29_420);
    assert_eq!(count(Some(ViewPosition::AnteroPosterior)), 161_590);
    assert_eq!(count(Some(ViewPosition::Lateral)), 32_387);
    // Frontal in one column and from the side in another.
    assert_eq!(count(Some(ViewPosition::Other)), 17);
}
