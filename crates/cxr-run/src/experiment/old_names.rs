//! Keys of experiment files that had another name in earlier versions, which is still read.

use toml::{Table, Value};

/// Of `[training]`.
const TRAINING: [(&str, &str); 1] = [("accumulate", "gradient_accumulation_steps")];
/// Of a schedule.
const SCHEDULE: [(&str, &str); 2] = [("rate", "learning_rate"), ("floor", "min_learning_rate")];
/// Of a group of parameters.
const GROUP: [(&str, &str); 1] = [("rate_factor", "learning_rate_factor")];

/// The keys of an experiment file that are old, each with its new name.
pub(super) fn of(text: &str) -> Vec<(String, &'static str)> {
    let experiment: Table = toml::from_str(text).unwrap_or_default();
    let mut found = Vec::new();
    if get(&experiment, "model").is_some_and(|model| model.contains_key("top")) {
        found.push(("model.top".to_owned(), "model.head.top-network"));
    }
    let Some(training) = get(&experiment, "training") else {
        return found;
    };
    let mut note = |prefix: &str, table: &Table, names: &[(&str, &'static str)]| {
        let old = names.iter().filter(|(old, _)| table.contains_key(*old));
        found.extend(old.map(|(old, new)| (format!("{prefix}.{old}"), *new)));
    };
    note("training", training, &TRAINING);
    for (index, stage) in tables(training.get("stages")).enumerate() {
        let prefix = format!("training.stages[{index}]");
        let schedule = get(stage, "schedule").into_iter().flatten();
        for (kind, options) in schedule {
            if let Some(options) = options.as_table() {
                note(&format!("{prefix}.schedule.{kind}"), options, &SCHEDULE);
            }
        }
        for (at, group) in tables(stage.get("groups")).enumerate() {
            note(&format!("{prefix}.groups[{at}]"), group, &GROUP);
        }
    }
    found
}

fn get<'a>(table: &'a Table, key: &str) -> Option<&'a Table> {
    table.get(key)?.as_table()
}

/// The tables of an array.
fn tables(array: Option<&Value>) -> impl Iterator<Item = &Table> {
    let array = array.and_then(Value::as_array);
    array.into_iter().flatten().filter_map(Value::as_table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Experiment;

    const OLD: &str = r#"
        name = "old"
        [model.top]
        hidden = 8
        [training]
        accumulate = 2
        [[training.stages]]
        name = "head"
        epochs = 1
        schedule = { constant = { rate = 1e-3 } }
        [[training.stages]]
        name = "all"
        epochs = 1
        schedule = { cosine = { rate = 1e-3, floor = 1e-5 } }
        groups = [
            { parameters = "a.*", learning_rate_factor = 3.0 },
            { parameters = "*.bias", rate_factor = 2.0 },
        ]
        [[variants]]
        name = "bce"
        loss = "bce"
    "#;

    #[test]
    fn every_old_key_is_read_as_its_new_one_and_named() {
        let keys: Vec<(String, &str)> = of(OLD);
        let expected = [
            ("model.top", "model.head.top-network"),
            ("training.accumulate", "gradient_accumulation_steps"),
            ("training.stages[0].schedule.constant.rate", "learning_rate"),
            ("training.stages[1].schedule.cosine.rate", "learning_rate"),
            (
                "training.stages[1].schedule.cosine.floor",
                "min_learning_rate",
            ),
            (
                "training.stages[1].groups[1].rate_factor",
                "learning_rate_factor",
            ),
        ];
        let found: Vec<(&str, &str)> = keys.iter().map(|(old, new)| (&**old, *new)).collect();
        assert_eq!(found, expected);
        let new = OLD
            .replace("[model.top]", "[model.head.top-network]")
            .replace("accumulate =", "gradient_accumulation_steps =")
            .replace(" rate =", " learning_rate =")
            .replace("floor =", "min_learning_rate =")
            .replace(" rate_factor =", " learning_rate_factor =");
        assert_eq!(of(&new), []);
        assert_eq!(
            Experiment::parse(OLD).unwrap(),
            Experiment::parse(&new).unwrap()
        );
    }

    #[test]
    fn a_key_by_both_names_is_refused() {
        let both = OLD.replace("{ rate = 1e-3 }", "{ rate = 1e-3, learning_rate = 1e-3 }");
        let error = Experiment::parse(&both).unwrap_err().to_string();
        assert!(error.contains("duplicate field"), "{error}");
    }
}
