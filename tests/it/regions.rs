//! `[policy.regions]`: what territory national digits are a phone of, by who told them.

use serde_json::json;

use crate::support::{
    process::eventually,
    tamtam::{Installation, PATIENCE},
};

fn resources(smpp: &str) -> String {
    let gateway = |name: &str, prefix: &str| {
        format!(
            "[[gateway]]\nname = \"{name}\"\nkind = \"smpp\"\naddress = \"{smpp}\"\nsystem_id = \"{name}\"\n\
             password = \"x\"\nrate = 100\nprefixes = [\"{prefix}\"]\n"
        )
    };
    gateway("island", "+262")
        + &gateway("mainland", "+33")
        + r#"
[[template]]
name = "sale"
class = "marketing"
sender = "BOUTIQUE"
text = "Soldes"

[policy]
quiet_hours = "off"
default_region = "RE"

[policy.regions]
pos-paris = "FR"
"#
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sources_region_decides_where_its_contacts_are_written_to() {
    let installation = Installation::private().await;
    let up = installation.start(&["up", "--simulator", "--data-dir", "data"]);
    let toml = installation.file("r.toml", &resources(up.at("simulator_smpp")));
    installation.json(&up, &["apply", "-f", &toml]);
    let changed = |id: &str, source: &str, phone: &str| {
        let change = json!({"id": format!("{id}-1"), "source": source, "type": "contact.updated", "contact_id": id,
            "data": {"phone": phone, "region": "north", "marketing_consent": true}});
        format!("{change}\n")
    };
    let lines = changed("reunion", "crm", "0692123456")
        + &changed("paris", "pos-paris", "0612345678")
        // No number of the island.
        + &changed("nowhere", "crm", "0612345678")
        // A number that says its country needs no region.
        + &changed("visitor", "pos-paris", "+262692123457");
    let file = installation.file("e.ndjson", &lines);
    installation.json(&up, &["events", "publish", &file]);
    eventually("the contacts", PATIENCE, || {
        let counted = installation.json(&up, &["audience", "count", "region = \"north\""]);
        let dead = installation.json(&up, &["dead-letters", "list"]);
        let dead = dead["dead_letters"].as_array().unwrap();
        assert!(dead.len() <= 1, "{dead:?}");
        (counted["count"] == 3 && dead.len() == 1).then_some(())
    });
    let create = [
        "campaign",
        "create",
        "--name",
        "x",
        "--where",
        "region = \"north\"",
        "--template",
        "sale",
    ];
    let created = installation.json(&up, &create);
    let id = created["id"].as_str().unwrap();
    installation.json(&up, &["campaign", "launch", id]);
    assert_eq!(installation.settled(&up, id)["delivered"], 3);
    for (contact, gateway) in [("reunion", "island"), ("paris", "mainland"), ("visitor", "island")] {
        let listed = installation.json(&up, &["message", "list", contact]);
        assert_eq!(listed["messages"][0]["gateway"], gateway, "{contact}");
    }

    // A region that there is not would refuse every number of the source: it is refused itself, at its place.
    for region in ["Réunion", "re", "QQ"] {
        let bad = format!("[policy]\ndefault_region = \"RE\"\n\n[policy.regions]\npos-paris = \"{region}\"\n");
        let bad = installation.file("bad.toml", &bad);
        let refused = installation.command(&up, &["apply", "-f", &bad]);
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(64), "{told}");
        assert!(
            told.contains("regions") && told.contains("expected two capital letters such as `RE`"),
            "{told}"
        );
        assert!(told.contains("line "), "{told}");
    }
}
