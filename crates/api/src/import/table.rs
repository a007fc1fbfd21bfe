//! Cutting a stream of bytes into a header and batches of rows.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use csv::ByteRecord;
use domain::contact::{ContactChange, FieldError, check_id};
use tokio::sync::mpsc;

/// Rows that are read and written together.
const BATCH: usize = 4_000;
/// One row; a quote that is never closed would otherwise take in the whole file.
const MAX_ROW_BYTES: usize = 1024 * 1024;
const MAX_COLUMNS: usize = 300;
/// The header must end within these.
const MAX_HEADER_BYTES: usize = 64 * 1024;
const BUFFER: usize = 64 * 1024;
/// Pieces of the body that wait to be read.
const PIECES: usize = 8;

/// Why a table cannot be read (on).
#[derive(Debug, thiserror::Error)]
pub(super) enum TableError {
    #[error("the file is empty: expected a header line that names the fields")]
    Empty,
    #[error("the file is UTF-16: expected UTF-8 or Windows-1252")]
    Utf16,
    #[error("the header line is longer than {MAX_HEADER_BYTES} bytes: expected names of fields")]
    LongHeader,
    #[error("the header has {0} columns: expected up to {MAX_COLUMNS}")]
    Columns(usize),
    #[error("the header has no `id`: expected a column of that name, or a mapping to it")]
    NoId,
    #[error("the header names the field `{0}` twice: expected each once")]
    Twice(String),
    #[error("the mapping names the column `{0}`, which the header has not")]
    Mapping(String),
    #[error("line {0}: a row over {MAX_ROW_BYTES} bytes; perhaps a quote that is not closed")]
    LongRow(u64),
    #[error("the file broke off")]
    Broken,
}

/// The body's pieces as bytes to read, on a thread that may wait.
pub(super) struct Source {
    pieces: mpsc::Receiver<Piece>,
    piece: Option<Box<dyn AsRef<[u8]> + Send>>,
    at: usize,
    /// Bytes handed out since a row was last finished.
    unfinished: Arc<AtomicUsize>,
}

/// Some bytes, or that the rest will not come.
type Piece = Result<Box<dyn AsRef<[u8]> + Send>, ()>;

/// The other end of a [`Source`].
pub(super) struct Pieces(mpsc::Sender<Piece>);

impl Pieces {
    pub(super) async fn send<B: AsRef<[u8]> + Send + 'static>(&self, piece: Result<B, ()>) -> Result<(), ()> {
        let piece = piece.map(|piece| Box::new(piece) as Box<dyn AsRef<[u8]> + Send>);
        self.0.send(piece).await.map_err(|_| ())
    }
}

impl Source {
    pub(super) fn new() -> (Pieces, Source) {
        let (sender, pieces) = mpsc::channel(PIECES);
        let source = Source {
            pieces,
            piece: None,
            at: 0,
            unfinished: Arc::default(),
        };
        (Pieces(sender), source)
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(piece) = &self.piece {
                let rest = &(**piece).as_ref()[self.at..];
                if !rest.is_empty() {
                    let count = rest.len().min(buffer.len());
                    buffer[..count].copy_from_slice(&rest[..count]);
                    self.at += count;
                    if self.unfinished.fetch_add(count, Ordering::Relaxed) > MAX_ROW_BYTES + BUFFER {
                        return Err(io::ErrorKind::FileTooLarge.into());
                    }
                    return Ok(count);
                }
            }
            match self.pieces.blocking_recv() {
                None => return Ok(0),
                Some(Err(())) => return Err(io::ErrorKind::ConnectionAborted.into()),
                Some(Ok(piece)) => (self.piece, self.at) = (Some(piece), 0),
            }
        }
    }
}

/// Which field each column is.
#[derive(Debug)]
pub(super) struct Header {
    /// `None`: passed over.
    columns: Vec<Option<String>>,
    id: usize,
}

/// One row, decoded or not.
pub(super) struct Row {
    pub line: u64,
    cells: ByteRecord,
    encoding: Encoding,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    /// All ASCII so far.
    Open,
    Utf8,
    Windows1252,
}

#[derive(Default)]
pub(super) struct Batch {
    pub rows: Vec<Row>,
    /// Where in the file the batch ends.
    pub end: u64,
}

