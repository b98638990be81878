//! Operators' tasks on a tier whose entries outlive the process: count, copy and delete them.

use crate::tier::{Tier, TierError, TierFuture};
use crate::{Key, Value};

/// A tier that keeps its entries outside of this process. These operations are not on the path of a request, and have
/// no time budget.
pub trait StoredTier: Tier {
    /// Counts the entries. Reads all of them if the store keeps no count.
    fn usage(&self) -> TierFuture<'_, Result<Usage, TierError>>;

    /// Returns at most about `max` entries (one if it is 0) from the cursor of an earlier scan ([`Scanned::next`]), or
    /// from the beginning. An entry that exists from before the first scan until after the last is returned once or, by
    /// Redis, more often.
    fn scan(&self, from: Option<Cursor>, max: usize) -> TierFuture<'_, Result<Scanned, TierError>>;

    /// Deletes entries, and returns their number.
    fn purge(&self, what: Purge) -> TierFuture<'_, Result<u64, TierError>>;

    /// Closes the connections, and resolves once they are closed. SQLite then removes the files beside its own, unless
    /// another process uses them. A tier that is dropped instead closes its connections at some later time, if the
    /// process lives that long.
    #[must_use]
    fn close(self: Box<Self>) -> TierFuture<'static, ()> {
        Box::pin(async move { drop(self) })
    }
}

/// Number and size of a tier's entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Number of entries, expired ones included. Redis may count some twice while its tables grow or shrink.
    pub entries: u64,
    /// Number of expired entries that are not deleted yet. Redis has none: it deletes them itself.
    pub expired: u64,
    /// Bytes of the store: for SQLite the file, for Postgres the table with its indexes, for Redis the values.
    pub bytes: u64,
}

/// The entries to delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purge {
    /// Entries that have expired.
    Expired,
    /// Every entry.
    All,
}

/// Some entries of a tier.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Scanned {
    /// Intact entries that have not expired.
    pub entries: Vec<(Key, Value)>,
    /// Number of entries that were skipped because they are not intact values of this version.
    pub corrupt: u64,
    /// Position at which the next scan continues; `None` after the last.
    pub next: Option<Cursor>,
}

/// Position at which a scan continues. Valid only for the kind of tier that gave it.
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

/// The error for a cursor of another kind of tier.
#[cfg(any(feature = "sqlite", feature = "redis", feature = "postgres"))]
pub(crate) fn foreign_cursor() -> TierError {
    TierError::unavailable("the scan was begun on a tier of another kind")
}

/// Clamps `max` of a scan to numbers that every store can represent.
#[cfg(any(feature = "sqlite", feature = "redis", feature = "postgres"))]
pub(crate) fn scan_limit(max: usize) -> u32 {
    u32::try_from(max).unwrap_or(u32::MAX).clamp(1, 1 << 31)
}

impl Scanned {
    /// Adds a stored entry if it is intact, else counts it as corrupt.
    #[cfg(any(feature = "sqlite", feature = "redis", feature = "postgres"))]
    pub(crate) fn add(&mut self, key: &[u8], stored: bytes::Bytes) {
        let key = <[u8; 32]>::try_from(key).map(Key::from_bytes);
        match (key, Value::decode(stored)) {
            (Ok(key), Ok(value)) => self.entries.push((key, value)),
            _ => self.corrupt += 1,
        }
    }
}
