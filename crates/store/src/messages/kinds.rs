//! What many rows of a batch have in common, and few ways.
//!
//! An array a column is what inserting a wide row costs most for, and most columns of a batch hold the same few values: its
//! messages are of some triggers or one campaign, in some templates, of one part or two. Such columns are given once for each
//! kind of row, and a row says which kind it is.

use domain::Cause;
use uuid::Uuid;

use super::MessageRow;
use crate::StoreError;

/// More kinds than these are not looked for: finding one in an array goes over those before it.
const MOST: usize = 64;

#[derive(Clone, Copy, PartialEq)]
struct Kind<'a> {
    template: &'a str,
    campaign: Option<&'a str>,
    trigger: Option<&'a str>,
    source: Option<&'a str>,
    variant: Option<&'a str>,
    encoding: Option<&'a str>,
    parts: u16,
    cost_micros: i64,
    attempt: u32,
    purpose: Option<&'a str>,
}

impl<'a> Kind<'a> {
    fn of(row: &'a MessageRow) -> Kind<'a> {
        let (mut campaign, mut trigger, mut source) = (None, None, None);
        match &row.cause {
            Cause::Campaign { campaign_id } => campaign = Some(campaign_id.as_str()),
            Cause::Trigger {
                trigger: name,
                event_source,
                ..
            } => (trigger, source) = (Some(name.as_str()), Some(event_source.as_str())),
            Cause::Direct { .. } => {}
        }
        Kind {
            template: &row.template,
            campaign,
            trigger,
            source,
            variant: row.variant.as_deref(),
            encoding: row.encoding.as_deref(),
            parts: row.parts,
            cost_micros: row.cost_micros,
            attempt: row.attempt,
            purpose: row.purpose.as_deref(),
        }
    }
}

/// The kinds of rows in a batch, column by column, and the kind of each row.
pub(super) struct Kinds<'a> {
    pub(super) campaigns: Vec<Option<Uuid>>,
    pub(super) triggers: Vec<Option<&'a str>>,
    pub(super) sources: Vec<Option<&'a str>>,
    pub(super) templates: Vec<&'a str>,
    pub(super) variants: Vec<Option<&'a str>>,
    pub(super) encodings: Vec<Option<&'a str>>,
    pub(super) parts: Vec<i16>,
    pub(super) costs: Vec<i64>,
    pub(super) attempts: Vec<i32>,
    pub(super) purposes: Vec<Option<&'a str>>,
    /// Counted from 1, as PostgreSQL counts what is in an array.
    pub(super) each: Vec<i32>,
}

impl<'a> Kinds<'a> {
    /// `None`: there are too many.
    pub(super) fn of(rows: &[&'a MessageRow]) -> Result<Option<Kinds<'a>>, StoreError> {
        let mut kinds: Vec<Kind<'_>> = Vec::new();
        let mut each = Vec::with_capacity(rows.len());
        let mut number = 0;
        for row in rows {
            let kind = Kind::of(row);
            // Mostly it is that of the row before.
            if kinds.get(number) != Some(&kind) {
                number = match kinds.iter().position(|known| *known == kind) {
                    Some(known) => known,
                    None if kinds.len() == MOST => return Ok(None),
                    None => {
                        kinds.push(kind);
                        kinds.len() - 1
                    }
                };
            }
            each.push(i32::try_from(number + 1).unwrap_or(i32::MAX));
        }
        let campaigns = (kinds.iter())
            .map(|kind| kind.campaign.map(campaign_column).transpose())
            .collect::<Result<_, _>>()?;
        Ok(Some(Kinds {
            campaigns,
            triggers: kinds.iter().map(|kind| kind.trigger).collect(),
            sources: kinds.iter().map(|kind| kind.source).collect(),
            templates: kinds.iter().map(|kind| kind.template).collect(),
            variants: kinds.iter().map(|kind| kind.variant).collect(),
            encodings: kinds.iter().map(|kind| kind.encoding).collect(),
            parts: kinds.iter().map(|kind| parts_column(kind.parts)).collect(),
            costs: kinds.iter().map(|kind| kind.cost_micros).collect(),
            attempts: kinds.iter().map(|kind| attempts_column(kind.attempt)).collect(),
            purposes: kinds.iter().map(|kind| kind.purpose).collect(),
            each,
        }))
    }
}

pub(super) fn campaign_column(id: &str) -> Result<Uuid, StoreError> {
    id.parse()
        .map_err(|_| StoreError::Corrupt("a message's campaign id is no UUID: its record was not made by us".into()))
}

pub(super) fn parts_column(parts: u16) -> i16 {
    i16::try_from(parts).unwrap_or(i16::MAX)
}

pub(super) fn attempts_column(attempts: u32) -> i32 {
    i32::try_from(attempts).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::outcome::tests::sending;

    fn row(campaign: usize) -> MessageRow {
        MessageRow {
            cause: Cause::Campaign {
                campaign_id: Uuid::from_u128(campaign as u128).to_string(),
            },
            ..sending(1, 1)
        }
    }

    #[test]
    fn rows_share_kinds_up_to_a_number_of_them() {
        let rows: Vec<MessageRow> = [3, 3, 5, 3, 5].into_iter().map(row).collect();
        let kinds = Kinds::of(&rows.iter().collect::<Vec<_>>()).unwrap().unwrap();
        assert_eq!(kinds.each, [1, 1, 2, 1, 2]);
        assert_eq!(kinds.campaigns, [Some(Uuid::from_u128(3)), Some(Uuid::from_u128(5))]);
        let many: Vec<MessageRow> = (0..=MOST).map(row).collect();
        let many: Vec<&MessageRow> = many.iter().collect();
        assert!(Kinds::of(&many[..MOST]).unwrap().is_some());
        assert!(Kinds::of(&many).unwrap().is_none());
    }

    #[test]
    fn a_campaign_that_is_none_is_refused() {
        let mut row = row(1);
        row.cause = Cause::Campaign {
            campaign_id: "summer".into(),
        };
        assert!(matches!(Kinds::of(&[&row]), Err(StoreError::Corrupt(_))));
    }
}
