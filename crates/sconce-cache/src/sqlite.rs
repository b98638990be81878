//! The third tier, embedded: a SQLite file.
//!
//! Reads run on threads of their own, not on tokio's workers. A read that finds its page in memory takes some 10 µs, less
//! than the hand-over; but one that waits for a disk takes as long as the disk likes, and a worker that waits cannot even
//! notice that the time budget is over. Where an answer takes milliseconds to compute the hand-over does not matter.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError, bounded};
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{mpsc, oneshot};

use crate::access::Access;
use crate::config::{ConfigError, MAX_QUEUE_SIZE, size, ttl};
use crate::tier::{Found, Tier, TierError, TierFuture};
use crate::{Key, Value};

mod reader;
mod store;
mod stored;
mod writer;

use reader::ReadJob;
pub use reader::SqliteReader;
use writer::{PutJob, WriteJob, Writer};

/// Something that a thread does with its connection.
type Call = Box<dyn FnOnce(&Connection) + Send>;

/// Each is a thread with a connection.
const MAX_READERS: usize = 256;

/// Bounds of [`SqliteTier`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteConfig {
    /// The file. Beside it lie two more, with `-wal` and `-shm` at the end of their names.
    pub path: PathBuf,
    /// Whether the file is made if it is not there.
    pub access: Access,
    /// How long an entry stays, 1 ms to 100 years; for ever where there is none. Keys name everything an answer depends on, so a
    /// precomputed result does not go stale.
    pub ttl: Option<Duration>,
    /// Bytes of the file; then writes fail with [`TierError::Full`] and reads go on. Besides it the write-ahead log takes
    /// up to 64 MiB. At least 1 MiB; SQLite itself stops at 32 TiB.
    pub max_bytes: u64,
    /// Bytes of the file that are mapped into memory, so that a read copies nothing but its value. Smaller than the file:
    /// the rest goes through read calls. SQLite maps 2 GiB at most.
    pub mmap_bytes: u64,
    /// Threads that read; at most 256. More than one only helps where the file does not fit into memory.
    pub readers: usize,
    /// Operations that wait for the threads, at most 1,048,576; then lookups fail with [`TierError::Busy`]. Too small: bursts are not looked
    /// up. Too large: a disk that hangs collects them.
    pub max_queue_size: usize,
}

impl SqliteConfig {
    /// Entries stay for ever; 16 GiB, 1 GiB of them mapped; two readers; 1,024 operations may wait.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            access: Access::default(),
            ttl: None,
            max_bytes: 16 << 30,
            mmap_bytes: 1 << 30,
            readers: 2,
            max_queue_size: 1024,
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        // To SQLite these are databases that each connection has for itself, and that end with it.
        if ["", ":memory:"].iter().any(|name| self.path == Path::new(name)) {
            let (field, value) = ("path", format!("'{}'", self.path.display()));
            return Err(ConfigError { field, value, allowed: "the name of a file".to_owned() });
        }
        if self.max_bytes < 1 << 20 {
            let (field, value) = ("max_bytes", self.max_bytes.to_string());
            return Err(ConfigError { field, value, allowed: "at least 1048576".to_owned() });
        }
        self.ttl.map_or(Ok(()), |time| ttl("ttl", time))?;
        size("readers", self.readers, MAX_READERS)?;
        size("max_queue_size", self.max_queue_size, MAX_QUEUE_SIZE)
    }
}

/// Why there is no SQLite tier.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqliteOpenError {
    /// A field is out of bounds.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no cache to open, and none is to be made.
    #[error("there is no cache in {}: {why}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What is missing.
        why: &'static str,
    },
    /// The file has another application's tables, or those of another version. Use another file.
    #[error("{} is not a cache of this version (user_version is {found}); give another file", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its `user_version`.
        found: i64,
    },
    /// The file cannot be opened, or is damaged.
    #[error("{} cannot be opened: {}{}", path.display(), told(cause), remedy(path, cause))]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        cause: rusqlite::Error,
    },
    /// The operating system gives no thread.
    #[error("no thread for the database")]
    NoThread(#[source] std::io::Error),
}

/// The SQLite tier: some threads that read and one that writes, many entries in one transaction.
pub struct SqliteTier {
    reads: Sender<ReadJob>,
    writes: Sender<WriteJob>,
    max_queue_size: usize,
    /// Ends when all threads that read have ended.
    readers_ended: mpsc::Receiver<Infallible>,
    /// Ends when the thread that writes has ended.
    writer_ended: mpsc::Receiver<Infallible>,
}

