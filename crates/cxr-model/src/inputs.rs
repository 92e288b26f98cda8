//! How age, sex and view of an image become the numbers that a head asks for.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use cxr_dataset::{ImageAttributes, Sex, ViewPosition};
use cxr_run::InputCount;
use cxr_top::NonImageInput;
use serde::{Deserialize, Serialize};

use crate::{Classifier, ModelCard, ModelError};

/// No patient of a published data set is older; tables of ChestX-ray14's first release have ages of 150 to 414 years.
const OLDEST: u16 = 120;

/// How one non-image input becomes numbers: `{"input": "age", "minimum": 0.0, "maximum": 100.0}`, `{"input": "sex"}` or
/// `{"input": "view"}` in a model's card.
///
/// Each is two numbers, its value and 1 where it is missing; the value is 0 there. What is recorded and has no number is
/// encoded as missing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "input", rename_all = "lowercase", deny_unknown_fields)]
#[non_exhaustive]
pub enum InputEncoding {
    /// The age in years up to 120, less `minimum`, over `maximum − minimum`. Training takes 0 and 100, whatever the data: the
    /// folds of a cross-validation agree, and no impossible age squeezes the others.
    Age {
        /// The years that become 0.
        minimum: f64,
        /// The years that become 1.
        maximum: f64,
    },
    /// 0 for female, 1 for male.
    Sex {},
    /// 0 for PA, 1 for AP, patients who lie included. Any other view has no number.
    View {},
}

/// What is known of one input of an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum InputValue {
    /// Its number.
    Known(f32),
    /// Nothing is recorded.
    Missing,
    /// Something is recorded that has no number: an age above 120 years, or a view that is neither PA nor AP.
    Unusable,
}

impl InputEncoding {
    /// The encoding with which a network is trained.
    pub fn of(input: NonImageInput) -> Option<Self> {
        match input {
            NonImageInput::Age => Some(Self::Age {
                minimum: 0.,
                maximum: 100.,
            }),
            NonImageInput::Sex => Some(Self::Sex {}),
            NonImageInput::View => Some(Self::View {}),
            // A head that asks for what this version does not know is refused where the card is checked.
            _ => None,
        }
    }

    /// The encodings of what a head asks for, in its order.
    pub(crate) fn of_all(inputs: &[NonImageInput]) -> Vec<Self> {
        inputs.iter().filter_map(|&input| Self::of(input)).collect()
    }

    /// What is encoded.
    pub fn input(&self) -> NonImageInput {
        match self {
            Self::Age { .. } => NonImageInput::Age,
            Self::Sex {} => NonImageInput::Sex,
            Self::View {} => NonImageInput::View,
        }
    }

    /// The number of an image's input.
    pub fn value(&self, image: &ImageAttributes) -> InputValue {
        let known = |value: Option<f32>| value.map_or(InputValue::Missing, InputValue::Known);
        match *self {
            Self::Age { minimum, maximum } => match image.age_years {
                Some(years) if years > OLDEST => InputValue::Unusable,
                years => known(
                    years.map(|years| ((f64::from(years) - minimum) / (maximum - minimum)) as f32),
                ),
            },
            Self::Sex {} => known(image.sex.map(|sex| match sex {
                Sex::Female => 0.,
                Sex::Male => 1.,
            })),
            Self::View {} => match image.view {
                None => InputValue::Missing,
                Some(ViewPosition::PosteroAnterior) => InputValue::Known(0.),
                Some(ViewPosition::AnteroPosterior | ViewPosition::AnteroPosteriorSupine) => {
                    InputValue::Known(1.)
                }
                Some(_) => InputValue::Unusable,
            },
        }
    }

    /// What its two columns mean, for who makes them elsewhere.
    pub fn describe(&self) -> String {
        let value = match self {
            Self::Age { minimum, maximum } => {
                format!("(age in years - {minimum}) / ({maximum} - {minimum})")
            }
            Self::Sex {} => "0 for female, 1 for male".to_owned(),
            Self::View {} => "0 for PA, 1 for AP".to_owned(),
        };
        let input = self.input();
        format!(
            "{input}: {value}; {input} missing: 1 where it is not known, with 0 before it, else 0"
        )
    }

    fn check(&self) -> Result<(), ModelError> {
        match *self {
            Self::Age { minimum, maximum }
                if !(minimum.is_finite() && maximum.is_finite() && minimum < maximum) =>
            {
                Err(ModelError::Card {
                    what: "range of ages",
                    expected: "two finite numbers, the first below the second".to_owned(),
                    found: format!("{minimum} to {maximum}"),
                })
            }
            _ => Ok(()),
        }
    }
}

/// The numbers of some images, `N×2K` for `K` encodings, on a device; `None` where a model asks for none.
///
/// # Errors
/// A device that is out of memory.
pub fn encode_inputs(
    encodings: &[InputEncoding],
    images: impl IntoIterator<Item = ImageAttributes>,
    device: &Device,
) -> candle_core::Result<Option<Tensor>> {
    if encodings.is_empty() {
        return Ok(None);
    }
    let columns = NonImageInput::COLUMNS * encodings.len();
    let mut values = Vec::new();
    for image in images {
        for encoding in encodings {
            values.extend(match encoding.value(&image) {
                InputValue::Known(value) => [value, 0.],
                InputValue::Missing | InputValue::Unusable => [0., 1.],
            });
        }
    }
    let rows = values.len() / columns;
    Tensor::from_vec(values, (rows, columns), device).map(Some)
}

