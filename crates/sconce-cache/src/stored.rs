//! What an operator does with a tier whose entries outlive the process: count, copy and delete them.

use crate::tier::{Tier, TierError, TierFuture};
use crate::{Key, Value};

/// A tier that keeps its entries outside of this process. None of this is on the path of a request, and none of it is bounded
/// in time.
pub trait StoredTier: Tier {
    /// Counts what it holds. Reads all of it where the store keeps no count.
    fn usage(&self) -> TierFuture<'_, Result<Usage, TierError>>;

    /// At most about `max` entries (one where it is 0) from where an earlier scan ended ([`Scanned::next`]), or from the
    /// beginning. Entries that were there before the first scan and still are after the last are seen, each once or (Redis) more
    /// often.
    fn scan(&self, from: Option<Cursor>, max: usize) -> TierFuture<'_, Result<Scanned, TierError>>;

    /// Deletes, and gives the number of entries that were deleted.
    fn purge(&self, what: Purge) -> TierFuture<'_, Result<u64, TierError>>;

    /// Closes the connections, and resolves once they are closed. SQLite then removes the files beside its own, unless
    /// another process uses them. A tier that is dropped instead closes its connections at some later time, if the
    /// process lives that long.
    #[must_use]
    fn close(self: Box<Self>) -> TierFuture<'static, ()> {
        Box::pin(async move { drop(self) })
    }
}

/// What a tier holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Entries, those whose time is over included. Redis may count some twice while its tables grow or shrink.
    pub entries: u64,
    /// Entries whose time is over and which are still there. Redis has none: it deletes them itself.
    pub expired: u64,
    /// Bytes that the store takes: of SQLite the file, of Postgres the table with its indexes, of Redis the values.
    pub bytes: u64,
}

/// What to delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purge {
    /// Entries whose time is over.
    Expired,
    /// Every entry.
    All,
}

/// Some entries of a tier.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Scanned {
    /// Intact entries whose time is not over.
    pub entries: Vec<(Key, Value)>,
    /// Entries that were passed over because they are not intact values of this version.
    pub corrupt: u64,
    /// Where the next scan goes on; none where this was the last.
    pub next: Option<Cursor>,
}

/// Where a scan goes on: of the tier that gave it, and of no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub(crate) Position);

#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(
    not(all(feature = "sqlite", feature = "redis", feature = "postgres")),
    expect(dead_code, reason = "each tier has its own kind of position")
)]
pub(crate) enum Position {
    /// After this row of SQLite.
    Row(i64),
    /// Redis's own cursor.
    Cursor(u64),
    /// After this key of Postgres.
    Key(Key),
}

/// A cursor of another tier.
#[cfg(any(feature = "sqlite", feature = "redis", feature = "postgres"))]
pub(crate) fn foreign_cursor() -> TierError {
    TierError::unavailable("the scan was begun on a tier of another kind")
}

/// `max` of a scan, as every store can count it.
#[cfg(any(feature = "sqlite", feature = "redis", feature = "postgres"))]
pub(crate) fn scan_limit(max: usize) -> u32 {
    u32::try_from(max).unwrap_or(u32::MAX).clamp(1, 1 << 31)
}

impl Scanned {
    /// Sorts what a store gave under a key.
    #[cfg(any(feature = "sqlite", feature = "redis", feature = "postgres"))]
    pub(crate) fn add(&mut self, key: &[u8], stored: bytes::Bytes) {
        let key = <[u8; 32]>::try_from(key).map(Key::from_bytes);
        match (key, Value::decode(stored)) {
            (Ok(key), Ok(value)) => self.entries.push((key, value)),
            _ => self.corrupt += 1,
        }
    }
}
