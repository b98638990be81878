//! Reading rows.

use bytes::Bytes;
use crossbeam_channel::Receiver;
use rusqlite::{Connection, OptionalExtension, Row};
use tokio::sync::oneshot;

use super::store::{now_ms, open_to_read};
use super::{ConnectionCall, SqliteConfig, SqliteOpenError, tier_error};
use crate::Key;
use crate::tier::{Found, TierError};

const SELECT: &str = "SELECT key, expires_ms, value FROM entries WHERE id = ?1";

/// A job for a reader's thread.
pub(super) enum ReadJob {
    Get { keys: Vec<Key>, reply: oneshot::Sender<Result<Vec<Found>, TierError>> },
    Call(ConnectionCall),
}

/// Reads the file on the caller's thread, for tools that are not async. [`SqliteTier`](super::SqliteTier) runs readers
/// on threads of their own.
pub struct SqliteReader {
    connection: Connection,
}

impl SqliteReader {
    /// Opens a file that [`SqliteTier`](super::SqliteTier) has made.
    ///
    /// # Errors
    /// [`SqliteOpenError::Unusable`] if the file cannot be opened.
    pub fn open(config: &SqliteConfig) -> Result<Self, SqliteOpenError> {
        Ok(Self { connection: open_to_read(config)? })
    }

    /// Looks up many keys in one transaction. Returns one [`Found`] per key, in the same order.
    ///
    /// # Errors
    /// [`TierError::Unavailable`] if the file cannot be read.
    pub fn get_many(&mut self, keys: &[Key]) -> Result<Vec<Found>, TierError> {
        let now_ms = now_ms();
        // A single statement is a transaction by itself.
        let transaction = (keys.len() > 1).then(|| self.connection.unchecked_transaction()).transpose();
        let _transaction = transaction.map_err(tier_error)?;
        let mut select = self.connection.prepare_cached(SELECT).map_err(tier_error)?;
        let mut get = |key: &Key| {
            let found = select.query_row([key.row_id()], |row| found(row, key, now_ms)).optional();
            found.map(|found| found.unwrap_or(Found::Miss))
        };
        keys.iter().map(&mut get).collect::<Result<_, _>>().map_err(tier_error)
    }

    /// Answers jobs until their queue is closed.
    pub(super) fn run(&mut self, jobs: &Receiver<ReadJob>) {
        for job in jobs {
            match job {
                // The caller may have given up by now, because its budget is over.
                ReadJob::Get { reply, .. } if reply.is_closed() => {}
                ReadJob::Get { keys, reply } => {
                    reply.send(self.get_many(&keys)).ok();
                }
                ReadJob::Call(call) => call(&self.connection),
            }
        }
    }
}

fn found(row: &Row<'_>, key: &Key, now_ms: i64) -> Result<Found, rusqlite::Error> {
    let (stored, expires_ms) = (row.get_ref(0)?.as_bytes()?, row.get::<_, Option<i64>>(1)?);
    if stored != key.as_bytes() || expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms) {
        return Ok(Found::Miss);
    }
    Ok(Found::read(Bytes::copy_from_slice(row.get_ref(2)?.as_bytes()?)))
}