/// Of how many images each input is known, by its name.
pub fn count_inputs(
    encodings: &[InputEncoding],
    images: impl IntoIterator<Item = ImageAttributes>,
) -> BTreeMap<String, InputCount> {
    let mut counts = vec![InputCount::default(); encodings.len()];
    for image in images {
        for (count, encoding) in counts.iter_mut().zip(encodings) {
            match encoding.value(&image) {
                InputValue::Known(_) => count.known += 1,
                InputValue::Missing => count.missing += 1,
                InputValue::Unusable => count.unusable += 1,
            }
        }
    }
    let names = encodings
        .iter()
        .map(|encoding| encoding.input().to_string());
    names.zip(counts).collect()
}

/// Whether the card encodes just what a head asks for.
pub(crate) fn check_inputs(
    encodings: &[InputEncoding],
    asked: &[NonImageInput],
) -> Result<(), ModelError> {
    let list = |inputs: &mut dyn Iterator<Item = NonImageInput>| {
        let names: Vec<String> = inputs.map(|input| format!("`{input}`")).collect();
        match names.is_empty() {
            true => "none".to_owned(),
            false => names.join(", "),
        }
    };
    let mut encoded = encodings.iter().map(InputEncoding::input);
    if !encoded.clone().eq(asked.iter().copied()) {
        return Err(ModelError::Card {
            what: "non-image inputs",
            expected: format!("those of its head, {}", list(&mut asked.iter().copied())),
            found: list(&mut encoded),
        });
    }
    encodings.iter().try_for_each(InputEncoding::check)
}

impl ModelCard {
    /// Whether the card encodes just what the head of a classifier asks for.
    ///
    /// # Errors
    /// Both lists.
    pub fn check_inputs(&self, classifier: &Classifier) -> Result<(), ModelError> {
        check_inputs(&self.inputs, classifier.inputs())
    }

    /// The card of a network whose head asks for these inputs, encoded as in training.
    #[must_use]
    pub fn with_inputs(self, inputs: &[NonImageInput]) -> Self {
        let inputs = InputEncoding::of_all(inputs);
        Self { inputs, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(
        age_years: Option<u16>,
        sex: Option<Sex>,
        view: Option<ViewPosition>,
    ) -> ImageAttributes {
        ImageAttributes {
            age_years,
            sex,
            view,
        }
    }

    #[test]
    fn what_is_not_known_has_a_column_of_its_own() {
        let encodings = InputEncoding::of_all(&NonImageInput::ALL);
        let (pa, ap) = (ViewPosition::PosteroAnterior, ViewPosition::AnteroPosterior);
        let images = [
            image(Some(0), Some(Sex::Female), Some(pa)),
            image(Some(120), Some(Sex::Male), Some(ap)),
            image(None, None, None),
            image(
                Some(412),
                Some(Sex::Male),
                Some(ViewPosition::AnteroPosteriorSupine),
            ),
            image(Some(25), None, Some(ViewPosition::Lateral)),
        ];
        let encoded = encode_inputs(&encodings, images, &Device::Cpu).unwrap();
        let rows = encoded.unwrap().to_vec2::<f32>().unwrap();
        let expected: [[f32; 6]; 5] = [
            [0., 0., 0., 0., 0., 0.],
            [1.2, 0., 1., 0., 1., 0.],
            [0., 1., 0., 1., 0., 1.],
            [0., 1., 1., 0., 1., 0.],
            [0.25, 0., 0., 1., 0., 1.],
        ];
        assert_eq!(rows, expected);
        let counts = count_inputs(&encodings, images);
        let of = |name: &str| {
            let count = counts[name];
            [count.known, count.missing, count.unusable]
        };
        assert_eq!(
            [of("age"), of("sex"), of("view")],
            [[3, 1, 1], [3, 2, 0], [3, 1, 1]]
        );
        assert!(encode_inputs(&[], images, &Device::Cpu).unwrap().is_none());
    }

    #[test]
    fn a_card_says_the_range_of_ages() {
        let text = r#"[{"input":"age","minimum":20.0,"maximum":70.0},{"input":"view"}]"#;
        let encodings: Vec<InputEncoding> = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&encodings).unwrap(), text);
        let young = image(Some(45), None, None);
        assert_eq!(encodings[0].value(&young), InputValue::Known(0.5));
        for wrong in [
            r#"[{"input":"age"}]"#,
            r#"[{"input":"weight"}]"#,
            r#"[{"input":"sex","minimum":0.0}]"#,
        ] {
            serde_json::from_str::<Vec<InputEncoding>>(wrong).unwrap_err();
        }
        let of = |minimum, maximum| {
            let encodings = [InputEncoding::Age { minimum, maximum }];
            check_inputs(&encodings, &[NonImageInput::Age])
        };
        of(0., 100.).unwrap();
        for (minimum, maximum) in [(1., 1.), (2., 1.), (0., f64::NAN), (f64::NEG_INFINITY, 0.)] {
            let error = of(minimum, maximum).unwrap_err().to_string();
            assert!(error.contains("range of ages"), "{error}");
        }
        let error = check_inputs(&[InputEncoding::Sex {}], &[NonImageInput::Age]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the model's non-image inputs must be those of its head, `age`, got `sex`"
        );
    }
}
