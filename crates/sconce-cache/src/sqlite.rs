//! The SQLite tier: an embedded database in a file.
//!
//! Reads run on threads of their own, not on tokio's workers. A read whose page is in memory takes some 10 µs, less
//! than the hand-over. But a read that waits for a disk may take any time, and a blocked worker cannot even notice that
//! the time budget is over. Where an answer takes milliseconds to compute, the hand-over does not matter.

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

/// A call that a thread runs on its connection.
type ConnectionCall = Box<dyn FnOnce(&Connection) + Send>;

/// Largest number of readers, each of which is a thread with a connection.
const MAX_READERS: usize = 256;

/// Bounds of [`SqliteTier`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteConfig {
    /// Path of the file. SQLite makes two more beside it, with `-wal` and `-shm` at the end of their names.
    pub path: PathBuf,
    /// Access to the file: whether it is created if it does not exist, and whether it is written.
    pub access: Access,
    /// Time to live of an entry, 1 ms to 100 years; `None` for ever. Keys hold everything an answer depends on, so a
    /// precomputed result does not go stale.
    pub ttl: Option<Duration>,
    /// Largest size of the file in bytes; at the bound writes fail with [`TierError::Full`] and reads go on. The
    /// write-ahead log takes up to 64 MiB more. At least 1 MiB; SQLite's own limit is 32 TiB.
    pub max_bytes: u64,
    /// Bytes of the file that are mapped into memory, so that a read copies nothing but its value. The rest of a larger
    /// file goes through read calls. SQLite maps 2 GiB at most.
    pub mmap_bytes: u64,
    /// Number of threads that read; 1 to 256. More than one only helps where the file does not fit into memory.
    pub readers: usize,
    /// Operations that wait for the threads, 1 to 1,048,576; at the bound operations fail with [`TierError::Busy`]. Too
    /// small: lookups of a burst fail. Too large: operations pile up behind a disk that hangs.
    pub max_queue_size: usize,
}

impl SqliteConfig {
    /// The default settings: entries stay for ever; 16 GiB, 1 GiB of them mapped; two readers; 1,024 operations may wait.
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
        // To SQLite these names mean a database that each connection has for itself, and that ends with it.
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

/// Reasons for which a SQLite tier cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqliteOpenError {
    /// A field is out of bounds.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The cache does not exist, and [`Access`] does not allow creating it.
    #[error("there is no cache in {}: {why}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The missing thing, in words.
        why: &'static str,
    },
    /// The file has tables of another application or version. Use another file.
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
        /// Error of SQLite.
        #[source]
        cause: rusqlite::Error,
    },
    /// The operating system gives no thread.
    #[error("no thread for the database")]
    NoThread(#[source] std::io::Error),
}

/// The SQLite tier: some threads that read, and one that writes many entries in one transaction.
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
    /// Opens or creates the file, and starts the threads. Blocks on the disk, so call it at start-up.
    ///
    /// # Errors
    /// [`SqliteOpenError`] if a value is out of bounds, or the file or a thread cannot be had.
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

    /// Runs a call on a reader's thread.
    async fn read<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Connection) -> Result<T, TierError> + Send + 'static,
    ) -> Result<T, TierError> {
        self.ask(&self.reads, |reply| ReadJob::Call(replying(call, reply))).await
    }

    /// Runs a call on the writer's thread.
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

    /// Moves the pages of the write-ahead log into the file, and empties the log.
    fn settle(&self) -> TierFuture<'_, Result<(), TierError>> {
        Box::pin(self.write(|connection| {
            // It answers with a row, which tells whether a reader kept it from being done.
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(tier_error)
        }))
    }
}

fn replying<T: Send + 'static>(
    call: impl FnOnce(&Connection) -> Result<T, TierError> + Send + 'static,
    reply: oneshot::Sender<Result<T, TierError>>,
) -> ConnectionCall {
    Box::new(move |connection| {
        // The caller may have gone.
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

/// The message of SQLite, without the path, which it repeats.
fn told(cause: &rusqlite::Error) -> String {
    match cause {
        rusqlite::Error::SqliteFailure(error, _) => rusqlite::ffi::code_to_str(error.extended_code).to_owned(),
        cause => cause.to_string(),
    }
}

/// A remedy for a failure to open a file, by the error and the state of the file system.
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