/// The rows of a table, one batch after another.
pub(super) struct Rows {
    reader: csv::Reader<io::Chain<io::Cursor<Vec<u8>>, Source>>,
    header: Arc<Header>,
    encoding: Encoding,
    cr_lf: bool,
    unfinished: Arc<AtomicUsize>,
    over: bool,
    failed: Option<TableError>,
}

impl Rows {
    /// Reads the header: the separator, the encoding as far as it shows, and the fields.
    pub(super) fn open(mut source: Source, mapping: &BTreeMap<String, String>) -> Result<Rows, TableError> {
        let start = first_bytes(&mut source)?;
        if start.starts_with(&[0xFF, 0xFE]) || start.starts_with(&[0xFE, 0xFF]) {
            return Err(TableError::Utf16);
        }
        let without_mark = start.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&start).to_vec();
        let marked = without_mark.len() < start.len();
        let separator = separator(&without_mark);
        let cr_lf = without_mark.windows(2).any(|two| two == b"\r\n") || without_mark.ends_with(b"\r");
        let unfinished = source.unfinished.clone();
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(separator)
            .flexible(true)
            .has_headers(false)
            .buffer_capacity(BUFFER)
            .from_reader(io::Cursor::new(without_mark).chain(source));
        let mut names = ByteRecord::new();
        if !reader.read_byte_record(&mut names).map_err(|error| broken(&error, 1))? {
            return Err(TableError::Empty);
        }
        unfinished.store(0, Ordering::Relaxed);
        let mut encoding = if marked { Encoding::Utf8 } else { Encoding::Open };
        encoding.see(&names);
        let names: Vec<String> = names
            .iter()
            .map(|name| encoding.decode(name).trim().to_owned())
            .collect();
        Ok(Rows {
            reader,
            header: Arc::new(Header::new(&names, mapping)?),
            encoding,
            cr_lf,
            unfinished,
            over: false,
            failed: None,
        })
    }

    pub(super) fn header(&self) -> Arc<Header> {
        self.header.clone()
    }

    /// The next rows; `None` at the end. What was read before an error comes first.
    pub(super) fn next_batch(&mut self) -> Result<Option<Batch>, TableError> {
        let mut batch = Batch::default();
        while !self.over && batch.rows.len() < BATCH {
            let mut cells = ByteRecord::new();
            let line = self.reader.position().line();
            match self.reader.read_byte_record(&mut cells) {
                Ok(true) => {}
                Ok(false) => {
                    self.over = true;
                    break;
                }
                Err(error) => {
                    self.over = true;
                    self.failed = Some(broken(&error, line));
                    break;
                }
            }
            self.unfinished.store(0, Ordering::Relaxed);
            // A line without anything in it is no row.
            if cells.iter().all(<[u8]>::is_empty) {
                continue;
            }
            self.encoding.see(&cells);
            // Where the row began, from where it ended: lines that are empty were passed over before it, and of CR LF the
            // second is not read yet.
            let within = cells.as_slice().iter().filter(|byte| **byte == b'\n').count() as u64;
            let after = self
                .reader
                .position()
                .line()
                .saturating_sub(within + u64::from(!self.cr_lf));
            batch.rows.push(Row {
                line: line.max(after),
                cells,
                encoding: self.encoding,
            });
        }
        if batch.rows.is_empty()
            && let Some(error) = self.failed.take()
        {
            return Err(error);
        }
        batch.end = self.reader.position().byte();
        Ok((!batch.rows.is_empty()).then_some(batch))
    }
}

fn broken(error: &csv::Error, line: u64) -> TableError {
    match error.kind() {
        csv::ErrorKind::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => TableError::LongRow(line),
        _ => TableError::Broken,
    }
}

/// The file's beginning up to the end of its first line at least.
fn first_bytes(source: &mut Source) -> Result<Vec<u8>, TableError> {
    let mut start = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = source.read(&mut buffer).map_err(|_| TableError::Broken)?;
        start.extend_from_slice(&buffer[..count]);
        if count == 0 || buffer[..count].contains(&b'\n') || buffer[..count].contains(&b'\r') {
            return if start.is_empty() {
                Err(TableError::Empty)
            } else {
                Ok(start)
            };
        }
        if start.len() > MAX_HEADER_BYTES {
            return Err(TableError::LongHeader);
        }
    }
}

