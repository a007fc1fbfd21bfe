//! Our count of SMS parts against another project's: the npm package `sms-segments-calculator`, on 20,000 texts.
//!
//! It is wrong, or only older, in the cases of [`Excuse`]; everything else must agree.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use domain::sms::{Encoding, Measure, measure, split};
use serde::Deserialize;
use unicode_segmentation::UnicodeSegmentation as _;

const TEXTS: usize = 20_000;
const SEED: u64 = 20_261_124;

/// What it made of a text.
#[derive(Debug, Deserialize)]
struct Theirs {
    encoding: String,
    /// Units in each segment.
    segments: Vec<usize>,
    /// UTF-16 units of each grapheme.
    graphemes: Vec<usize>,
}

/// Why it may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Excuse {
    /// A grapheme of more than 67 units: it puts it into one segment of more than 140 octets, which no network carries.
    GraphemeLongerThanAPart,
    /// Its `grapheme-splitter` 1.0.4 has the tables of Unicode 10 (2017), without the emoji and the rules for Indic
    /// conjuncts that came later (UAX #29, GB9c and GB11); it finds other borders than we do.
    OlderGraphemes,
}

#[test]
fn parts_agree_with_sms_segments_calculator() {
    let texts = texts();
    let answers = ask(&texts);
    assert_eq!(answers.len(), texts.len());
    let mut excused: BTreeMap<Excuse, usize> = BTreeMap::new();
    for (text, theirs) in texts.iter().zip(&answers) {
        let ours = measure(text);
        let excuse = excuse(text, theirs);
        if theirs.encoding == "UCS-2" && ours.encoding == Encoding::Gsm7 {
            panic!("{text:?}: GSM-7 to us, UCS-2 to them");
        }
        assert_eq!(ours.encoding.as_str(), theirs.encoding, "{text:?}");
        assert_eq!(ours.units, theirs.segments.iter().sum::<usize>(), "{text:?}");
        if agree(text, &ours, theirs) {
            continue;
        }
        let excuse = excuse.unwrap_or_else(|| panic!("{text:?}: {ours:?}, {:?}", theirs.segments));
        *excused.entry(excuse).or_default() += 1;
    }
    // Excuses are for corners: were there many, we would be measuring the excuses.
    let total: usize = excused.values().sum();
    assert!(total * 100 < TEXTS, "{excused:?}");
}

fn agree(text: &str, ours: &Measure, theirs: &Theirs) -> bool {
    let octets = if ours.encoding == Encoding::Gsm7 { 1 } else { 2 };
    let segments: Vec<usize> = split(text, ours.encoding, 1, false)
        .iter()
        .map(|part| part.bytes.len() / octets)
        .collect();
    let per_part = match theirs.segments.len() {
        1 => ours.encoding.single(),
        _ => ours.encoding.per_part(false),
    };
    let last = theirs.segments.last().copied().unwrap_or(0);
    segments == theirs.segments
        && usize::from(ours.parts) == theirs.segments.len()
        && ours.per_part == per_part
        && ours.remaining == per_part.saturating_sub(last)
}

fn excuse(text: &str, theirs: &Theirs) -> Option<Excuse> {
    let ours: Vec<usize> = text
        .graphemes(true)
        .flat_map(|grapheme| match grapheme {
            "\r\n" => vec![1, 1],
            _ => vec![grapheme.encode_utf16().count()],
        })
        .collect();
    if ours.iter().chain(&theirs.graphemes).any(|units| *units > 67) {
        return Some(Excuse::GraphemeLongerThanAPart);
    }
    (ours != theirs.graphemes).then_some(Excuse::OlderGraphemes)
}

