//! `CampaignService` and `AudienceService`.

use std::pin::Pin;

use api::{
    Api, ApiError,
    campaigns::{CampaignDraft, CampaignStatus, Start},
};
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use store::Campaign;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::{
    convert::{from_timestamp, to_map, to_timestamp},
    guard::caller,
    proto::{
        self, CampaignRequest, CountAudienceRequest, CountAudienceResponse, CreateCampaignRequest,
        audience_service_server::AudienceService, campaign_service_server::CampaignService,
        create_campaign_request::AudienceOf,
    },
    status::status,
};

#[derive(Debug)]
pub(crate) struct Campaigns {
    pub api: Api,
    pub shutdown: CancellationToken,
}

#[derive(Debug)]
pub(crate) struct Audiences {
    pub api: Api,
}

#[tonic::async_trait]
impl CampaignService for Campaigns {
    async fn create(&self, request: Request<CreateCampaignRequest>) -> Result<Response<proto::Campaign>, Status> {
        let caller = caller(&request)?;
        let draft = draft(request.into_inner())?;
        let campaign = self.api.campaign_create(&caller, draft).await.map_err(status)?;
        self.with_counts(&caller, campaign.id).await
    }

    async fn launch(&self, request: Request<CampaignRequest>) -> Result<Response<proto::Campaign>, Status> {
        let (caller, id) = (caller(&request)?, id(request.get_ref())?);
        self.api.campaign_launch(&caller, id, None).await.map_err(status)?;
        self.with_counts(&caller, id).await
    }

    async fn pause(&self, request: Request<CampaignRequest>) -> Result<Response<proto::Campaign>, Status> {
        let (caller, id) = (caller(&request)?, id(request.get_ref())?);
        self.api.campaign_pause(&caller, id).await.map_err(status)?;
        self.with_counts(&caller, id).await
    }

    async fn resume(&self, request: Request<CampaignRequest>) -> Result<Response<proto::Campaign>, Status> {
        let (caller, id) = (caller(&request)?, id(request.get_ref())?);
        self.api.campaign_resume(&caller, id).await.map_err(status)?;
        self.with_counts(&caller, id).await
    }

    async fn cancel(&self, request: Request<CampaignRequest>) -> Result<Response<proto::Campaign>, Status> {
        let (caller, id) = (caller(&request)?, id(request.get_ref())?);
        self.api.campaign_cancel(&caller, id).await.map_err(status)?;
        self.with_counts(&caller, id).await
    }

    async fn get(&self, request: Request<CampaignRequest>) -> Result<Response<proto::Campaign>, Status> {
        let (caller, id) = (caller(&request)?, id(request.get_ref())?);
        self.with_counts(&caller, id).await
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<proto::Campaign, Status>> + Send>>;

    async fn watch(&self, request: Request<CampaignRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (caller, id) = (caller(&request)?, id(request.get_ref())?);
        let states = self.api.campaign_watch(&caller, id).await.map_err(status)?;
        // It ends when the server stops; the caller watches again elsewhere.
        let states = states
            .map(|state| state.map(campaign).map_err(status))
            .take_until(self.shutdown.clone().cancelled_owned());
        Ok(Response::new(Box::pin(states)))
    }
}

#[tonic::async_trait]
impl AudienceService for Audiences {
    async fn count(&self, request: Request<CountAudienceRequest>) -> Result<Response<CountAudienceResponse>, Status> {
        let caller = caller(&request)?;
        let expression = request.into_inner().expression;
        let count = self.api.audience_count(&caller, &expression).await.map_err(status)?;
        Ok(Response::new(CountAudienceResponse { count: number(count) }))
    }
}

impl Campaigns {
    async fn with_counts(&self, caller: &api::Caller, id: Uuid) -> Result<Response<proto::Campaign>, Status> {
        let state = self.api.campaign_status(caller, id).await.map_err(status)?;
        Ok(Response::new(campaign(state)))
    }
}

fn id(request: &CampaignRequest) -> Result<Uuid, Status> {
    let id = request.id.parse();
    id.map_err(|_| status(ApiError::invalid("id", "expected a campaign's id (a UUID)")))
}

/// proto3 has no absent text: an empty one is none.
fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn draft(request: CreateCampaignRequest) -> Result<CampaignDraft, Status> {
    let time = |field: &'static str, time: Option<prost_types::Timestamp>| -> Result<Option<Timestamp>, Status> {
        let read =
            |time| from_timestamp(time).ok_or_else(|| status(ApiError::invalid(field, "no instant: expected a time")));
        time.map(read).transpose()
    };
    let values = to_map(request.values.as_ref()).map_err(|_| {
        status(ApiError::invalid(
            "values",
            "a number that is not finite: expected finite numbers",
        ))
    })?;
    let zone = some(request.zone);
    let at = match (time("at", request.at)?, some(request.at_local)) {
        (at, None) => at,
        (None, Some(local)) => {
            let expected = "expected a local time such as 2026-12-24T09:00";
            let start = Start::parse(&local).ok_or_else(|| status(ApiError::invalid("at_local", expected)))?;
            Some(start.resolve(zone.as_deref()).map_err(status)?)
        }
        (Some(_), Some(_)) => {
            return Err(status(ApiError::invalid(
                "at_local",
                "expected either `at` or `at_local`",
            )));
        }
    };
    let (audience, condition) = match request.audience_of {
        Some(AudienceOf::Audience(name)) => (Some(name), None),
        Some(AudienceOf::Where(text)) => (None, Some(text)),
        None => (None, None),
    };
    Ok(CampaignDraft {
        name: request.name,
        audience,
        condition,
        template: request.template,
        values,
        at,
        recurring: some(request.recurring),
        zone,
        deadline: time("deadline", request.deadline)?,
        budget_micros: (request.budget_micros != 0).then_some(request.budget_micros),
        control_percent: request.control_percent,
        idempotency_key: some(request.idempotency_key),
    })
}

fn campaign(status: CampaignStatus) -> proto::Campaign {
    let CampaignStatus { campaign, counts } = status;
    let Campaign {
        id,
        name,
        state,
        audience,
        expression,
        template,
        at,
        deadline,
        created_at,
        launched_at,
        finished_at,
        ..
    } = campaign;
    proto::Campaign {
        id: id.to_string(),
        name,
        state: state.as_str().into(),
        expression,
        template,
        created_at: Some(to_timestamp(created_at)),
        launched_at: launched_at.map(to_timestamp),
        finished_at: finished_at.map(to_timestamp),
        counts: Some(proto::Counts {
            planned: number(counts.planned),
            suppressed: number(counts.suppressed),
            accepted: number(counts.accepted),
            delivered: number(counts.delivered),
            failed: number(counts.failed),
            expired: number(counts.expired),
            cancelled: number(counts.cancelled),
            unknown: number(counts.unknown),
            pending: number(counts.pending),
        }),
        audience: audience.unwrap_or_default(),
        at: at.map(to_timestamp),
        deadline: deadline.map(to_timestamp),
    }
}

/// A count; none is below zero.
fn number(count: i64) -> u64 {
    u64::try_from(count).unwrap_or_default()
}
