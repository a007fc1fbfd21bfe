//! Applying resources: every mistake at once with its line, all or nothing, and nothing removed that is referred to.

use api::{ErrorKind, Role, campaigns::CampaignDraft};
use resources::Kind;
use store::resources::Applied;

use crate::support::server::{Server, admin, caller};

const GOOD: &str = r#"
[[template]]
name = "order-confirmation"
class = "transactional"
sender = "BOUTIQUE"
text = "Merci {{ contact.first_name | default('') }}"

[[audience]]
name = "north"
where = 'region = "north"'

[[trigger]]
name = "order-confirmation"
on = "order.placed"
when = 'event.amount > 0'
audience = "north"
template = "order-confirmation"

[policy]
quiet_hours = "off"
"#;

const BAD: &str = r#"
[[template]]
name = "broken"
class = "marketing"
sender = "BOUTIQUE"
text = "Bonjour {{ contact.first_name "

[[audience]]
name = "south"
where = 'age < '

[[trigger]]
name = "t"
on = "order.placed"
when = 'event.amount >'
template = "nothing"
"#;

#[tokio::test]
async fn a_file_with_mistakes_changes_nothing_and_all_are_told() {
    let server = Server::start().await;
    let error = server.api.resources_apply(&admin(), BAD, false).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    let lines: Vec<Option<usize>> = error.errors.iter().map(|error| error.line).collect();
    assert_eq!(lines, [Some(6), Some(10), Some(15), Some(16)], "{:#?}", error.errors);
    assert!(server.store.resources_list().await.unwrap().is_empty());
    // One good resource beside a bad one is not taken either.
    let mixed = format!("{GOOD}\n[[audience]]\nname = \"x\"\nwhere = 'age <'\n");
    assert!(server.api.resources_apply(&admin(), &mixed, false).await.is_err());
    assert!(server.store.resources_list().await.unwrap().is_empty());
    let refused = server
        .api
        .resources_apply(&caller(Role::Campaigns), GOOD, false)
        .await
        .unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Forbidden);
}

#[tokio::test]
async fn applying_again_changes_nothing_and_what_is_used_stays() {
    let server = Server::start().await;
    let (api, by) = (&server.api, admin());
    let dry = api.resources_apply(&by, GOOD, true).await.unwrap();
    assert_eq!(dry.len(), 4);
    assert!(
        server.store.resources_list().await.unwrap().is_empty(),
        "a dry run writes nothing"
    );
    let changes =
        |applied: Vec<api::resources::AppliedResource>| applied.into_iter().map(|one| one.change).collect::<Vec<_>>();
    assert_eq!(
        changes(api.resources_apply(&by, GOOD, false).await.unwrap()),
        [Applied::Created; 4]
    );
    assert_eq!(
        changes(api.resources_apply(&by, GOOD, false).await.unwrap()),
        [Applied::Unchanged; 4]
    );

    let used = api
        .resource_delete(&by, Kind::Template, "order-confirmation")
        .await
        .unwrap_err();
    assert_eq!(used.kind, ErrorKind::Conflict);
    assert!(used.message.contains("trigger `order-confirmation`"), "{used}");
    api.resource_delete(&by, Kind::Trigger, "order-confirmation")
        .await
        .unwrap();

    // A campaign that is not over holds what it needs.
    let draft = CampaignDraft {
        name: "Soldes".into(),
        audience: Some("north".into()),
        template: "order-confirmation".into(),
        ..CampaignDraft::default()
    };
    let campaign = api.campaign_create(&by, draft).await.unwrap();
    api.campaign_launch(&by, campaign.id, None).await.unwrap();
    let used = api.resource_delete(&by, Kind::Audience, "north").await.unwrap_err();
    assert!(used.message.contains("Soldes"), "{used}");
    api.campaign_cancel(&by, campaign.id).await.unwrap();
    api.resource_delete(&by, Kind::Audience, "north").await.unwrap();
    api.resource_delete(&by, Kind::Template, "order-confirmation")
        .await
        .unwrap();
    let gone = api
        .resource_delete(&by, Kind::Template, "order-confirmation")
        .await
        .unwrap_err();
    assert_eq!(gone.kind, ErrorKind::NotFound);
}