/// What the first line has most of, outside of quotes.
fn separator(start: &[u8]) -> u8 {
    let mut counts = [(b',', 0), (b';', 0), (b'\t', 0), (b'|', 0)];
    let mut quoted = false;
    for byte in start {
        match byte {
            b'"' => quoted = !quoted,
            b'\n' | b'\r' if !quoted => break,
            byte if !quoted => {
                for (separator, count) in &mut counts {
                    *count += usize::from(separator == byte);
                }
            }
            _ => {}
        }
    }
    // The first of those that come equally often.
    counts
        .iter()
        .rev()
        .max_by_key(|(_, count)| *count)
        .map_or(b',', |(separator, _)| *separator)
}

impl Encoding {
    /// Learns from a record: what is beyond ASCII decides, the first time.
    fn see(&mut self, record: &ByteRecord) {
        let bytes = record.as_slice();
        if *self == Encoding::Open && !bytes.is_ascii() {
            let utf8 = record.iter().all(|cell| std::str::from_utf8(cell).is_ok());
            *self = if utf8 { Encoding::Utf8 } else { Encoding::Windows1252 };
        }
    }

    fn decode<'a>(self, cell: &'a [u8]) -> Cow<'a, str> {
        match (self, std::str::from_utf8(cell)) {
            (Encoding::Windows1252, _) | (_, Err(_)) => encoding_rs::WINDOWS_1252.decode_without_bom_handling(cell).0,
            (_, Ok(text)) => text.into(),
        }
    }
}

impl Header {
    fn new(names: &[String], mapping: &BTreeMap<String, String>) -> Result<Header, TableError> {
        if names.len() > MAX_COLUMNS {
            return Err(TableError::Columns(names.len()));
        }
        if let Some(missing) = mapping.keys().find(|name| !names.contains(name)) {
            return Err(TableError::Mapping(missing.chars().take(100).collect()));
        }
        let columns: Vec<Option<String>> = names
            .iter()
            .map(|name| {
                let field = mapping.get(name).unwrap_or(name);
                (!field.is_empty()).then(|| built_in(field).unwrap_or_else(|| field.clone()))
            })
            .collect();
        let mut seen = HashSet::new();
        for field in columns.iter().flatten() {
            if !seen.insert(field) {
                return Err(TableError::Twice(field.chars().take(100).collect()));
            }
        }
        let id = columns.iter().position(|field| field.as_deref() == Some("id"));
        let id = id.ok_or(TableError::NoId)?;
        Ok(Header { columns, id })
    }

    /// A row as a change; every column sets its field, an empty cell unsets it.
    pub(super) fn read(&self, row: &Row, region: Option<&str>) -> Result<ContactChange, FieldError> {
        let error = |message: String| FieldError {
            field: String::new(),
            message,
        };
        if row.cells.len() != self.columns.len() {
            let (found, expected) = (row.cells.len(), self.columns.len());
            return Err(error(format!("{found} cells: expected {expected}, as the header has")));
        }
        if row.encoding == Encoding::Utf8 && row.cells.iter().any(|cell| std::str::from_utf8(cell).is_err()) {
            return Err(error("not UTF-8, which the rows before are".to_owned()));
        }
        let id = row.encoding.decode(&row.cells[self.id]);
        let id = id.trim();
        check_id(id)?;
        let mut change = ContactChange {
            id: id.to_owned(),
            ..ContactChange::default()
        };
        for (cell, field) in row.cells.iter().zip(&self.columns) {
            match field.as_deref() {
                None | Some("id") => {}
                Some(field) => change.set(field, &row.encoding.decode(cell), region)?,
            }
        }
        Ok(change)
    }
}

