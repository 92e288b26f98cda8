//! Answers as a Parquet file: the columns of the CSV table, with types.

use std::fs::File;
use std::sync::Arc;

use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{Type, TypePtr};

use super::part::Row;
use super::table::{Columns, MISSING, NextRow, Value, missing_cell};

/// Rows of a group: what is held in memory at once.
const GROUP: usize = 4096;

/// A column of text.
type Text = fn(&Row) -> Option<&str>;

/// Writes the rows that `next` gives.
pub(super) fn write(
    file: &mut File,
    columns: &Columns,
    next: NextRow<'_>,
) -> anyhow::Result<usize> {
    let mut writer = SerializedFileWriter::new(
        file.try_clone()?,
        schema(columns)?,
        Arc::new(WriterProperties::builder().build()),
    )?;
    let mut n_rows = 0;
    loop {
        let mut rows: Vec<(Row, Vec<Value>)> = Vec::with_capacity(GROUP);
        while rows.len() < GROUP
            && let Some(row) = next()?
        {
            let values = columns.values(&row)?;
            rows.push((row, values));
        }
        if rows.is_empty() {
            break;
        }
        n_rows += rows.len();
        let mut group = writer.next_row_group()?;
        let texts: [Text; 3] = [
            |row| Some(&row.image),
            |row| row.patient.as_deref(),
            |row| row.study.as_deref(),
        ];
        for (at, text) in texts.into_iter().enumerate() {
            let found = || rows.iter().map(|(row, _)| text(row));
            let bytes: Vec<ByteArray> = found().flatten().map(ByteArray::from).collect();
            let is_there: Vec<i16> = found().map(|text| i16::from(text.is_some())).collect();
            // The name is required and has no levels.
            push::<ByteArrayType>(&mut group, &bytes, (at > 0).then_some(&is_there))?;
        }
        if columns.has_distance {
            let distances: Vec<f64> = rows.iter().filter_map(|(row, _)| row.distance).collect();
            let is_there: Vec<i16> = (rows.iter())
                .map(|(row, _)| i16::from(row.distance.is_some()))
                .collect();
            push::<DoubleType>(&mut group, &distances, Some(&is_there))?;
            let unusual: Vec<bool> = distances.iter().map(|&distance| distance > 1.).collect();
            push::<BoolType>(&mut group, &unusual, Some(&is_there))?;
        }
        if columns.has_inputs {
            let cells = rows.iter().map(|(row, _)| missing_cell(row));
            let bytes: Vec<ByteArray> = cells.map(|cell| ByteArray::from(cell.as_str())).collect();
            push::<ByteArrayType>(&mut group, &bytes, None)?;
        }
        for label in 0..columns.labels.len() {
            let logits: Vec<f64> = of(&rows, label, |value| value.logit);
            push::<DoubleType>(&mut group, &logits, None)?;
        }
        for label in 0..columns.labels.len() {
            let probabilities: Vec<f64> = of(&rows, label, |value| value.probability);
            push::<DoubleType>(&mut group, &probabilities, None)?;
        }
        for label in 0..columns.labels.len() {
            let decisions: Vec<bool> = of(&rows, label, |value| value.is_positive);
            push::<BoolType>(&mut group, &decisions, None)?;
        }
        group.close()?;
    }
    writer.close()?;
    Ok(n_rows)
}

fn of<T>(rows: &[(Row, Vec<Value>)], label: usize, value: impl Fn(&Value) -> T) -> Vec<T> {
    let values = rows.iter().filter_map(|(_, values)| values.get(label));
    values.map(value).collect()
}

fn push<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, File>,
    values: &[T::T],
    levels: Option<&Vec<i16>>,
) -> anyhow::Result<()> {
    let Some(mut column) = group.next_column()? else {
        anyhow::bail!("the table has more columns than its schema");
    };
    let levels = levels.map(Vec::as_slice);
    column.typed::<T>().write_batch(values, levels, None)?;
    Ok(column.close()?)
}

fn schema(columns: &Columns) -> anyhow::Result<TypePtr> {
    let text = |name: &str, repetition| {
        Type::primitive_type_builder(name, Physical::BYTE_ARRAY)
            .with_logical_type(Some(LogicalType::String))
            .with_repetition(repetition)
            .build()
    };
    let mut fields = vec![
        text("image", Repetition::REQUIRED)?,
        text("patient", Repetition::OPTIONAL)?,
        text("study", Repetition::OPTIONAL)?,
    ];
    if columns.has_distance {
        for (name, physical) in [
            ("distance", Physical::DOUBLE),
            ("unusual", Physical::BOOLEAN),
        ] {
            let field = Type::primitive_type_builder(name, physical)
                .with_repetition(Repetition::OPTIONAL)
                .build()?;
            fields.push(field);
        }
    }
    if columns.has_inputs {
        fields.push(text(MISSING, Repetition::REQUIRED)?);
    }
    for (kind, physical) in [
        ("logit", Physical::DOUBLE),
        ("prob", Physical::DOUBLE),
        ("positive", Physical::BOOLEAN),
    ] {
        for (_, label, _) in &columns.labels {
            let field = Type::primitive_type_builder(&format!("{kind}_{label}"), physical)
                .with_repetition(Repetition::REQUIRED)
                .build()?;
            fields.push(field);
        }
    }
    let fields = fields.into_iter().map(Arc::new).collect();
    let schema = Type::group_type_builder("predictions").with_fields(fields);
    Ok(Arc::new(schema.build()?))
}
