//! `tamtam contacts import --rejected FILE`.

use api::Role;
use serde_json::{Value, json};

use crate::support::server::Server;

const CSV: &str = "id,phone,birth_date,city\n\
                   1,0692000001,1990-01-31,Saint-Denis\n\
                   2,069,1990-01-31,Saint-Pierre\n\
                   3,0692000003,,\"Le\nPort\"\n\
                   4,0692000004,1990-02-30,Saint-Paul\n\
                   ,0692000005,,Saint-Paul\n\
                   6,0692000006\n\
                   7,0692000007,,Saint-Leu\n";

/// Imports a file with `--rejected`: the exit code, standard error, and the rows that were written.
fn import(server: &Server, csv: &str, rejected: &str) -> (Option<i32>, Value, String) {
    let arguments = [
        "contacts",
        "import",
        csv,
        "--region",
        "RE",
        "--rejected",
        rejected,
        "--json",
    ];
    let output = server.command(Role::Admin, &arguments);
    let told = String::from_utf8(output.stderr).unwrap();
    (
        output.status.code(),
        serde_json::from_slice(&output.stdout).unwrap_or_default(),
        told,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_rows_are_written_with_line_and_reason_and_the_others_imported() {
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (csv, first, second) = (path("c.csv"), path("first.csv"), path("second.csv"));
    std::fs::write(&csv, CSV).unwrap();
    let counts =
        |told: &Value| ["created", "updated", "unchanged", "rejected"].map(|name| told[name].as_u64().unwrap());

    let (code, told, _) = import(&server, &csv, &first);
    assert_eq!((code, counts(&told)), (Some(0), [2, 0, 0, 5]));
    let written = std::fs::read_to_string(&first).unwrap();
    let rows: Vec<Vec<&str>> = written.lines().map(|row| row.splitn(3, ',').collect()).collect();
    let places: Vec<(&str, &str)> = rows.iter().map(|row| (row[0], row[1])).collect();
    // The lines as an editor counts them: the row of 3 spans two, which no city's name does.
    let expected = [
        ("line", "field"),
        ("3", "phone"),
        ("4", "city"),
        ("6", "birth_date"),
        ("7", "id"),
        ("8", ""),
    ];
    assert_eq!(places, expected);
    assert!(rows[1..].iter().all(|row| row[2].contains("expected")), "{rows:?}");
    // The file is passed around to find the mistakes: what was in the cells is not in it.
    assert!(!written.contains("069") && !written.contains("1990"), "{written}");
    let contact = server.get("/v1/contacts/7").await;
    assert_eq!(
        (&contact["phone"], &contact["city"]),
        (&json!("+262692000007"), &json!("Saint-Leu"))
    );

    let (code, told, _) = import(&server, &csv, &second);
    assert_eq!((code, counts(&told)), (Some(0), [0, 0, 2, 5]));
    assert_eq!(std::fs::read_to_string(&second).unwrap(), written);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_for_rejected_rows_that_cannot_be_is_bad_usage_and_nothing_is_imported() {
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let csv = directory.path().join("c.csv").display().to_string();
    std::fs::write(&csv, CSV).unwrap();
    let nowhere = directory.path().join("none/rejected.csv").display().to_string();
    // The file that is imported is not overwritten, however it is named.
    let itself = directory.path().join("./c.csv").display().to_string();
    for rejected in [&nowhere, &csv, &itself] {
        let (code, _, told) = import(&server, &csv, rejected);
        assert_eq!(code, Some(2), "{told}");
        assert!(told.contains(&format!("--rejected {rejected}: ")), "{told}");
    }
    assert_eq!(std::fs::read_to_string(&csv).unwrap(), CSV);
    assert_eq!(server.json(&["audience", "count", "id is set"])["count"], 0);

    // What is wrong with the whole file is the answer, and no row of it.
    std::fs::write(&csv, "name\nAna\n").unwrap();
    let rejected = directory.path().join("rejected.csv").display().to_string();
    let (code, _, told) = import(&server, &csv, &rejected);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("the header has no `id`: expected"), "{told}");
    assert_eq!(std::fs::read_to_string(&rejected).unwrap(), "line,field,reason\n");
}
