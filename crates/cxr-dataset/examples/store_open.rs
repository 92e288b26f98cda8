//! Prints, as JSON, how long it takes to open a store of as many images as ChestX-ray14 has, to find one of
//! them, and to read and verify one of 256×256 pixels. The many images are one pixel each: opening reads the
//! index and never the pixels, so their size does not matter.
//!
//! usage: store_open [N_IMAGES]

use std::path::Path;
use std::time::Instant;

use cxr_dataset::{ImageName, Store, StoreBuilder, StoreSettings};

/// A grey PNG of one pixel.
const PNG: &[u8] = include_bytes!("one_pixel.png");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let n_images: usize = std::env::args()
        .nth(1)
        .map_or(Ok(112_120), |text| text.parse())?;
    let folder = tempfile::tempdir()?;
    let target = folder.path().join("images.cxr");
    let names: Vec<ImageName> = (0..n_images)
        .map(|number| ImageName::new(&format!("{:08}_{:03}.png", number / 4, number % 4)))
        .collect::<Result<_, _>>()?;
    let builder = StoreBuilder::create_or_resume(&target, &names, StoreSettings::new(1)?)?;
    for name in &names {
        builder.insert_encoded(name, PNG)?;
    }
    drop(builder.commit()?);

    let mut opening = Vec::new();
    let mut finding = Vec::new();
    for _ in 0..9 {
        let begin = Instant::now();
        let store = Store::open(&target)?;
        opening.push(1e3 * begin.elapsed().as_secs_f64());
        let begin = Instant::now();
        for name in &names {
            store.image(name)?;
        }
        finding.push(1e9 * begin.elapsed().as_secs_f64() / n_images as f64);
    }
    let reading = read_us(folder.path())?;
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let (open_ms, find_ns, read_us) = (median(opening), median(finding), median(reading));
    println!(
        "{{\"open_ms\": {open_ms:.2}, \"find_ns\": {find_ns:.0}, \"read_us\": {read_us:.1}, \"n_images\": {n_images}}}"
    );
    Ok(())
}

/// Microseconds to read an image of the usual size out of a store of 2,000, which the system keeps in memory.
fn read_us(folder: &Path) -> Result<Vec<f64>, Box<dyn std::error::Error>> {
    let names: Vec<ImageName> = (0..2000)
        .map(|number| ImageName::new(&format!("{number}.png")))
        .collect::<Result<_, _>>()?;
    let builder = StoreBuilder::create_or_resume(
        folder.join("pixels.cxr"),
        &names,
        StoreSettings::default(),
    )?;
    for name in &names {
        builder.insert_encoded(name, PNG)?;
    }
    let store = builder.commit()?;
    let mut rounds = Vec::new();
    for _ in 0..9 {
        let begin = Instant::now();
        let mut sum = 0;
        for name in &names {
            sum += store
                .image(name)?
                .iter()
                .map(|&grey| u64::from(grey))
                .sum::<u64>();
        }
        std::hint::black_box(sum);
        rounds.push(1e6 * begin.elapsed().as_secs_f64() / names.len() as f64);
    }
    Ok(rounds)
}
