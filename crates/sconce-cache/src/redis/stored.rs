//! Counting, copying and deleting entries.

use bytes::Bytes;
use redis::RedisError;

use super::RedisTier;
use crate::stored::{Cursor, Position, Purge, Scanned, StoredTier, Usage, foreign_cursor, scan_limit};
use crate::tier::{TierError, TierFuture};

/// Number of names that Redis looks at in each `SCAN`.
const STEP: u32 = 1000;
const KEY_BYTES: usize = 32;

impl StoredTier for RedisTier {
    fn usage(&self) -> TierFuture<'_, Result<Usage, TierError>> {
        Box::pin(async {
            let (mut usage, mut cursor) = (Usage::default(), Some(0));
            while let Some(at) = cursor {
                let (next, names) = self.names(at, STEP).await.map_err(TierError::unavailable)?;
                let lengths = self.lengths(&names).await.map_err(TierError::unavailable)?;
                usage.entries += names.len() as u64;
                usage.bytes += lengths.iter().sum::<u64>();
                cursor = next;
            }
            Ok(usage)
        })
    }

    fn scan(&self, from: Option<Cursor>, max: usize) -> TierFuture<'_, Result<Scanned, TierError>> {
        Box::pin(async move {
            let at = match from {
                None => 0,
                Some(Cursor(Position::Cursor(at))) => at,
                Some(_) => return Err(foreign_cursor()),
            };
            let (next, names) = self.names(at, scan_limit(max)).await.map_err(TierError::unavailable)?;
            let mut scanned = Scanned { next: next.map(|at| Cursor(Position::Cursor(at))), ..Scanned::default() };
            let values = self.values(&names).await.map_err(TierError::unavailable)?;
            for (name, value) in names.iter().zip(values) {
                // An entry may have expired since its name was read.
                if let Some(value) = value {
                    scanned.add(&name[self.prefix.len()..], Bytes::from(value));
                }
            }
            Ok(scanned)
        })
    }

    /// Deletes all entries; for [`Purge::Expired`] nothing, because Redis deletes expired entries itself.
    fn purge(&self, what: Purge) -> TierFuture<'_, Result<u64, TierError>> {
        Box::pin(async move {
            let (mut deleted, mut cursor) = (0, (what == Purge::All).then_some(0));
            while let Some(at) = cursor {
                let (next, names) = self.names(at, STEP).await.map_err(TierError::unavailable)?;
                deleted += self.unlink(&names).await.map_err(TierError::unavailable)?;
                cursor = next;
            }
            Ok(deleted)
        })
    }
}

impl RedisTier {
    /// Looks at about `count` names. Returns the next cursor, `None` at the end, and those names that are of entries.
    async fn names(&self, cursor: u64, count: u32) -> Result<(Option<u64>, Vec<Vec<u8>>), RedisError> {
        let mut command = redis::cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(pattern(&self.prefix)).arg("COUNT").arg(count);
        let (next, mut names): (u64, Vec<Vec<u8>>) = command.query_async(&mut self.connection.clone()).await?;
        // Excludes locks, whose names are longer.
        names.retain(|name| name.len() == self.prefix.len() + KEY_BYTES);
        Ok(((next != 0).then_some(next), names))
    }

    async fn lengths(&self, names: &[Vec<u8>]) -> Result<Vec<u64>, RedisError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        for name in names {
            pipeline.cmd("STRLEN").arg(name);
        }
        pipeline.query_async(&mut self.connection.clone()).await
    }

    async fn values(&self, names: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, RedisError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        redis::cmd("MGET").arg(names).query_async(&mut self.connection.clone()).await
    }

    async fn unlink(&self, names: &[Vec<u8>]) -> Result<u64, RedisError> {
        if names.is_empty() {
            return Ok(0);
        }
        redis::cmd("UNLINK").arg(names).query_async(&mut self.connection.clone()).await
    }
}

/// Makes a pattern that matches names with this prefix, with the special characters of Redis's patterns escaped.
fn pattern(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 1);
    for character in prefix.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern + "*"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_stands_for_itself() {
        assert_eq!(pattern("sconce:"), "sconce:*");
        assert_eq!(pattern(r"a*[b]?\"), r"a\*\[b\]\?\\*");
    }
}