/// The built-in field that a header means: `First Name` and `POSTAL-CODE` are none of somebody's own.
fn built_in(name: &str) -> Option<String> {
    let plain = name.trim().to_lowercase().replace([' ', '-'], "_");
    let known = domain::audience::tree::Field::BUILT_IN.iter().map(|(name, _)| *name);
    known
        .chain(["consents"])
        .filter(|known| *known != "age")
        .find(|known| *known == plain || known.replace('_', "") == plain)
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each row was read as: its id and first name, or the field and line that were wrong.
    fn import(file: &[u8], mapping: &[(&str, &str)]) -> Result<Vec<String>, TableError> {
        let (pieces, source) = Source::new();
        let file = file.to_vec();
        let sender = std::thread::spawn(move || {
            for piece in file.chunks(7) {
                let piece: Box<dyn AsRef<[u8]> + Send> = Box::new(piece.to_vec());
                if pieces.0.blocking_send(Ok(piece)).is_err() {
                    return;
                }
            }
        });
        let mapping = mapping
            .iter()
            .map(|(from, to)| ((*from).to_owned(), (*to).to_owned()))
            .collect();
        let mut rows = Rows::open(source, &mapping)?;
        let header = rows.header();
        let mut all = Vec::new();
        while let Some(batch) = rows.next_batch()? {
            all.extend(batch.rows.iter().map(|row| match header.read(row, Some("RE")) {
                Ok(change) => format!("{} {}", change.id, change.first_name.flatten().unwrap_or_default()),
                Err(error) => format!("line {} {}", row.line, error.field),
            }));
        }
        drop(rows);
        sender.join().unwrap();
        Ok(all)
    }

    #[test]
    fn tables_as_systems_export_them() {
        let plain = "id,first_name\n1,Ana\n\n2,\"Zo\u{eb}, la\n2e\"\n";
        assert_eq!(import(plain.as_bytes(), &[]).unwrap()[0], "1 Ana");
        // A name stands in one line: the second row is refused by its own line.
        assert_eq!(import(plain.as_bytes(), &[]).unwrap()[1], "line 4 first_name");
        let marked = "\u{feff}ID;First Name;note, libre\r\n1;Zoë;a,b\r\n".as_bytes();
        assert_eq!(import(marked, &[]).unwrap(), ["1 Zoë"]);
        let lines = "id;phone\r\n1;1\r\n\r\n2;2\r\n3;3";
        assert_eq!(
            import(lines.as_bytes(), &[]).unwrap(),
            ["line 2 phone", "line 4 phone", "line 5 phone"]
        );
        let lines = lines.replace('\r', "");
        assert_eq!(
            import(lines.as_bytes(), &[]).unwrap(),
            ["line 2 phone", "line 4 phone", "line 5 phone"]
        );
        let windows = b"id;pr\xE9nom\n1;Ana\n2;Zo\xEB \x80\n";
        assert_eq!(
            import(windows, &[("prénom", "first_name")]).unwrap(),
            ["1 Ana", "2 Zoë €"]
        );
        let mixed = b"id,first_name\n1,Zo\xC3\xAB\n2,Zo\xEB\n3,Ana";
        assert_eq!(import(mixed, &[]).unwrap(), ["1 Zoë", "line 3 ", "3 Ana"]);
        let cells = "id\tfirst_name\tphone\n1\tAna\n2\tAna\t0692123456\n3\tAna\t12\n\tAna\t\n";
        assert_eq!(
            import(cells.as_bytes(), &[]).unwrap(),
            ["line 2 ", "2 Ana", "line 4 phone", "line 5 id"]
        );
    }

    #[test]
    fn tables_that_cannot_be_read_say_why() {
        let error = |file: &[u8], mapping: &[(&str, &str)]| import(file, mapping).unwrap_err().to_string();
        assert!(error(b"", &[]).contains("empty"));
        assert!(error(b"\xFF\xFEi\0d\0", &[]).contains("UTF-16"));
        assert!(error(b"name\nAna\n", &[]).contains("no `id`"));
        assert!(error(b"id,a,a\n", &[]).contains("twice"));
        assert!(error(b"id\n", &[("kunde", "id")]).contains("kunde"));
        assert!(error(&[b'a'; 70_000], &[]).contains("header line"));
        let mut open = b"id,first_name\n1,Ana\n2,\"".to_vec();
        open.extend(std::iter::repeat_n(b'x', 2_000_000));
        assert!(error(&open, &[]).contains("line 3"));
    }
}
