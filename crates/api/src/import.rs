//! Importing contacts from a table: CSV as shops' systems export it, of any length, in constant memory.
//!
//! The bytes go through three steps that work at once, each waiting for the next where it is slower: rows are cut out of
//! the stream, a few thousand at a time are read into changes (phones are most of that work: on all cores), and each
//! batch is written by itself, comparing before it writes. Some batches are written at once, because one connection keeps
//! one of PostgreSQL's cores busy; where two have rows of one contact, the later waits for the earlier. So an import that
//! is cut off has written whole batches, and the same file again changes nothing.
//!
//! A byte order mark is passed over; the separator (`,`, `;`, tab or `|`) is what the header has most of; a file that is
//! not UTF-8 is taken as Windows-1252. Header names are the fields, by themselves or through a mapping. A row that cannot
//! be taken is reported with its line and the reason, never with its content; the others go in.

mod table;

use std::collections::{BTreeMap, HashSet, VecDeque};

use domain::contact::ContactChange;
use futures::{Stream, StreamExt, stream};
use store::contacts::Change;
use tokio::{sync::mpsc, task::JoinHandle};

use self::table::{Batch, Header, Rows, Source, TableError};
use crate::{Api, ApiError, Caller, Role};

/// How a table is read.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// What national phone numbers belong to (ISO 3166-1); without it the policy's default region.
    pub region: Option<String>,
    /// From a header's name to a field's; to `""`: that column is passed over.
    pub mapping: BTreeMap<String, String>,
    /// Rejected rows beyond so many are counted and not listed.
    pub max_errors: usize,
    /// Where every rejected row goes as soon as it is known, however many there are; where nobody takes them any more,
    /// the import goes on. What goes here is not listed in the report.
    pub rejected: Option<mpsc::Sender<RejectedRow>>,
}

impl Default for ImportOptions {
    fn default() -> Self {
        ImportOptions {
            region: None,
            mapping: BTreeMap::new(),
            max_errors: 1_000,
            rejected: None,
        }
    }
}

/// What became of a table's rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportReport {
    pub created: u64,
    pub updated: u64,
    pub unchanged: u64,
    pub rejected: u64,
    /// Rows whose consent was not taken, because their phone was opted out before.
    pub opted_out: u64,
    pub errors: Vec<RejectedRow>,
    /// Rejected rows that are not in `errors`.
    pub errors_left_out: u64,
}

/// A row that was not taken. It never repeats what stands in the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedRow {
    /// Counted from 1, the header being one.
    pub line: u64,
    /// The field it is about, where it is about one.
    pub field: Option<String>,
    pub message: String,
}

/// How far an import is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportProgress {
    /// Rows that are written or rejected.
    pub rows: u64,
    /// Bytes that they took.
    pub bytes: u64,
}

/// What a batch of rows was read as.
struct ReadBatch {
    changes: Vec<ContactChange>,
    rejected: Vec<RejectedRow>,
    rows: u64,
    end: u64,
}

impl Api {
    /// Imports a table whose bytes come piece by piece; `progress` hears of every batch that is written.
    pub async fn contacts_import<S, B, E>(
        &self,
        caller: &Caller,
        body: S,
        options: ImportOptions,
        mut progress: impl FnMut(ImportProgress) + Send,
    ) -> Result<ImportReport, ApiError>
    where
        S: Stream<Item = Result<B, E>> + Send + 'static,
        B: AsRef<[u8]> + Send + 'static,
        E: Send + 'static,
    {
        caller.require(&[Role::Campaigns, Role::Events])?;
        let region = self.region(options.region.as_deref()).await?;
        let (pieces, source) = Source::new();
        // Ends when the body does, or when nobody reads any more.
        tokio::spawn(async move {
            let mut body = std::pin::pin!(body);
            while let Some(piece) = body.next().await {
                let whole = piece.is_ok();
                if pieces.send(piece.map_err(|_| ())).await.is_err() || !whole {
                    return;
                }
            }
        });
        let (sender, batches) = mpsc::channel(2);
        let mapping = options.mapping.clone();
        let cutting = tokio::task::spawn_blocking(move || cut(source, &mapping, &sender));
        let read = stream::unfold(batches, async |mut batches| Some((batches.recv().await?, batches)))
            .map(|(header, batch): (std::sync::Arc<Header>, Batch)| {
                let region = region.clone();
                tokio::task::spawn_blocking(move || read(&header, &batch, region.as_deref()))
            })
            .buffered(std::thread::available_parallelism().map_or(2, usize::from));
        let mut read = std::pin::pin!(read);
        let mut import = Importing {
            report: ImportReport::default(),
            done: ImportProgress::default(),
            max_errors: options.max_errors,
            all_new: false,
            writing: VecDeque::new(),
        };
        while let Some(batch) = read.next().await {
            let mut batch = batch.map_err(|_| ApiError::internal("reading the table failed"))?;
            if let Some(rejected) = &options.rejected {
                import.report.rejected += batch.rejected.len() as u64;
                for row in batch.rejected.drain(..) {
                    if rejected.send(row).await.is_err() {
                        break;
                    }
                }
                batch.rejected.clear();
            }
            let ids: HashSet<String> = batch.changes.iter().map(|change| change.id.clone()).collect();
            while import.must_wait(&ids) {
                progress(import.written().await?);
            }
            let writing = self.write_beside(batch, ids, import.all_new, &caller.name);
            import.writing.push_back(writing);
        }
        while !import.writing.is_empty() {
            progress(import.written().await?);
        }
        let Importing { report, done, .. } = import;
        cutting
            .await
            .map_err(|_| ApiError::internal("reading the table failed"))?
            .map_err(|error| match done.rows {
                0 => ApiError::invalid("file", error.to_string()),
                rows => ApiError::invalid("file", format!("{error} ({rows} rows before it were imported)")),
            })?;
        tracing::info!(
            by = caller.name,
            created = report.created,
            updated = report.updated,
            unchanged = report.unchanged,
            rejected = report.rejected,
            "contacts imported"
        );
        Ok(report)
    }
}

