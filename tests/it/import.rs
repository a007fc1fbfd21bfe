//! Importing a table of contacts through the API.

use api::{
    Role,
    import::{ImportOptions, ImportProgress, ImportReport},
};
use futures::stream;
use jiff::Timestamp;
use reqwest::Method;
use serde_json::Value;

use crate::support::server::{Server, admin};

async fn import(server: &Server, file: &str, options: ImportOptions) -> (ImportReport, Vec<ImportProgress>) {
    let pieces: Vec<Result<Vec<u8>, std::io::Error>> =
        file.as_bytes().chunks(1_000).map(|piece| Ok(piece.to_vec())).collect();
    let mut progress = Vec::new();
    let report = server
        .api
        .contacts_import(&admin(), stream::iter(pieces), options, |done| progress.push(done))
        .await
        .unwrap();
    (report, progress)
}

fn island() -> ImportOptions {
    ImportOptions {
        region: Some("RE".into()),
        ..ImportOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_again_changes_nothing() {
    let server = Server::start().await;
    let mut file = "id;Phone;first_name;birth_date;marketing_consent;points\r\n".to_owned();
    for number in 0..5_000 {
        file += &format!("c{number};0692{number:06};Zoë {number};1990-01-01;oui;{number}\r\n");
    }
    file += "bad;12;Ana;;;\r\n;0692000000;Ana;;;\r\nshort;0692000000\r\nlate;0692000001;Ana;1990-02-30;;\r\n";
    let (first, progress) = import(&server, &file, island()).await;
    assert_eq!(
        (first.created, first.updated, first.unchanged, first.rejected),
        (5_000, 0, 0, 4),
        "{:?}",
        first.errors
    );
    let errors: Vec<(u64, Option<&str>)> = first
        .errors
        .iter()
        .map(|row| (row.line, row.field.as_deref()))
        .collect();
    let expected = [
        (5_002, Some("phone")),
        (5_003, Some("id")),
        (5_004, None),
        (5_005, Some("birth_date")),
    ];
    assert_eq!(errors, expected);
    let last = progress.last().unwrap();
    assert_eq!((last.rows, last.bytes), (5_004, file.len() as u64));

    let (second, _) = import(
        &server,
        &file,
        ImportOptions {
            max_errors: 1,
            ..island()
        },
    )
    .await;
    assert_eq!(
        (second.created, second.updated, second.unchanged, second.rejected),
        (0, 0, 5_000, 4)
    );
    assert_eq!((second.errors.len(), second.errors_left_out), (1, 3));

    // A cell that is empty now unsets; another column stays.
    let (third, _) = import(&server, "id,points\nc1,\nc2,2\n", island()).await;
    assert_eq!((third.updated, third.unchanged), (1, 1));
    let contact = server.api.contact_get(&admin(), "c1").await.unwrap();
    assert!(!contact.attributes.contains_key("points"));
    assert_eq!(contact.phone.unwrap().e164(), "+262692000001");
    // A CSV's numbers are texts, and are compared as the numbers that they are.
    assert_eq!(server.api.audience_count(&admin(), "points >= 4998").await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_import_undoes_an_opt_out() {
    let server = Server::start().await;
    let file = "id,phone,marketing_consent\n1,0692000001,true\n2,0692000002,true\n";
    let (first, _) = import(&server, file, island()).await;
    assert_eq!((first.created, first.opted_out), (2, 0));
    let key = server.store.phone_key().await.unwrap();
    let mut tx = server.store.begin().await.unwrap();
    let phone = domain::Phone::from_e164("+262692000001");
    let scope = store::suppressions::Scope::Marketing;
    tx.suppression_put(&key.hash(&phone), scope, "reply", Timestamp::now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    server.api.contact_erase(&admin(), "1").await.unwrap();
    let (second, _) = import(&server, file, island()).await;
    assert_eq!((second.created, second.unchanged, second.opted_out), (1, 1, 1));
    assert_eq!(
        server
            .api
            .audience_count(&admin(), "marketing_consent = true")
            .await
            .unwrap(),
        1
    );
    // The third time the first line asks for what it is not given, and so changes nothing.
    let (third, _) = import(&server, file, island()).await;
    assert_eq!((third.unchanged, third.opted_out), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_breaks_off_says_so() {
    let server = Server::start().await;
    let pieces = [Ok("id,city\n1,north\n"), Err(())].map(|piece| piece.map(str::as_bytes));
    let broken = server
        .api
        .contacts_import(&admin(), stream::iter(pieces), ImportOptions::default(), |_| {})
        .await
        .unwrap_err();
    assert!(
        broken.message.contains("broke off") && broken.message.contains("1 rows"),
        "{broken}"
    );
    let wrong = ImportOptions {
        region: Some("Réunion".into()),
        ..ImportOptions::default()
    };
    let pieces = [Ok::<_, ()>("id\n1\n")];
    let error = server
        .api
        .contacts_import(&admin(), stream::iter(pieces), wrong, |_| {})
        .await
        .unwrap_err();
    assert_eq!(error.field.as_deref(), Some("region"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audience_is_explained() {
    let server = Server::start().await;
    let file = "id,gender,city\n1,female,north\n2,female,south\n3,male,north\n";
    import(&server, file, island()).await;
    server
        .apply("[[audience]]\nname = \"north\"\nwhere = 'city = \"north\"'\n")
        .await;
    let text = "gender = \"female\" and in audience \"north\" and gendre != \"x\"";
    let explained = server.api.audience_explain(&admin(), text, Some("2")).await.unwrap();
    let counts: Vec<(i64, i64)> = explained
        .clauses
        .iter()
        .map(|clause| (clause.alone, clause.left))
        .collect();
    assert_eq!(counts, [(2, 2), (2, 1), (3, 1)]);
    assert_eq!((explained.contacts, explained.count), (3, 1));
    assert_eq!(explained.hints, ["no contact has `gendre`; did you mean `gender`?"]);
    let why = explained.contact.unwrap();
    assert!(!why.holds && why.parts[0].holds && !why.parts[1].holds);
    assert_eq!(why.parts[1].parts[0].text, "city = \"north\"");
    let listed = server
        .api
        .audience_list(&admin(), "gender is set", "1", 1)
        .await
        .unwrap();
    assert_eq!(
        listed.iter().map(|contact| contact.id.as_str()).collect::<Vec<_>>(),
        ["2"]
    );
    let error = server.api.audience_count(&admin(), "city = north").await.unwrap_err();
    assert!(
        error.message.starts_with("column 8:") && error.message.contains("\"north\""),
        "{error}"
    );
    assert!(
        server
            .api
            .audience_count(&admin(), "in audience \"south\"")
            .await
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rejected_row_is_told_as_the_file_is_read() {
    const BAD: usize = 2_500;
    let server = Server::start().await;
    let mut file = "id,phone\n".to_owned();
    for number in 0..BAD {
        file += &format!("good{number},0692{number:06}\nbad{number},12\n");
    }
    let answer = server
        .request(Method::POST, "/v1/contacts/import?region=RE&rejected=all", Role::Admin)
        .header("content-type", "text/csv")
        .body(file)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let text = answer.text().await.unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.pop().unwrap();
    assert_eq!(last["imported"]["created"], BAD);
    assert_eq!(last["imported"]["rejected"], BAD);
    let told: Vec<u64> = lines.iter().map(|row| row["line"].as_u64().unwrap()).collect();
    let expected: Vec<u64> = (0..BAD as u64).map(|number| number * 2 + 3).collect();
    assert_eq!(told, expected);
    assert!(lines.iter().all(|row| row["field"] == "phone"));

    // What is wrong with the whole file is the answer's status, and a file without mistakes is one line.
    let import = |file: &'static str| {
        server
            .request(Method::POST, "/v1/contacts/import?rejected=all", Role::Admin)
            .header("content-type", "text/csv")
            .body(file)
            .send()
    };
    assert_eq!(import("name\nAna\n").await.unwrap().status(), 400);
    let whole = import("id\nnew\n").await.unwrap().text().await.unwrap();
    let whole: Value = serde_json::from_str(whole.trim()).unwrap();
    assert_eq!(whole["imported"]["created"], 1);
}
