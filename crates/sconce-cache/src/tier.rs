//! The trait of a tier: a store of values that may be slow, full or gone.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Key, Value};

/// A boxed future, because the trait is used behind `dyn`.
pub type TierFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One level of cache.
///
/// A tier reports every error; [`Cache`](crate::Cache) gives it its time budget and its circuit breaker and
/// turns every failure into a miss. Each tier must pass the suite in `tests/cache/conformance.rs`.
pub trait Tier: Send + Sync + 'static {
    /// Name of the tier in answers, statistics and logs.
    fn name(&self) -> &'static str;

    /// Looks up many keys at once. Returns one [`Found`] per key, in the same order.
    fn get_many<'a>(&'a self, keys: &'a [Key]) -> TierFuture<'a, Result<Vec<Found>, TierError>>;

    /// Stores many entries at once and returns when they can be read. An entry replaces an older one of the same key; of two
    /// entries with the same key the last stays.
    fn put_many<'a>(&'a self, entries: &'a [(Key, Value)]) -> TierFuture<'a, Result<(), TierError>>;

    /// Tidies up the store, such as a log beside its file. Called after the last write for now; the tier may still be used
    /// afterwards.
    fn settle(&self) -> TierFuture<'_, Result<(), TierError>> {
        Box::pin(async { Ok(()) })
    }
}

/// Implements [`Tier`] for smart pointers to a tier.
macro_rules! tier_behind {
    ($($pointer:ident),+) => {$(
        impl<T: Tier + ?Sized> Tier for $pointer<T> {
            fn name(&self) -> &'static str {
                T::name(self)
            }

            fn get_many<'a>(&'a self, keys: &'a [Key]) -> TierFuture<'a, Result<Vec<Found>, TierError>> {
                T::get_many(self, keys)
            }

            fn put_many<'a>(&'a self, entries: &'a [(Key, Value)]) -> TierFuture<'a, Result<(), TierError>> {
                T::put_many(self, entries)
            }

            fn settle(&self) -> TierFuture<'_, Result<(), TierError>> {
                T::settle(self)
            }
        }
    )+};
}

// An `Arc`, so that a tier can be in a stack and be used directly too; a `Box`, so that the kind of tier can be chosen
// at run time.
tier_behind!(Arc, Box);

/// The result of looking up one key in a tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The tier has this value.
    Hit(Value),
    /// The tier has nothing under the key, or an entry that has expired.
    Miss,
    /// The tier has bytes that are not an intact value; they count as a miss and are overwritten by the next fill.
    Corrupt,
}

impl Found {
    /// Decodes stored bytes: a hit, or corrupt.
    #[must_use]
    pub fn read(stored: Bytes) -> Self {
        Value::decode(stored).map_or(Self::Corrupt, Self::Hit)
    }
}

/// The error of an operation of a tier.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TierError {
    /// The tier cannot be reached, or failed. Retry later.
    #[error("the tier is unavailable: {}", with_sources(&**.0))]
    Unavailable(Arc<dyn StdError + Send + Sync>),
    /// The store does not exist, and [`Access`](crate::Access) does not allow creating it.
    #[error("there is no cache: {what}")]
    Missing {
        /// The missing thing, in words.
        what: String,
    },
    /// The tier takes no more entries: its bound is reached, or the disk is full. Reading still works.
    #[error("the tier is full")]
    Full,
    /// Too many operations wait for the tier. Retry at once, or do without.
    #[error("{max} operations wait for the tier already")]
    Busy {
        /// The bound on waiting operations.
        max: usize,
    },
}

/// The message of an error, followed by those of its sources that add to it: clients of databases keep the reason there.
fn with_sources(error: &dyn StdError) -> String {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !said.contains(&more) {
            said = format!("{said}: {more}");
        }
        source = cause.source();
    }
    said
}

impl TierError {
    /// Makes an [`Unavailable`](Self::Unavailable) with its cause.
    pub fn unavailable(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Unavailable(Arc::from(cause.into()))
    }
}