/// Installs the package beside the build's other results, once, and asks it.
fn ask(texts: &[String]) -> Vec<Theirs> {
    let directory = installed();
    let mut node = Command::new("node")
        .arg("segments.cjs")
        .current_dir(&directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node is needed: `make test` installs it");
    let mut input = node.stdin.take().unwrap();
    let lines: Vec<String> = texts.iter().map(|text| serde_json::to_string(text).unwrap()).collect();
    let writer = std::thread::spawn(move || {
        for line in lines {
            writeln!(input, "{line}").unwrap();
        }
    });
    let answers = BufReader::new(node.stdout.take().unwrap())
        .lines()
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect();
    writer.join().unwrap();
    assert!(node.wait().unwrap().success());
    answers
}

/// The directory with other projects' packages, installed beside the build's other results, once.
pub fn installed() -> PathBuf {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("oracle");
    std::fs::create_dir_all(&directory).unwrap();
    let lock = std::fs::read(source.join("package-lock.json")).unwrap();
    let is_installed = directory
        .join("node_modules/sms-segments-calculator/package.json")
        .exists()
        && std::fs::read(directory.join("package-lock.json")).is_ok_and(|there| there == lock);
    for file in ["package.json", "package-lock.json", "segments.cjs", "smsc.cjs"] {
        std::fs::copy(source.join(file), directory.join(file)).unwrap();
    }
    if !is_installed {
        let done = Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&directory)
            .output()
            .expect("npm is needed: `make test` installs it");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    directory
}

/// SplitMix64: the same texts every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
}

/// Units at which something changes.
const BORDERS: [usize; 18] = [
    0, 1, 69, 70, 71, 133, 134, 135, 152, 153, 154, 159, 160, 161, 201, 305, 306, 307,
];
const GSM: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCXYZÄÖÑÜ§¿abcxyzäöñüà";
const EXTENDED: [char; 10] = ['\u{c}', '^', '{', '}', '\\', '[', '~', ']', '|', '€'];
const EMOJI: [&str; 12] = ["😀", "❤️", "👍🏽", "👨‍👩‍👧‍👦", "🇫🇷", "🇷🇪", "👩🏾‍💻", "1️⃣", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "☎", "🧑‍🚀", "🏳️‍🌈"];

fn texts() -> Vec<String> {
    let mut random = Random(SEED);
    let gsm: Vec<char> = GSM.chars().collect();
    (0..TEXTS)
        .map(|number| {
            let length = match random.below(3) {
                0 => random.below(330),
                _ => random.of(&BORDERS) + random.below(3),
            };
            match number % 8 {
                // The alphabet, with more or less of its extension.
                0 | 1 => {
                    let share = random.of(&[0, 1, 5, 50]);
                    (0..length)
                        .map(|_| match random.below(100) < share {
                            true => random.of(&EXTENDED),
                            false => random.of(&gsm),
                        })
                        .collect()
                }
                // The alphabet with one character that is not in it.
                2 => {
                    let at = random.below(length + 1);
                    (0..=length)
                        .map(|index| match index == at {
                            true => random.of(&['ç', 'ê', '’', '–', 'œ', '\u{a0}', '\t', 'ж', '`']),
                            false => random.of(&gsm),
                        })
                        .collect()
                }
                // Emoji with joiners among letters.
                3 | 4 => {
                    let share = 1 + random.below(40);
                    let mut text = String::new();
                    while text.encode_utf16().count() < length {
                        match random.below(100) < share {
                            true => text.push_str(random.of(&EMOJI)),
                            false => text.push(random.of(&gsm)),
                        }
                    }
                    text
                }
                // A range of 128 characters of the basic plane, all of them in turn.
                5 | 6 => {
                    let block = (number / 8 * 2 + number % 2) % 512 * 128;
                    (0..length.min(200))
                        .filter_map(|_| char::from_u32((block + random.below(128)) as u32))
                        .collect()
                }
                // Marks heaped on a letter, up to more than a part holds.
                7 if number % 512 == 7 => format!("a{}b", "\u{301}".repeat(length)),
                // Anything.
                _ => (0..length.min(150))
                    .filter_map(|_| char::from_u32((random.next() % 0x11_0000) as u32))
                    .collect(),
            }
        })
        .collect()
}
