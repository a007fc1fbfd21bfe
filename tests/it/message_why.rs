//! `tamtam message show`: clause by clause, why somebody got a message or not.

use serde_json::{Value, json};

use crate::support::{
    process::{Process, eventually},
    tamtam::{Installation, PATIENCE, resources},
};

const TRIGGER: &str = r#"
[[trigger]]
name = "first-visit"
on = "visit.made"
when = 'event.pages > 3 and did visit.made count = 1'
audience = "north"
template = "hello"
wait = "1s"
unless = "order.placed"
once_per = "1w"
"#;

const CAMPAIGN: &str =
    r#"region = "north" and not received campaign "Soldes" and not (did visit.made(pages > 8) or age >= 90)"#;

fn contacts(moved: &str) -> String {
    format!(
        "id,phone,first_name,region,marketing_consent\n\
         stays,+262692000001,Ana,north,true\n\
         moves,+262692000002,Ana,{moved},true\n\
         mute,+262692000003,Ana,north,false\n"
    )
}

fn visit(contact: &str, number: u32, pages: u32) -> String {
    let visit = json!({"id": format!("{contact}-{number}"), "source": "site", "type": "visit.made",
        "contact_id": contact, "data": {"pages": pages}});
    format!("{visit}\n")
}

/// An installation in which a trigger and a campaign wrote to people, and things went on since.
struct Told {
    installation: Installation,
    up: Process,
}

impl Told {
    async fn new() -> Told {
        let installation = Installation::private().await;
        let up = installation.start(&["up", "--simulator", "--data-dir", "data"]);
        let told = Told { installation, up };
        let toml = resources(told.up.at("simulator_smpp"), 1_000) + TRIGGER;
        told.file(&["apply", "-f"], &toml);
        told.file(&["contacts", "import"], &contacts("north"));
        let visits = visit("stays", 1, 5) + &visit("moves", 1, 4) + &visit("mute", 1, 3);
        told.file(&["events", "publish"], &visits);
        for contact in ["stays", "moves"] {
            eventually("the trigger's message", PATIENCE, || told.message(contact, "trigger"));
        }
        let create = [
            "campaign",
            "create",
            "--name",
            "Soldes",
            "--template",
            "sale",
            "--value",
            "article=tout",
        ];
        let created = told.json(&[&create[..], &["--where", CAMPAIGN]].concat());
        let id = created["id"].as_str().unwrap();
        told.json(&["campaign", "launch", id]);
        told.installation.settled(&told.up, id);

        // What came after the messages is no part of why they were sent, but a contact's fields are as they are today.
        told.file(&["events", "publish"], &visit("stays", 2, 9));
        told.file(&["contacts", "import"], &contacts("south"));
        eventually("the second visit", PATIENCE, || {
            let counted = told.json(&["audience", "count", "did visit.made count = 2"]);
            (counted["count"] == 1).then_some(())
        });
        told
    }

    fn json(&self, arguments: &[&str]) -> Value {
        self.installation.json(&self.up, arguments)
    }

    /// A command that takes a file.
    fn file(&self, command: &[&str], content: &str) {
        let path = self.installation.file("file", content);
        self.json(&[command, &[&path]].concat());
    }

    /// The id of the message that a campaign or a trigger caused for a contact.
    fn message(&self, contact: &str, cause: &str) -> Option<String> {
        let listed = self.json(&["message", "list", contact]);
        let mut messages = listed["messages"].as_array().unwrap().iter();
        let message = messages.find(|message| message["cause"]["kind"] == cause)?;
        Some(message["id"].as_str().unwrap().to_owned())
    }

    fn show(&self, contact: &str, cause: &str) -> Value {
        self.json(&["message", "show", &self.message(contact, cause).unwrap()])
    }

    /// The same as people read it.
    fn text(&self, contact: &str, cause: &str) -> String {
        let id = self.message(contact, cause).unwrap();
        let shown = self.installation.command(&self.up, &["message", "show", &id]);
        assert!(shown.status.success());
        String::from_utf8(shown.stdout).unwrap()
    }
}

/// Whether each clause holds; the first is the whole.
fn clauses(story: &Value) -> Vec<(bool, &str)> {
    let why = &story["why"];
    let parts = why["parts"].as_array().unwrap();
    let told = [why].into_iter().chain(parts);
    told.map(|part| (part["holds"].as_bool().unwrap(), part["text"].as_str().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn why_somebody_got_a_message_is_told_clause_by_clause() {
    let told = Told::new().await;
    of_a_trigger(&told);
    of_a_campaign(&told);
    assert_eq!(told.message("mute", "trigger"), None, "three pages are not enough");
}

fn of_a_trigger(told: &Told) {
    let whole = "event.pages > 3 and did visit.made count = 1 and in audience \"north\"";
    let stays = told.show("stays", "trigger");
    let expected = [
        (true, whole),
        (true, "event.pages > 3"),
        // Two by now.
        (true, "did visit.made count = 1"),
        (true, "in audience \"north\""),
    ];
    assert_eq!(clauses(&stays), expected);
    assert!(
        stays["explanation"]
            .as_str()
            .unwrap()
            .starts_with("trigger first-visit fired on event stays-1; ")
    );
    // What else the trigger asks stands beside: it held, or there were no message.
    let text = told.text("stays", "trigger");
    for line in [
        "waited 1s after the event, and order.placed did not happen (`unless`)",
        "no other message of this trigger in 1w (`once_per`)",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let moved = told.show("moves", "trigger");
    assert_eq!(clauses(&moved)[0], (false, whole));
    assert_eq!(clauses(&moved)[1..3], expected[1..3]);
    // A named audience stands with what it means.
    let audience = &moved["why"]["parts"][2];
    let expected = json!({"text": "in audience \"north\"", "holds": false,
        "parts": [{"text": "region = \"north\"", "holds": false}]});
    assert_eq!(*audience, expected);
    let text = told.text("moves", "trigger");
    let lines = format!(
        "no  {whole}\n  yes event.pages > 3\n  yes did visit.made count = 1\n  no  in audience \"north\"\n    no  region = \"north\"\n"
    );
    assert!(text.contains(&lines), "{text}");
}

fn of_a_campaign(told: &Told) {
    let stays = told.show("stays", "campaign");
    let expected = [
        (true, "region = \"north\""),
        // It is this one that was received.
        (true, "not received campaign \"Soldes\""),
        (true, "not (did visit.made(pages > 8) or age >= 90)"),
    ];
    assert_eq!(clauses(&stays)[0], (true, CAMPAIGN));
    assert_eq!(clauses(&stays)[1..], expected);
    assert_eq!(
        (&stays["campaign"], &stays["message"]["state"]),
        (&json!("Soldes"), &json!("delivered"))
    );
    let moved = told.show("moves", "campaign");
    assert_eq!(clauses(&moved)[0], (false, CAMPAIGN));
    assert_eq!(clauses(&moved)[1], (false, expected[0].1));
    assert_eq!(clauses(&moved)[2..], expected[1..]);
    // In the audience, and yet without a message: the reason is not the audience's.
    let mute = told.show("mute", "campaign");
    assert_eq!(clauses(&mute)[0], (true, CAMPAIGN));
    assert_eq!(
        (&mute["message"]["state"], &mute["message"]["reason"]),
        (&json!("suppressed"), &json!("no-consent"))
    );
    let text = told.text("mute", "campaign");
    let explanation =
        "campaign Soldes reached this contact; it was not sent: the contact has not consented to marketing messages";
    assert!(
        text.starts_with(explanation) && text.contains(&format!("yes {CAMPAIGN}\n  yes region")),
        "{text}"
    );
}
