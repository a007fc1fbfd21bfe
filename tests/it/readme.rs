//! The README says what is so.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

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

/// The directories in one of the repository (in all of it: ""), without what git does not keep.
fn directories(under: &str) -> BTreeSet<String> {
    let output = Command::new("git")
        // The tests may run as another user than the one who cloned.
        .args(["-c", "safe.directory=*", "ls-files", "-z"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let files = String::from_utf8(output.stdout).unwrap();
    files
        .split('\0')
        .filter_map(|file| file.strip_prefix(under)?.split_once('/'))
        .map(|(directory, _)| format!("{under}{directory}"))
        .collect()
}

#[test]
fn the_code_map_names_every_directory_and_nothing_else() {
    let readme = readme();
    let map = section(&readme, "code map");
    let rows: Vec<String> = map
        .lines()
        .filter_map(|line| Some(line.strip_prefix("| `")?.split('`').next()?.to_owned()))
        .collect();
    let mut there = directories("");
    assert!(there.remove("crates"));
    there.extend(directories("crates/"));
    let named: BTreeSet<String> = rows.iter().cloned().collect();
    assert_eq!(named.len(), rows.len(), "a row twice");
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
