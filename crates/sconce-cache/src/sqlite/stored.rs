//! Counting, copying and deleting rows.

use bytes::Bytes;
use rusqlite::{Connection, params};

use super::store::now_ms;
use super::{SqliteTier, tier_error};
use crate::stored::{Cursor, Position, Purge, Scanned, StoredTier, Usage, foreign_cursor, scan_limit};
use crate::tier::{TierError, TierFuture};

const COUNT: &str = "SELECT count(*), count(*) FILTER (WHERE expires_ms <= ?1) FROM entries";
const BYTES: &str = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
const SCAN: &str = "
    SELECT id, key, value FROM entries WHERE id > ?1 AND (expires_ms IS NULL OR expires_ms > ?2) ORDER BY id LIMIT ?3
";
/// Deletes some rows at a time, so that others can write in between.
const PURGE_EXPIRED: &str =
    "DELETE FROM entries WHERE id IN (SELECT id FROM entries WHERE expires_ms <= ?1 ORDER BY expires_ms LIMIT 4096)";
const PURGE_ALL: &str = "DELETE FROM entries";
/// Gives the pages of deleted rows back to the file system.
const VACUUM: &str = "VACUUM";

impl StoredTier for SqliteTier {
    fn usage(&self) -> TierFuture<'_, Result<Usage, TierError>> {
        Box::pin(self.read(usage))
    }

    fn scan(&self, from: Option<Cursor>, max: usize) -> TierFuture<'_, Result<Scanned, TierError>> {
        let after = match from {
            None => i64::MIN,
            Some(Cursor(Position::Row(id))) => id,
            Some(_) => return Box::pin(async { Err(foreign_cursor()) }),
        };
        Box::pin(self.read(move |connection| scan(connection, after, scan_limit(max))))
    }

    fn purge(&self, what: Purge) -> TierFuture<'_, Result<u64, TierError>> {
        Box::pin(self.write(move |connection| match what {
            Purge::Expired => purge_expired(connection),
            Purge::All => purge_all(connection),
        }))
    }

    fn close(self: Box<Self>) -> TierFuture<'static, ()> {
        let Self { reads, writes, mut readers_ended, mut writer_ended, .. } = *self;
        Box::pin(async move {
            drop(reads);
            readers_ended.recv().await;
            // The writer alone and last: of connections that are closed at the same time none may remove the files.
            drop(writes);
            writer_ended.recv().await;
        })
    }
}

fn usage(connection: &Connection) -> Result<Usage, TierError> {
    let (entries, expired) =
        connection.query_row(COUNT, [now_ms()], |row| Ok((row.get(0)?, row.get(1)?))).map_err(tier_error)?;
    let bytes = connection.query_row(BYTES, [], |row| row.get(0)).map_err(tier_error)?;
    Ok(Usage { entries, expired, bytes })
}

fn scan(connection: &Connection, after: i64, max: u32) -> Result<Scanned, TierError> {
    let mut select = connection.prepare_cached(SCAN).map_err(tier_error)?;
    let mut rows = select.query(params![after, now_ms(), max]).map_err(tier_error)?;
    let (mut scanned, mut seen) = (Scanned::default(), 0);
    while let Some(row) = rows.next().map_err(tier_error)? {
        seen += 1;
        let id = row.get(0).map_err(tier_error)?;
        let column = |index| row.get_ref(index)?.as_bytes().map_err(rusqlite::Error::from);
        let (key, value) = (column(1).map_err(tier_error)?, column(2).map_err(tier_error)?);
        scanned.add(key, Bytes::copy_from_slice(value));
        scanned.next = Some(Cursor(Position::Row(id)));
    }
    if seen < max {
        scanned.next = None;
    }
    Ok(scanned)
}

fn purge_expired(connection: &Connection) -> Result<u64, TierError> {
    let mut deleted = 0;
    loop {
        match connection.execute(PURGE_EXPIRED, [now_ms()]).map_err(tier_error)? {
            0 => return Ok(deleted),
            more => deleted += more as u64,
        }
    }
}

fn purge_all(connection: &Connection) -> Result<u64, TierError> {
    let deleted = connection.execute(PURGE_ALL, []).map_err(tier_error)?;
    connection.execute_batch(VACUUM).map_err(tier_error)?;
    Ok(deleted as u64)
}