impl SqliteTier {
    /// Opens the file, or makes it, and starts the threads. Waits for the disk: call it at start-up.
    ///
    /// # Errors
    /// [`SqliteOpenError`] says what to change.
    pub fn open(config: &SqliteConfig) -> Result<Self, SqliteOpenError> {
        config.validate()?;
        let table = Writer::open(config)?;
        let (writes, write_jobs) = bounded(config.max_queue_size);
        let (reads, read_jobs) = bounded(config.max_queue_size);
        let (writer_runs, writer_ended) = mpsc::channel(1);
        spawn("writer", writer_runs, move || table.run(&write_jobs))?;
        let (reader_runs, readers_ended) = mpsc::channel(1);
        for _ in 0..config.readers {
            let (mut reader, jobs) = (SqliteReader::open(config)?, read_jobs.clone());
            spawn("reader", reader_runs.clone(), move || reader.run(&jobs))?;
        }
        Ok(Self { reads, writes, max_queue_size: config.max_queue_size, readers_ended, writer_ended })
    }

    /// Has a reader's thread do something.
    async fn read<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Connection) -> Result<T, TierError> + Send + 'static,
    ) -> Result<T, TierError> {
        self.ask(&self.reads, |reply| ReadJob::Call(replying(call, reply))).await
    }

    /// Has the writer's thread do something.
    async fn write<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Connection) -> Result<T, TierError> + Send + 'static,
    ) -> Result<T, TierError> {
        self.ask(&self.writes, |reply| WriteJob::Call(replying(call, reply))).await
    }

    async fn ask<J, T>(
        &self,
        queue: &Sender<J>,
        job: impl FnOnce(oneshot::Sender<Result<T, TierError>>) -> J,
    ) -> Result<T, TierError> {
        let (reply, answer) = oneshot::channel();
        queue.try_send(job(reply)).map_err(|error| match error {
            TrySendError::Full(_) => TierError::Busy { max: self.max_queue_size },
            TrySendError::Disconnected(_) => TierError::unavailable("the database's thread has ended"),
        })?;
        answer.await.unwrap_or_else(|_| Err(TierError::unavailable("the database's thread has ended")))
    }
}

impl Tier for SqliteTier {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn get_many<'a>(&'a self, keys: &'a [Key]) -> TierFuture<'a, Result<Vec<Found>, TierError>> {
        Box::pin(self.ask(&self.reads, |reply| ReadJob::Get { keys: keys.to_vec(), reply }))
    }

    fn put_many<'a>(&'a self, entries: &'a [(Key, Value)]) -> TierFuture<'a, Result<(), TierError>> {
        Box::pin(self.ask(&self.writes, |reply| WriteJob::Put(PutJob { entries: entries.to_vec(), reply })))
    }

    /// Moves what the write-ahead log holds into the file, and empties the log.
    fn settle(&self) -> TierFuture<'_, Result<(), TierError>> {
        Box::pin(self.write(|connection| {
            // It answers with a row, and says in it whether somebody who reads kept it from being done.
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(tier_error)
        }))
    }
}

fn replying<T: Send + 'static>(
    call: impl FnOnce(&Connection) -> Result<T, TierError> + Send + 'static,
    reply: oneshot::Sender<Result<T, TierError>>,
) -> Call {
    Box::new(move |connection| {
        // Whoever asked may have gone.
        reply.send(call(connection)).ok();
    })
}

/// Starts a thread that ends when its queue is closed. It is not joined: a disk that hangs would hold up whoever drops
/// the tier, and a write whose end somebody awaits keeps the tier alive.
fn spawn(
    job: &str,
    runs: mpsc::Sender<Infallible>,
    run: impl FnOnce() + Send + 'static,
) -> Result<(), SqliteOpenError> {
    let builder = std::thread::Builder::new().name(format!("sqlite-{job}"));
    let run = move || {
        // Also drops the connection.
        run();
        drop(runs);
    };
    builder.spawn(run).map(drop).map_err(SqliteOpenError::NoThread)
}

/// What SQLite says, without the path, which it repeats.
fn told(cause: &rusqlite::Error) -> String {
    match cause {
        rusqlite::Error::SqliteFailure(error, _) => rusqlite::ffi::code_to_str(error.extended_code).to_owned(),
        cause => cause.to_string(),
    }
}

/// What to do about it, as far as the file system tells.
fn remedy(path: &Path, cause: &rusqlite::Error) -> String {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match cause.sqlite_error_code() {
        _ if path.is_dir() => "; it is a directory: give a file".to_owned(),
        _ if !directory.is_dir() => format!("; there is no directory {}: make it", directory.display()),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            "; give another file, or delete this one".to_owned()
        }
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            format!("; the file and its directory {} must be readable and writable", directory.display())
        }
        Some(ErrorCode::DiskFull) => "; free some space on its disk".to_owned(),
        _ => String::new(),
    }
}

fn unusable(path: &Path) -> impl Fn(rusqlite::Error) -> SqliteOpenError {
    move |cause| SqliteOpenError::Unusable { path: path.to_owned(), cause }
}

fn tier_error(error: rusqlite::Error) -> TierError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => TierError::Full,
        _ => TierError::unavailable(error),
    }
}
