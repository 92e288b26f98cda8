//! Whether tract computes the logits of an exported graph: `cxr-tract DIR`, a folder that the example `exported` of
//! cxr-exchange wrote. Looks at the first images alone: tract is no fast engine.

use std::error::Error;
use std::path::Path;

use tract_onnx::prelude::*;

const SIDE: usize = 224;
const MOST_IMAGES: usize = 4;
const BOUND: f32 = 1e-4;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).ok_or("cxr-tract DIR")?;
    let folder = Path::new(&folder);
    let numbers = |name: &str| -> Result<Vec<f32>, Box<dyn Error>> {
        let bytes = std::fs::read(folder.join(name))?;
        let numbers = bytes.as_chunks::<4>().0.iter();
        Ok(numbers.map(|bytes| f32::from_le_bytes(*bytes)).collect())
    };
    let (images, logits) = (numbers("images.f32")?, numbers("logits.f32")?);
    let pixels = 3 * SIDE * SIDE;
    let count = images.len() / pixels;
    let labels = logits.len() / count;
    // What a head asks for beside the images, where it asks.
    let non_image = match folder.join("non_image.f32").exists() {
        true => numbers("non_image.f32")?,
        false => Vec::new(),
    };
    let columns = non_image.len() / count;
    let mut network = tract_onnx::onnx()
        .model_for_path(folder.join("network.onnx"))?
        .with_input_fact(0, f32::fact([1, 3, SIDE, SIDE]).into())?;
    if columns > 0 {
        network = network.with_input_fact(1, f32::fact([1, columns]).into())?;
    }
    let network = network.into_optimized()?.into_runnable()?;
    let mut largest = 0_f32;
    for image in 0..count.min(MOST_IMAGES) {
        let values = &images[image * pixels..(image + 1) * pixels];
        let mut inputs = tvec!(Tensor::from_shape(&[1, 3, SIDE, SIDE], values)?.into());
        if columns > 0 {
            let values = &non_image[image * columns..(image + 1) * columns];
            inputs.push(Tensor::from_shape(&[1, columns], values)?.into());
        }
        let output = network.run(inputs)?;
        let found = output[0].to_plain_array_view::<f32>()?;
        let expected = &logits[image * labels..(image + 1) * labels];
        if found.len() != labels {
            return Err(format!("expected {labels} logits, got {}", found.len()).into());
        }
        for (found, expected) in found.iter().zip(expected) {
            largest = largest.max((found - expected).abs());
        }
    }
    println!("tract {largest:.1e}");
    // Written so that a NaN fails.
    match largest <= BOUND {
        true => Ok(()),
        false => Err(format!("a logit is {largest:e} from ours, more than {BOUND:e}").into()),
    }
}
