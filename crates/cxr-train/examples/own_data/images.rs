//! Something to train on: pictures with a bright disc, with stripes, with both or neither, four of
//! each patient, and a table that says so.

use std::fs::File;
use std::io;
use std::path::Path;

use cxr_augment::KeyedRng;

const PATIENTS: usize = 24;
const SIDE: usize = 48;

/// Writes `labels.csv` and the images into `folder`.
pub(crate) fn write(folder: &Path) -> io::Result<()> {
    let mut table = String::from("image,patient,Disc,Stripes\n");
    for patient in 0..PATIENTS {
        for (disc, stripes) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let name = format!("{patient:02}-{disc}{stripes}.png");
            table += &format!("{name},{patient},{disc},{stripes}\n");
            let file = File::create(folder.join(&name))?;
            let mut png = png::Encoder::new(file, SIDE as u32, SIDE as u32);
            png.set_color(png::ColorType::Grayscale);
            let pixels = pixels(&name, disc == 1, stripes == 1);
            png.write_header()?.write_image_data(&pixels)?;
        }
    }
    std::fs::write(folder.join("labels.csv"), table)
}

fn pixels(name: &str, disc: bool, stripes: bool) -> Vec<u8> {
    let mut rng = KeyedRng::new("example image", 0, 0, name);
    let (x, y) = (rng.uniform(14., 34.), rng.uniform(14., 34.));
    let phase = rng.uniform(0., 6.);
    let at = |place: usize| {
        let (column, row) = ((place % SIDE) as f64, (place / SIDE) as f64);
        let inside = (column - x).hypot(row - y) < 8.;
        let stripe = (column + phase).rem_euclid(6.) < 3.;
        60. + 90. * f64::from(disc && inside) + 50. * f64::from(stripes && stripe)
    };
    let pixels = (0..SIDE * SIDE).map(|place| (at(place) + rng.uniform(-20., 20.)) as u8);
    pixels.collect()
}
