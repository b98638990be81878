//! Writing rows: all waiting jobs go into one transaction.

use std::time::Duration;

use crossbeam_channel::Receiver;
use rusqlite::{Connection, TransactionBehavior, params};
use tokio::sync::oneshot;

use super::store::{now_ms, open_to_write};
use super::{ConnectionCall, SqliteConfig, SqliteOpenError, tier_error};
use crate::tier::TierError;
use crate::{Key, Value};

/// Largest number of jobs in one transaction. More would make the first wait for the last, and gain little.
const MAX_JOBS: usize = 64;
/// Bytes after which a transaction takes no further job.
const MAX_BYTES: usize = 16 << 20;

const INSERT: &str = "INSERT OR REPLACE INTO entries (id, key, expires_ms, value) VALUES (?1, ?2, ?3, ?4)";
/// Deletes some expired rows with every write: few enough that no write takes long, and more than a write adds.
const SWEEP: &str =
    "DELETE FROM entries WHERE id IN (SELECT id FROM entries WHERE expires_ms <= ?1 ORDER BY expires_ms LIMIT 256)";

/// A job for the writer's thread.
pub(super) enum WriteJob {
    Put(PutJob),
    Call(ConnectionCall),
}

/// Entries to write.
pub(super) struct PutJob {
    pub(super) entries: Vec<(Key, Value)>,
    pub(super) reply: oneshot::Sender<Result<(), TierError>>,
}

pub(super) struct Writer {
    connection: Connection,
    ttl: Option<Duration>,
}

impl Writer {
    pub(super) fn open(config: &SqliteConfig) -> Result<Self, SqliteOpenError> {
        Ok(Self { connection: open_to_write(config)?, ttl: config.ttl })
    }

    /// Runs jobs until their queue is closed.
    pub(super) fn run(mut self, jobs: &Receiver<WriteJob>) {
        while let Ok(first) = jobs.recv() {
            let mut call = None;
            match first {
                WriteJob::Call(first) => call = Some(first),
                WriteJob::Put(first) => self.put(first, jobs, &mut call),
            }
            if let Some(call) = call {
                call(&self.connection);
            }
        }
    }

    /// Writes `first` and the waiting jobs behind it in one transaction, up to a call, which it leaves in `call`.
    fn put(&mut self, first: PutJob, jobs: &Receiver<WriteJob>, call: &mut Option<ConnectionCall>) {
        let mut bytes = weight(&first);
        let mut batch = vec![first];
        while batch.len() < MAX_JOBS && bytes < MAX_BYTES {
            match jobs.try_recv() {
                Ok(WriteJob::Put(job)) => {
                    bytes += weight(&job);
                    batch.push(job);
                }
                Ok(WriteJob::Call(next)) => {
                    *call = Some(next);
                    break;
                }
                Err(_) => break,
            }
        }
        let written = self.write(&batch).map_err(tier_error);
        for job in batch {
            // The caller may have gone.
            job.reply.send(written.clone()).ok();
        }
    }

    fn write(&mut self, batch: &[PutJob]) -> Result<(), rusqlite::Error> {
        let now_ms = now_ms();
        let ttl_ms = self.ttl.map(|ttl| i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
        let expires_ms = ttl_ms.map(|ttl_ms| now_ms.saturating_add(ttl_ms));
        // A transaction that is dropped without a commit is rolled back.
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if self.ttl.is_some() {
            transaction.prepare_cached(SWEEP)?.execute([now_ms])?;
        }
        let mut insert = transaction.prepare_cached(INSERT)?;
        for (key, value) in batch.iter().flat_map(|job| &job.entries) {
            insert.execute(params![key.row_id(), key.as_bytes(), expires_ms, &value.encoded()[..]])?;
        }
        drop(insert);
        transaction.commit()
    }
}

fn weight(job: &PutJob) -> usize {
    job.entries.iter().map(|(_, value)| value.encoded().len()).sum()
}
