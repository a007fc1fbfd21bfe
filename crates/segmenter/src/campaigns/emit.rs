//! From planned chunks to jobs on the bus.
//!
//! A chunk is claimed by locking its row: the claim ends with the transaction, or with the process, and then somebody else
//! takes the chunk over, which is appended as it was written down. On PostgreSQL the jobs and the mark that they are there
//! are one transaction.
//!
//! # What happens when it dies here
//! | point | PostgreSQL | Kafka |
//! |---|---|---|
//! | `expansion-before-append` | the chunk is claimed by another | the same |
//! | `expansion-after-append` | the same: the jobs are undone | the jobs are appended again, under the same ids |
//! | `expansion-after-done` | all is done | all is done |

use std::time::Duration;

use bus::{BusError, NewRecord};
use domain::{Cause, MessageId};
use events::{Job, Topic};
use serde_json::{Map, Value};
use stage::{crash, trace};
use store::{StoreError, campaigns::Chunk};

use super::{Trouble, Work};

const RETRY: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
enum EmitError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error("a crash point")]
    Crashed,
}

impl From<crash::Crashed> for EmitError {
    fn from(_: crash::Crashed) -> Self {
        EmitError::Crashed
    }
}

pub(super) async fn run(work: Work) {
    let mut trouble = Trouble::new("appending a campaign's jobs");
    let mut changes = work.wake.listener();
    while !work.stop.is_cancelled() {
        // A task of its own is not cancelled with us (sqlx #4393).
        let done = tokio::spawn(once(work.clone())).await;
        let wait = match done {
            Ok(Ok(true)) => {
                trouble.went_well();
                continue;
            }
            Ok(Ok(false)) => {
                trouble.went_well();
                Duration::MAX
            }
            Ok(Err(error)) => {
                trouble.failed(&error);
                RETRY
            }
            Err(error) => {
                trouble.failed(&error);
                RETRY
            }
        };
        if !changes.wait(wait, &work.stop).await {
            return;
        }
    }
}

/// Appends one chunk; `false`: there is none.
async fn once(work: Work) -> Result<bool, EmitError> {
    let mut tx = work.store.begin_by_key().await?;
    let Some(chunk) = tx.campaign_chunk_claim().await? else {
        return Ok(false);
    };
    let records = jobs(&chunk, work.trace_sample).await;
    let count = records.len() as u64;
    crash::point("expansion-before-append")?;
    match work.log.transactional() {
        Some(log) => {
            // The jobs' partitions are held from the append to the commit: it comes last.
            tx.campaign_chunk_done(&chunk, work.clock.now()).await?;
            log.append_in(tx.connection(), &records).await?;
            crash::point("expansion-after-append")?;
            tx.commit().await?;
            log.announce(&records);
        }
        None => {
            work.log.append(records).await?;
            crash::point("expansion-after-append")?;
            tx.campaign_chunk_done(&chunk, work.clock.now()).await?;
            tx.commit().await?;
        }
    }
    crash::point("expansion-after-done")?;
    metrics::counter!("tamtam_segmenter_jobs_total", "cause" => "campaign").increment(count);
    Ok(true)
}

/// `sample`: the share of them whose trace is sampled.
async fn jobs(chunk: &Chunk, sample: f64) -> Vec<NewRecord> {
    let campaign = &chunk.campaign;
    let cause = Cause::Campaign {
        campaign_id: campaign.id.to_string(),
    };
    // One job, changed for each contact: what they have in common is made once.
    let mut job = Job {
        message_id: campaign.id,
        contact_id: String::new(),
        cause: cause.clone(),
        template: campaign.template.clone(),
        caused_at: campaign.launched_at.unwrap_or(chunk.planned_at),
        planned_at: chunk.planned_at,
        deadline: campaign.deadline,
        event: Map::new(),
        values: values(campaign.vars.clone(), &campaign.name),
        deferrals: 0,
        suppress: None,
        phone: None,
    };
    let mut records = Vec::with_capacity(chunk.members.len());
    for (place, member) in chunk.members.iter().enumerate() {
        super::give_way(place).await;
        let id = MessageId::derive(&cause, &member.contact_id);
        job.message_id = id.0;
        job.contact_id.clone_from(&member.contact_id);
        job.suppress = member.suppress;
        let id = id.to_string();
        let trace = trace::begin("segmenter", &id, sample);
        records.push(NewRecord::wrap(
            Topic::Jobs,
            &member.contact_id,
            id,
            chunk.planned_at,
            Some(trace.traceparent()),
            &job,
        ));
    }
    records
}

/// What `{{ campaign.… }}` stands for: the campaign's own values, and its name where they do not say it. The deadline is
/// the job's.
pub(super) fn values(mut vars: Map<String, Value>, name: &str) -> Map<String, Value> {
    if !vars.contains_key("name") {
        vars.insert("name".into(), name.into());
    }
    vars
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use domain::{CampaignState, Reason};
    use events::{Envelope, Record as _};
    use jiff::Timestamp;
    use store::{Campaign, campaigns::ChunkMember};

    use super::*;

    #[tokio::test]
    async fn a_chunk_gives_the_same_jobs_each_time() {
        let at: Timestamp = "2026-06-01T10:00:00Z".parse().unwrap();
        let campaign = Campaign {
            id: uuid::Uuid::from_u128(7),
            parent_id: None,
            name: "Soldes".into(),
            state: CampaignState::Running,
            audience: None,
            expression: "age < 30".into(),
            template: "flash-sale".into(),
            vars: Map::from_iter([("article".to_owned(), "sandales".into())]),
            at: None,
            zone: None,
            recurring: None,
            deadline: Some(at),
            budget_micros: None,
            control_percent: 0,
            created_at: at,
            created_by: "me".into(),
            launched_at: Some(at),
            after_contact: String::new(),
            chunks: 0,
            planned: 0,
            spent_micros: 0,
            expanded_at: None,
            finished_at: None,
            updated_at: at,
        };
        let member = |id: &str, suppress| ChunkMember {
            contact_id: id.into(),
            suppress,
        };
        let chunk = Chunk {
            campaign,
            number: 0,
            planned_at: at,
            members: vec![member("1", None), member("2", Some(Reason::Budget))],
        };
        let records = jobs(&chunk, 0.5).await;
        assert_eq!(records, jobs(&chunk, 0.5).await);
        let ids: BTreeSet<String> = records
            .iter()
            .map(|record| Envelope::from_headers(&record.headers).unwrap().id)
            .collect();
        assert_eq!(ids.len(), 2);
        let job = Job::from_bytes(Job::KIND, &records[1].value).unwrap();
        assert_eq!((job.contact_id.as_str(), job.suppress), ("2", Some(Reason::Budget)));
        assert_eq!((&job.values["name"], job.deadline), (&"Soldes".into(), Some(at)));
    }
}