/// Batches that are written at once.
const AT_ONCE: usize = 3;

/// An import under way.
struct Importing {
    report: ImportReport,
    done: ImportProgress,
    max_errors: usize,
    /// The batch that was written last had new contacts only: the next one will, too, mostly.
    all_new: bool,
    /// In the file's order.
    writing: VecDeque<Writing>,
}

/// A batch that is being written, whatever becomes of the one who waits for it.
struct Writing {
    ids: HashSet<String>,
    rejected: Vec<RejectedRow>,
    rows: u64,
    end: u64,
    task: JoinHandle<Result<(Vec<Change>, usize), ApiError>>,
}

impl Importing {
    /// Whether a batch of these contacts has to wait for another to be written.
    fn must_wait(&self, ids: &HashSet<String>) -> bool {
        self.writing.len() >= AT_ONCE || self.writing.iter().any(|other| !other.ids.is_disjoint(ids))
    }

    /// Waits for the first; how far the import is then.
    async fn written(&mut self) -> Result<ImportProgress, ApiError> {
        if let Some(first) = self.writing.pop_front() {
            let (answers, opted_out) = first
                .task
                .await
                .map_err(|_| ApiError::internal("writing the contacts failed"))??;
            self.all_new = answers.iter().all(|answer| *answer == Change::Created);
            self.report.add(&answers, opted_out, first.rejected, self.max_errors);
            self.done.rows += first.rows;
            self.done.bytes = first.end;
        }
        Ok(self.done)
    }
}

impl Api {
    fn write_beside(&self, batch: ReadBatch, ids: HashSet<String>, fresh: bool, by: &str) -> Writing {
        let ReadBatch {
            mut changes,
            rejected,
            rows,
            end,
        } = batch;
        let (api, by) = (self.clone(), by.to_owned());
        Writing {
            ids,
            rejected,
            rows,
            end,
            task: tokio::spawn(async move { api.contacts_write(&mut changes, fresh, &by, "import").await }),
        }
    }
}

impl ImportReport {
    fn add(&mut self, answers: &[Change], opted_out: usize, rejected: Vec<RejectedRow>, max_errors: usize) {
        for answer in answers {
            match answer {
                Change::Created => self.created += 1,
                Change::Updated => self.updated += 1,
                Change::Unchanged => self.unchanged += 1,
            }
        }
        self.opted_out += opted_out as u64;
        self.rejected += rejected.len() as u64;
        for row in rejected {
            if self.errors.len() < max_errors {
                self.errors.push(row);
            } else {
                self.errors_left_out += 1;
            }
        }
    }
}

/// Cuts the rows out; on a thread that may wait.
fn cut(
    source: Source,
    mapping: &BTreeMap<String, String>,
    batches: &mpsc::Sender<(std::sync::Arc<Header>, Batch)>,
) -> Result<(), TableError> {
    let mut rows = Rows::open(source, mapping)?;
    let header = rows.header();
    while let Some(batch) = rows.next_batch()? {
        if batches.blocking_send((header.clone(), batch)).is_err() {
            break;
        }
    }
    Ok(())
}

fn read(header: &Header, batch: &Batch, region: Option<&str>) -> ReadBatch {
    let mut result = ReadBatch {
        changes: Vec::with_capacity(batch.rows.len()),
        rejected: Vec::new(),
        rows: batch.rows.len() as u64,
        end: batch.end,
    };
    for row in &batch.rows {
        match header.read(row, region) {
            Ok(change) => result.changes.push(change),
            Err(error) => result.rejected.push(RejectedRow {
                line: row.line,
                field: (!error.field.is_empty()).then_some(error.field),
                message: error.message,
            }),
        }
    }
    result
}
