//! Receipts as Parquet, a row group every [`GROUP`] rows.
//!
//! The format's own column writers are used: the Arrow layer over them would triple what has to be compiled.

use std::{fs::File, sync::Arc};

use domain::Cause;
use events::Receipt;
use jiff::Timestamp;
use parquet::{
    basic::Compression,
    data_type::{ByteArray, ByteArrayType, Int64Type},
    errors::ParquetError,
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};

/// Rows that are held in memory.
const GROUP: usize = 50_000;

/// What a column holds of a receipt.
enum Column {
    Text(fn(&Receipt) -> Option<String>),
    Number(fn(&Receipt) -> Option<i64>),
    Time(fn(&Receipt) -> Option<Timestamp>),
}

const COLUMNS: &[(&str, Column)] = &[
    ("id", Column::Text(|receipt| Some(receipt.stable_id()))),
    (
        "message_id",
        Column::Text(|receipt| Some(receipt.message_id.to_string())),
    ),
    ("contact_id", Column::Text(|receipt| Some(receipt.contact_id.clone()))),
    (
        "campaign_id",
        Column::Text(|receipt| match &receipt.cause {
            Cause::Campaign { campaign_id } => Some(campaign_id.clone()),
            _ => None,
        }),
    ),
    (
        "trigger",
        Column::Text(|receipt| match &receipt.cause {
            Cause::Trigger { trigger, .. } => Some(trigger.clone()),
            _ => None,
        }),
    ),
    (
        "event_source",
        Column::Text(|receipt| match &receipt.cause {
            Cause::Trigger { event_source, .. } => Some(event_source.clone()),
            _ => None,
        }),
    ),
    (
        "event_id",
        Column::Text(|receipt| match &receipt.cause {
            Cause::Trigger { event_id, .. } => Some(event_id.clone()),
            _ => None,
        }),
    ),
    (
        "idempotency_key",
        Column::Text(|receipt| match &receipt.cause {
            Cause::Direct { idempotency_key } => Some(idempotency_key.clone()),
            _ => None,
        }),
    ),
    ("class", Column::Text(|receipt| Some(receipt.class.as_str().to_owned()))),
    ("state", Column::Text(|receipt| Some(receipt.state.as_str().to_owned()))),
    (
        "reason",
        Column::Text(|receipt| receipt.reason.map(|reason| reason.as_str().to_owned())),
    ),
    ("gateway_code", Column::Text(|receipt| receipt.gateway_code.clone())),
    ("template", Column::Text(|receipt| Some(receipt.template.clone()))),
    ("variant", Column::Text(|receipt| receipt.variant.clone())),
    ("gateway", Column::Text(|receipt| receipt.gateway.clone())),
    ("encoding", Column::Text(|receipt| receipt.encoding.clone())),
    ("parts", Column::Number(|receipt| Some(receipt.parts.into()))),
    ("cost_micros", Column::Number(|receipt| Some(receipt.cost_micros))),
    ("phone_hash", Column::Text(|receipt| receipt.phone_hash.clone())),
    ("at", Column::Time(|receipt| Some(receipt.at))),
    ("caused_at", Column::Time(|receipt| Some(receipt.caused_at))),
    ("planned_at", Column::Time(|receipt| receipt.planned_at)),
    ("rendered_at", Column::Time(|receipt| receipt.rendered_at)),
    ("claimed_at", Column::Time(|receipt| receipt.claimed_at)),
    ("accepted_at", Column::Time(|receipt| receipt.accepted_at)),
    ("latency_ms", Column::Number(|receipt| receipt.latency_ms)),
    ("delivery_ms", Column::Number(|receipt| receipt.delivery_ms)),
    ("decided_by", Column::Text(|receipt| receipt.decided_by.clone())),
];

pub struct ReceiptWriter {
    file: SerializedFileWriter<File>,
    waiting: Vec<Receipt>,
    rows: u64,
}

impl ReceiptWriter {
    pub fn new(file: File) -> Result<ReceiptWriter, ParquetError> {
        let fields: String = COLUMNS
            .iter()
            .map(|(name, column)| match column {
                Column::Text(_) => format!("optional binary {name} (UTF8);\n"),
                Column::Number(_) => format!("optional int64 {name};\n"),
                Column::Time(_) => format!("optional int64 {name} (TIMESTAMP(MICROS,true));\n"),
            })
            .collect();
        let schema = parse_message_type(&format!("message receipt {{\n{fields}}}"))?;
        let properties = WriterProperties::builder()
            // No codec is compiled in; dictionaries make most of the difference.
            .set_compression(Compression::UNCOMPRESSED)
            .build();
        Ok(ReceiptWriter {
            file: SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties))?,
            waiting: Vec::new(),
            rows: 0,
        })
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    pub fn put(&mut self, receipt: Receipt) -> Result<(), ParquetError> {
        self.waiting.push(receipt);
        self.rows += 1;
        match self.waiting.len() >= GROUP {
            true => self.flush(),
            false => Ok(()),
        }
    }

    pub fn finish(mut self) -> Result<(), ParquetError> {
        self.flush()?;
        self.file.close().map(|_| ())
    }

    fn flush(&mut self) -> Result<(), ParquetError> {
        let rows = std::mem::take(&mut self.waiting);
        if rows.is_empty() {
            return Ok(());
        }
        let mut group = self.file.next_row_group()?;
        for (_, column) in COLUMNS {
            let Some(mut writer) = group.next_column()? else { break };
            match column {
                Column::Text(of) => {
                    let (values, levels) = split(&rows, |row| of(row).map(|text| ByteArray::from(text.into_bytes())));
                    writer
                        .typed::<ByteArrayType>()
                        .write_batch(&values, Some(&levels), None)?;
                }
                Column::Number(of) => {
                    let (values, levels) = split(&rows, of);
                    writer.typed::<Int64Type>().write_batch(&values, Some(&levels), None)?;
                }
                Column::Time(of) => {
                    let (values, levels) = split(&rows, |row| of(row).map(|time| time.as_microsecond()));
                    writer.typed::<Int64Type>().write_batch(&values, Some(&levels), None)?;
                }
            }
            writer.close()?;
        }
        group.close().map(|_| ())
    }
}

/// The values that there are, and for each row whether there is one (a definition level of 1).
fn split<T>(rows: &[Receipt], of: impl Fn(&Receipt) -> Option<T>) -> (Vec<T>, Vec<i16>) {
    let mut values = Vec::with_capacity(rows.len());
    let mut levels = Vec::with_capacity(rows.len());
    for row in rows {
        let value = of(row);
        levels.push(i16::from(value.is_some()));
        values.extend(value);
    }
    (values, levels)
}
