//! The walk over a campaign's audience, written down in chunks.
//!
//! Any replica plans. A chunk is written together with the campaign's position, in a transaction that finds the position
//! where this walk left it: who finds it elsewhere lets the other go on, and takes over when the position stands still.
//!
//! # What happens when it dies here
//! - `expansion-before-plan`: nothing was written; the walk goes on after the last chunk, at the exact contact.
//! - `expansion-after-plan`: the chunk is there, its jobs are not: it is claimed like any other.
//! - At the end, before the campaign is marked as expanded: the walk finds nobody any more, and marks it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use domain::{
    Cause, MessageId, Phone, Reason,
    audience::{self, Expression},
    contact::MARKETING,
};
use jiff::Timestamp;
use resources::{Compose, Composer, Policy, rules::price};
use serde_json::Map;
use stage::crash;
use store::{
    Campaign, CampaignError, StoreError,
    audience::Named,
    campaigns::{ChunkMember, Met, Page},
};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{Trouble, Work, emit::values, seen::Seen};

/// Contacts in a chunk.
const CHUNK: usize = 5_000;
/// The first is small: somebody waits to see the campaign begin.
const FIRST: i64 = 250;
/// Campaigns that are walked at the same time.
const WALKS: usize = 4;
/// A position that does not move for this long is nobody's.
const TAKE_OVER: Duration = Duration::from_millis(1_500);
/// Chunks that are written and not on the bus yet: beyond this the walk waits for those who append.
const AHEAD: i64 = 40;
/// Contacts whose texts are made to estimate the cost of all.
const SAMPLE: i64 = 50;

#[derive(Debug, thiserror::Error)]
enum PlanError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("its audience cannot be read: {0}")]
    Audience(#[from] audience::ParseError),
    #[error("a crash point")]
    Crashed,
}

impl From<crash::Crashed> for PlanError {
    fn from(_: crash::Crashed) -> Self {
        PlanError::Crashed
    }
}

/// How a walk ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// All is written, or the campaign does not run any more.
    Done,
    /// Somebody else is walking.
    Contended,
    /// It is to begin again where it is.
    Again,
}

pub(super) async fn run(work: Work) {
    let mut trouble = Trouble::new("planning campaigns");
    let mut changes = work.wake.listener();
    let mut walks: JoinSet<(Uuid, Result<Ended, PlanError>)> = JoinSet::new();
    let mut walking: HashSet<Uuid> = HashSet::new();
    // Campaigns that somebody else walks: the position when it was last seen to move, and when that was.
    let mut others: HashMap<Uuid, (String, Instant)> = HashMap::new();
    loop {
        match work.store.campaigns_expanding().await {
            Ok(campaigns) => {
                trouble.went_well();
                others.retain(|id, _| campaigns.iter().any(|campaign| campaign.id == *id));
                for campaign in campaigns {
                    if walking.contains(&campaign.id) || walking.len() == WALKS || is_anothers(&mut others, &campaign) {
                        continue;
                    }
                    walking.insert(campaign.id);
                    let work = work.clone();
                    walks.spawn(async move { (campaign.id, walk(work, campaign).await) });
                }
            }
            Err(error) => trouble.failed(&error),
        }
        tokio::select! {
            more = changes.wait(Duration::MAX, &work.stop) => if !more { break },
            Some(ended) = walks.join_next() => ended_walk(&work, ended, &mut walking, &mut others, &mut trouble).await,
        }
    }
    // Each ends after the chunk that it is writing.
    while walks.join_next().await.is_some() {}
}

