//! `cxr train --plan`: what a run will take.

use std::time::Duration;

use cxr_train::{ImageCounts, Plan, VariantExperiment};

use crate::progress::duration;

/// The plan as text.
pub(crate) fn text(variant: &VariantExperiment, images: ImageCounts, plan: &Plan) -> String {
    let experiment = variant.experiment();
    let seconds = |seconds: f64| duration(Duration::from_secs_f64(seconds.max(0.)));
    let ImageCounts {
        train,
        validation,
        test,
    } = images;
    let mut text = format!(
        "`{}`, variant `{}`: {} values, {} images a step\n",
        experiment.name,
        variant.chosen().name,
        grouped(plan.values),
        experiment.training.batch_size
    );
    text += &format!(
        "images: {} to train, {} to validate, {} to test\n\n",
        grouped(train),
        grouped(validation),
        grouped(test)
    );
    text += &format!(
        "{:<20} {:>6} {:>8} {:>12} {:>12} {:>9} {:>13}\n",
        "stage", "epochs", "steps", "trained", "frozen", "a step", "time"
    );
    for stage in &plan.stages {
        text += &format!(
            "{:<20} {:>6} {:>8} {:>12} {:>12} {:>9} {:>13}\n",
            stage.name,
            stage.epochs,
            grouped(stage.epochs * stage.steps),
            grouped(stage.trained),
            grouped(stage.frozen),
            format!("{:.2} s", stage.step_seconds),
            seconds(stage.seconds)
        );
    }
    text += &format!(
        "{:<20} {:>78}\n\n",
        "prediction",
        seconds(plan.prediction_seconds)
    );
    text += &format!(
        "time    {}, without preparing images\n",
        seconds(plan.seconds())
    );
    text += &match plan.memory_bytes {
        Some(memory) => format!("memory  {}\n", bytes(memory)),
        None => "memory  not known: this system does not tell a process its peak\n".to_owned(),
    };
    text += &format!(
        "disk    {} of prepared images, {} of weights and checkpoints\n\n",
        bytes(plan.store_bytes),
        bytes(plan.run_bytes)
    );
    text += &format!(
        "Time and memory are those of a few steps on {} random images, tried now on {} threads and scaled \
         to the whole; nothing was trained or written.\n",
        plan.measured_batch,
        rayon::current_num_threads()
    );
    text
}

/// A number with commas between thousands.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size in binary units with three digits.
fn bytes(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "KiB", "MiB"] {
        if size < 1000. {
            return match unit {
                "B" => format!("{bytes} B"),
                _ => format!("{size:.*} {unit}", usize::from(size < 100.)),
            };
        }
        size /= 1024.;
    }
    format!("{size:.*} GiB", usize::from(size < 100.))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (9_773_558, "9,773,558"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn sizes_have_a_unit() {
        for (size, text) in [
            (17, "17 B"),
            (2048, "2.0 KiB"),
            (150 << 20, "150 MiB"),
            (1000 << 20, "1.0 GiB"),
            (7 << 30, "7.0 GiB"),
        ] {
            assert_eq!(bytes(size), text);
        }
    }
}
