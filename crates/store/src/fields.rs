//! What contacts have in a field: how many lack it, a value of usual length, and the longest.

use sqlx::Row;

use crate::{Store, StoreError};

/// One field over all contacts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldUse {
    /// Contacts in which it is not set, or blank.
    pub lacking: i64,
    /// Of middling length among the first contacts.
    pub usual: Option<String>,
    pub longest: Option<String>,
}

/// Contacts that the usual value is looked for in.
const SAMPLE: i64 = 1_000;

/// The contact's own columns that a text can name; any other name is an attribute.
fn column(field: &str) -> Option<&'static str> {
    Some(match field {
        "id" => "id",
        "phone" => "phone",
        "first_name" => "first_name",
        "last_name" => "last_name",
        "gender" => "gender",
        "birth_date" => "birth_date::text",
        "city" => "city",
        "region" => "region",
        "postal_code" => "postal_code",
        "language" => "language",
        "time_zone" => "time_zone",
        _ => return None,
    })
}

impl Store {
    /// How many contacts there are, and what they have in each of `fields`, in their order. Two statements, one of which
    /// reads all contacts once.
    pub async fn contact_fields(&self, fields: &[&str]) -> Result<(i64, Vec<FieldUse>), StoreError> {
        let expressions: Vec<String> = fields
            .iter()
            .enumerate()
            .map(|(index, field)| match column(field) {
                Some(column) => column.to_owned(),
                None => format!("attributes ->> ($1::text[])[{}]", index + 1),
            })
            .collect();
        let mut totals = String::from("select count(*) as contacts, $1::text[] is null as unused");
        let mut values = String::from("select $1::text[] is null as unused");
        for (index, expression) in expressions.iter().enumerate() {
            totals.push_str(&format!(
                ", count(*) filter (where coalesce(btrim({expression}), '') = '') as lacking_{index},
                 substr(max(lpad(length({expression})::text, 9, '0') || ({expression})), 10) as longest_{index}"
            ));
            values.push_str(&format!(", {expression} as value_{index}"));
        }
        totals.push_str(" from contacts");
        values.push_str(&format!(" from contacts order by id limit {SAMPLE}"));
        let row = sqlx::query(sqlx::AssertSqlSafe(totals))
            .persistent(false)
            .bind(fields)
            .fetch_one(&self.pool)
            .await?;
        let rows = sqlx::query(sqlx::AssertSqlSafe(values))
            .persistent(false)
            .bind(fields)
            .fetch_all(&self.pool)
            .await?;
        let uses = (0..fields.len())
            .map(|index| {
                let name = format!("value_{index}");
                let mut values: Vec<String> = rows
                    .iter()
                    .map(|row| row.try_get::<Option<String>, _>(name.as_str()))
                    .collect::<Result<Vec<_>, _>>()?
                    .into_iter()
                    .flatten()
                    .filter(|value| !value.trim().is_empty())
                    .collect();
                values.sort_by_key(|value| value.chars().count());
                let middle = values.len() / 2;
                Ok(FieldUse {
                    lacking: row.try_get(format!("lacking_{index}").as_str())?,
                    usual: (middle < values.len()).then(|| values.swap_remove(middle)),
                    longest: row.try_get(format!("longest_{index}").as_str())?,
                })
            })
            .collect::<Result<_, StoreError>>()?;
        Ok((row.try_get("contacts")?, uses))
    }
}
