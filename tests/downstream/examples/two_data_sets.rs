//! Two data sets as one, whose images have the same names, whose patients the same numbers, and one of whose labels has
//! another name.

use std::sync::atomic::AtomicBool;

use cxr_downstream::{EXPERIMENT, Outcome, write_phantoms};
use cxr_train::prelude::*;

fn main() -> Outcome {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    for (name, seed) in [("first", 1), ("second", 2)] {
        write_phantoms(&folder.join(name), seed, 40)?;
    }
    let table = folder.join("second/Data_Entry_2017_v2020.csv");
    let experiment = Experiment::parse(EXPERIMENT)?;

    // begin
    let first = Index::read(folder.join("first/Data_Entry_2017_v2020.csv"))?;
    let second = Index::read(table)?;
    let index = Index::merge(&[
        MergeSource::new(&first)
            .in_folder("first/images")
            .patient_prefix("first-"),
        MergeSource::new(&second)
            .in_folder("second/images")
            .patient_prefix("second-")
            .rename_label("Pleural_Thickening", "Fibrosis")
            .without_label("Hernia"),
    ])?;
    let lists = OfficialLists::hold_out(&index, 0, 5)?;
    let split = Split::new(&index, &lists, ValidationSplit::Patient, 0)?;
    let images = ImageFiles::find([folder])?;
    let data = TrainingData::from_files(index, split, &images, folder.join("both.store"), 64)?;
    // end

    let counts = data.index().label_counts();
    let hernia = data
        .index()
        .label_set()
        .index_of("Hernia")
        .ok_or("no such label")?;
    println!(
        "{} images of two data sets, {} patients",
        data.store().len(),
        data.index().n_patients()
    );
    assert_eq!(
        data.index().records().len(),
        first.records().len() + second.records().len()
    );
    assert_eq!(counts[hernia].unknown, second.records().len());
    let run = RunFolder::open(folder.join("run"))?;
    let mut trainer = Trainer::new(&experiment.variant("bce")?, &data, &run, &Device::Cpu)?;
    trainer.run(&mut (), &AtomicBool::new(false))?;
    Ok(())
}
