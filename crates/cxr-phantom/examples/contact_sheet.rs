//! Draws the picture of the README, one phantom for each finding and one without: `contact_sheet FILE.jpg
//! [SEED]`. Rows of five, findings in the order of [`Finding::ALL`].

use std::process::ExitCode;

use cxr_phantom::{Cohort, Finding, FindingSet, PhantomConfig, PhantomError, Study};
use image::GrayImage;
use image::imageops::{FilterType, resize};

/// Tiles of a row, and their side and distance in pixels.
const COLUMNS: usize = 5;
const TILE: u32 = 224;
const GAP: u32 = 4;

/// Drawn as large as the written files, then reduced.
const SIDE: usize = 1024;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seed = arguments.get(1).map_or(Ok(1), |text| text.parse());
    let (Some(path), Ok(seed)) = (arguments.first(), seed) else {
        eprintln!("usage: contact_sheet FILE.jpg [SEED]");
        return ExitCode::from(2);
    };
    let saved = sheet(seed)
        .map_err(|error| error.to_string())
        .and_then(|sheet| sheet.save(path).map_err(|error| error.to_string()));
    match saved {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn sheet(seed: u64) -> Result<GrayImage, PhantomError> {
    let cohort = Cohort::plan(&PhantomConfig::of_images(seed, 400)?);
    // One image a patient, each with one finding whatever the plan says.
    let mut patients = cohort
        .studies()
        .iter()
        .filter(|study| study.follow_up() == 0);
    let shown = Finding::ALL
        .into_iter()
        .map(|finding| FindingSet::EMPTY.with(finding))
        .chain([FindingSet::EMPTY]);
    let studies: Vec<Study> = shown
        .filter_map(|shown| Some(patients.next()?.showing(shown)))
        .collect();
    let rows = studies.len().div_ceil(COLUMNS) as u32;
    let pitch = TILE + GAP;
    let mut sheet = GrayImage::from_pixel(
        COLUMNS as u32 * pitch - GAP,
        rows * pitch - GAP,
        image::Luma([255]),
    );
    for (index, study) in studies.iter().enumerate() {
        let radiograph = study.render(SIDE);
        let side = SIDE as u32;
        let Some(drawn) = GrayImage::from_raw(side, side, radiograph.pixels().to_vec()) else {
            continue;
        };
        let tile = resize(&drawn, TILE, TILE, FilterType::Lanczos3);
        let (column, row) = ((index % COLUMNS) as u32, (index / COLUMNS) as u32);
        image::imageops::replace(
            &mut sheet,
            &tile,
            (column * pitch).into(),
            (row * pitch).into(),
        );
    }
    Ok(sheet)
}
