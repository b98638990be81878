//! Counting, copying and deleting rows.

use bytes::Bytes;

use super::{PostgresTier, tier_error};
use crate::stored::{Cursor, Position, Purge, Scanned, StoredTier, Usage, foreign_cursor, scan_limit};
use crate::tier::{TierError, TierFuture};

const USAGE: &str = "
    SELECT count(*), count(*) FILTER (WHERE expires <= now()), pg_total_relation_size('sconce_entries')
    FROM sconce_entries
";
const SCAN: &str = "
    SELECT key, value FROM sconce_entries
    WHERE key > $1 AND (expires IS NULL OR expires > now()) ORDER BY key LIMIT $2
";
const PURGE_EXPIRED: &str = "DELETE FROM sconce_entries WHERE expires <= now()";
/// Deletes all rows. Not by `TRUNCATE`, which waits for every reader and needs a privilege of its own.
const PURGE_ALL: &str = "DELETE FROM sconce_entries";

impl StoredTier for PostgresTier {
    fn usage(&self) -> TierFuture<'_, Result<Usage, TierError>> {
        Box::pin(async {
            let row = self.client().await?.query_one(USAGE, &[]).await.map_err(tier_error)?;
            let count = |index| Ok(row.try_get::<_, i64>(index).map_err(tier_error)?.unsigned_abs());
            Ok(Usage { entries: count(0)?, expired: count(1)?, bytes: count(2)? })
        })
    }

    fn scan(&self, from: Option<Cursor>, max: usize) -> TierFuture<'_, Result<Scanned, TierError>> {
        Box::pin(async move {
            let after = match &from {
                None => &[][..],
                Some(Cursor(Position::Key(key))) => &key.as_bytes()[..],
                Some(_) => return Err(foreign_cursor()),
            };
            let limit = scan_limit(max);
            let rows = self.client().await?.query(SCAN, &[&after, &i64::from(limit)]).await.map_err(tier_error)?;
            let mut scanned = Scanned::default();
            for row in &rows {
                let (key, value): (&[u8], &[u8]) =
                    (row.try_get(0).map_err(tier_error)?, row.try_get(1).map_err(tier_error)?);
                scanned.add(key, Bytes::copy_from_slice(value));
            }
            let last = rows
                .last()
                .filter(|_| rows.len() as u64 >= u64::from(limit))
                .and_then(|row| row.try_get::<_, &[u8]>(0).ok());
            let last = last.and_then(|key| <[u8; 32]>::try_from(key).ok());
            scanned.next = last.map(|key| Cursor(Position::Key(crate::Key::from_bytes(key))));
            Ok(scanned)
        })
    }

    fn purge(&self, what: Purge) -> TierFuture<'_, Result<u64, TierError>> {
        Box::pin(async move {
            let statement = match what {
                Purge::Expired => PURGE_EXPIRED,
                Purge::All => PURGE_ALL,
            };
            self.client().await?.execute(statement, &[]).await.map_err(tier_error)
        })
    }
}
