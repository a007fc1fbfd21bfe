//! The README says what is so.

use std::{fs, path::Path};

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

/// What stands between `<!-- NAME -->` and `<!-- /NAME -->`.
fn section<'a>(text: &'a str, name: &str) -> &'a str {
    let (open, close) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let from = text.find(&open).unwrap_or_else(|| panic!("{open} is missing")) + open.len();
    let to = text.find(&close).unwrap_or_else(|| panic!("{close} is missing"));
    text[from..to].trim()
}

#[test]
fn the_table_of_topics_is_the_codes() {
    let table = events::topic::markdown();
    let readme = readme();
    assert_eq!(
        section(&readme, "topics"),
        table.trim(),
        "put this into README.md between the markers:\n{table}"
    );
}

#[test]
fn the_code_map_names_every_crate_and_nothing_else() {
    let readme = readme();
    let map = section(&readme, "code map");
    let mut named: Vec<&str> = map
        .lines()
        .filter_map(|line| line.strip_prefix("| `crates/")?.split('`').next())
        .collect();
    named.sort_unstable();
    let mut there: Vec<String> = fs::read_dir(root().join("crates"))
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    there.sort();
    assert_eq!(named, there);
}

#[test]
fn links_to_files_lead_somewhere() {
    for (name, text) in [("README.md", readme())] {
        for piece in text.split("](").skip(1) {
            let target = piece.split(')').next().unwrap();
            if target.starts_with("http") || target.starts_with('#') {
                continue;
            }
            let path = target.split('#').next().unwrap();
            assert!(root().join(path).exists(), "{name} links to {path}, which is not there");
        }
    }
}