async fn ended_walk(
    work: &Work,
    ended: Result<(Uuid, Result<Ended, PlanError>), tokio::task::JoinError>,
    walking: &mut HashSet<Uuid>,
    others: &mut HashMap<Uuid, (String, Instant)>,
    trouble: &mut Trouble,
) {
    match ended {
        Ok((id, ended)) => {
            walking.remove(&id);
            match ended {
                Ok(Ended::Done | Ended::Again) => {}
                Ok(Ended::Contended) => {
                    // Whatever position: the next look writes down the right one.
                    others.insert(id, (String::new(), Instant::now()));
                }
                Err(PlanError::Audience(error)) => pause(work, id, &error).await,
                Err(error) => {
                    trouble.failed(&error);
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
        Err(error) => {
            // Which one is not known any more; those that still walk are refused by the position.
            walking.clear();
            trouble.failed(&error);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// Whether somebody else walks it: its position moved in the last seconds.
fn is_anothers(others: &mut HashMap<Uuid, (String, Instant)>, campaign: &Campaign) -> bool {
    let Some((position, seen)) = others.get_mut(&campaign.id) else {
        return false;
    };
    if *position != campaign.after_contact {
        position.clone_from(&campaign.after_contact);
        *seen = Instant::now();
    }
    if seen.elapsed() < TAKE_OVER {
        return true;
    }
    others.remove(&campaign.id);
    false
}

/// A campaign that cannot be expanded waits for somebody who repairs its audience.
async fn pause(work: &Work, id: Uuid, error: &audience::ParseError) {
    tracing::error!(campaign = %id, %error, "a campaign's audience cannot be read: the campaign is paused");
    let (store, now, detail) = (work.store.clone(), work.clock.now(), error.to_string());
    let paused = tokio::spawn(async move {
        let mut tx = store.begin().await?;
        tx.campaign_pause(id, "tamtam", now).await?;
        tx.campaign_note(id, "tamtam", "audience cannot be read", Some(&detail), now)
            .await?;
        tx.commit().await?;
        Ok::<(), CampaignError>(())
    });
    if let Ok(Err(error)) = paused.await {
        tracing::warn!(campaign = %id, %error, "pausing the campaign failed");
    }
}

/// Writes chunks from the campaign's position to the audience's end.
async fn walk(work: Work, mut campaign: Campaign) -> Result<Ended, PlanError> {
    let expression = audience::parse(&campaign.expression)?;
    let named = named(&work);
    // The launch is the "now" of its windows, however often the walk begins again.
    let now = campaign.launched_at.unwrap_or_else(|| work.clock.now());
    let prices = Prices::new(&work, &campaign, &expression, &named, now).await?;
    let purpose = prices.purpose.as_deref().unwrap_or(MARKETING);
    let seen = Arc::new(Seen::new(work.store.campaign_phones(campaign.id).await?));
    // The walk sorts the whole audience before its first row: the beginning is asked for alone, and comes at once.
    if campaign.chunks == 0 {
        let first = work
            .store
            .audience_page(&expression, &named, &campaign.after_contact, FIRST, now)
            .await?;
        let first: Page = first
            .into_iter()
            .map(|contact| Met {
                consents: contact.consent_to(purpose).is_given(),
                phone: contact.phone.map(|phone| phone.e164().to_owned()),
                id: contact.id,
            })
            .collect();
        if !first.is_empty() {
            match planned(&work, campaign, first, &prices, &seen).await? {
                Some(moved) => campaign = moved,
                None => return Ok(Ended::Contended),
            }
        }
    }
    let mut pages = work
        .store
        .audience_walk(&expression, &named, &campaign.after_contact, purpose, CHUNK, now)
        .await?;
    loop {
        let page = pages.next_page().await?;
        if page.is_empty() {
            let done = tokio::spawn(end(work.clone(), campaign)).await;
            return done.unwrap_or(Err(PlanError::Crashed));
        }
        if work.stop.is_cancelled() {
            return Ok(Ended::Again);
        }
        match planned(&work, campaign, page, &prices, &seen).await? {
            Some(moved) => campaign = moved,
            None => return Ok(Ended::Contended),
        }
        if campaign.chunks % 16 == 0 && !wait_for_emitters(&work, campaign.id).await? {
            return Ok(Ended::Again);
        }
    }
}

/// [`plan`] in a task of its own, which is not cancelled with us (sqlx #4393); then those who append are woken.
async fn planned(
    work: &Work,
    campaign: Campaign,
    page: Page,
    prices: &Prices,
    seen: &Arc<Seen>,
) -> Result<Option<Campaign>, PlanError> {
    let moved = tokio::spawn(plan(work.clone(), campaign, page, prices.clone(), seen.clone())).await;
    work.wake.wake();
    moved.unwrap_or(Err(PlanError::Crashed))
}

/// The named audiences that can be read.
fn named(work: &Work) -> Named {
    let snapshot = work.live.current();
    let readable = |(name, audience): (&String, &Arc<resources::Audience>)| {
        Some((name.clone(), Arc::new(audience::parse(&audience.condition).ok()?)))
    };
    snapshot.audiences.iter().filter_map(readable).collect()
}

/// Lets those who append catch up; `false`: stop.
async fn wait_for_emitters(work: &Work, id: Uuid) -> Result<bool, StoreError> {
    while work.store.campaign_chunks_open(id).await? > AHEAD {
        tokio::select! {
            () = work.stop.cancelled() => return Ok(false),
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    }
    Ok(true)
}

async fn end(work: Work, campaign: Campaign) -> Result<Ended, PlanError> {
    let mut tx = work.store.begin().await?;
    let ended = match tx.campaign_expanded(&campaign, work.clock.now()).await? {
        true => Ended::Done,
        false => Ended::Contended,
    };
    tx.commit().await?;
    work.wake.wake();
    tracing::info!(campaign = %campaign.id, planned = campaign.planned, chunks = campaign.chunks, "campaign expanded");
    Ok(ended)
}

/// Writes one chunk; the campaign after it. `None`: it does not run any more, or somebody else was faster.
async fn plan(
    work: Work,
    mut campaign: Campaign,
    page: Page,
    prices: Prices,
    seen: Arc<Seen>,
) -> Result<Option<Campaign>, PlanError> {
    let mut members = Vec::with_capacity(page.len());
    let mut speak_for = Vec::with_capacity(page.len());
    let mut spent = 0;
    for (place, met) in page.into_iter().enumerate() {
        super::give_way(place).await;
        let Met { id, phone, consents } = met;
        let control = is_control(&campaign, &id);
        let refuses = phone.is_some() && prices.purpose.is_some() && !consents;
        let mut suppress = match (control, refuses) {
            (true, _) => Some(Reason::ControlGroup),
            // Decided here for good: should the consent come in a moment, two could write to one phone.
            (false, true) => Some(Reason::NoConsent),
            (false, false) => None,
        };
        // One without a phone is the renderer's to suppress; one that gets nothing speaks for no phone.
        if let Some(phone) = phone.filter(|_| suppress.is_none()).map(Phone::from_e164) {
            let mark = work.phone_key.mark(&phone);
            if !seen.is_first(mark) {
                suppress = Some(Reason::DuplicatePhone);
            } else {
                speak_for.push(mark);
                if let Some(budget) = campaign.budget_micros {
                    let cost = prices.of(&phone);
                    if campaign.spent_micros + spent + cost > budget {
                        suppress = Some(Reason::Budget);
                    } else {
                        spent += cost;
                    }
                }
            }
        }
        members.push(ChunkMember {
            contact_id: id,
            suppress,
        });
    }
    let now = work.clock.now();
    let mut tx = work.store.begin().await?;
    crash::point("expansion-before-plan")?;
    if !tx
        .campaign_chunk_plan(&campaign, &members, &speak_for, spent, now)
        .await?
    {
        return Ok(None);
    }
    tx.commit().await?;
    crash::point("expansion-after-plan")?;
    campaign.chunks += 1;
    campaign.planned += members.len() as i64;
    campaign.spent_micros += spent;
    if let Some(last) = members.pop() {
        campaign.after_contact = last.contact_id;
    }
    Ok(Some(campaign))
}

/// By a hash of campaign and contact: the same people each time it is asked, and others in the next campaign.
fn is_control(campaign: &Campaign, contact_id: &str) -> bool {
    if campaign.control_percent <= 0 {
        return false;
    }
    let cause = Cause::Campaign {
        campaign_id: format!("control/{}", campaign.id),
    };
    let hash = MessageId::derive(&cause, contact_id).0.as_u128();
    // The upper bits: the lower ones hold the UUID's version and variant.
    let part = (hash >> 80) % 100;
    part < campaign.control_percent.unsigned_abs().into()
}

/// What is known of a campaign's messages before they are made. What one is estimated to cost, for a campaign with a
/// budget: the parts of the longest text of a sample, or the most that its template allows.
#[derive(Clone, Debug)]
struct Prices {
    policy: Arc<Policy>,
    parts: i64,
    /// What the template is for, where it is marketing: only who consents to it is written to.
    purpose: Option<String>,
}

impl Prices {
    async fn new(
        work: &Work,
        campaign: &Campaign,
        expression: &Expression,
        named: &Named,
        now: Timestamp,
    ) -> Result<Prices, StoreError> {
        let snapshot = work.live.current();
        let mut prices = Prices {
            policy: snapshot.policy.clone(),
            parts: 1,
            // A template that is not there (any more) is the renderer's to refuse.
            purpose: snapshot
                .templates
                .get(&campaign.template)
                .and_then(|template| template.purpose().map(str::to_owned)),
        };
        if campaign.budget_micros.is_none() {
            return Ok(prices);
        }
        let composer = Composer::new(&snapshot);
        let empty = Map::new();
        // The same values that the messages will have: without one of them no text would come out at all.
        let vars = values(campaign.vars.clone(), &campaign.name);
        let sample = work.store.audience_page(expression, named, "", SAMPLE, now).await?;
        let composed = sample.iter().filter_map(|contact| {
            let compose = Compose {
                template: &campaign.template,
                contact,
                message_id: campaign.id,
                event: &empty,
                campaign: &vars,
                custom: &empty,
                default_zone: None,
                deadline: campaign.deadline,
            };
            composer.compose(&compose).ok()
        });
        // Where nothing comes out for anybody who was looked at, the most that a text may take: a budget is never overspent.
        let most = composed.map(|text| text.parts).max();
        prices.parts = i64::from(most.unwrap_or_else(|| composer.max_parts(&campaign.template)));
        Ok(prices)
    }

    fn of(&self, phone: &Phone) -> i64 {
        price(&self.policy, phone, None).saturating_mul(self.parts)
    }
}
