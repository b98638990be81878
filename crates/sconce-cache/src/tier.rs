//! What a tier is: a store of values that may be slow, full or gone.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Key, Value};

/// A future that can be boxed: the trait is used behind `dyn`.
pub type TierFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One level of cache.
///
/// A tier says honestly what went wrong; [`Cache`](crate::Cache) gives it its time budget and its circuit breaker and
/// turns every failure into a miss. The suite in `tests/cache/conformance.rs` holds for each tier.
pub trait Tier: Send + Sync + 'static {
    /// What answers, statistics and logs call it.
    fn name(&self) -> &'static str;

    /// Looks up many keys at once. Gives one [`Found`] per key, in the same order.
    fn get_many<'a>(&'a self, keys: &'a [Key]) -> TierFuture<'a, Result<Vec<Found>, TierError>>;

    /// Stores many entries at once and returns when they can be read; an entry takes the place of an older one. Of two
    /// with one key the last stays.
    fn put_many<'a>(&'a self, entries: &'a [(Key, Value)]) -> TierFuture<'a, Result<(), TierError>>;

    /// Tidies up what a store leaves behind while it is used. Called when no more is to be written for now; the tier may be used
    /// on.
    fn settle(&self) -> TierFuture<'_, Result<(), TierError>> {
        Box::pin(async { Ok(()) })
    }
}

/// What points to a tier is one.
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

// An `Arc`, so that a tier can be in a stack and in other hands too; a `Box`, so that the kind of tier can be chosen as it runs.
tier_behind!(Arc, Box);

/// What a tier has under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// This value.
    Hit(Value),
    /// Nothing, or something whose time is over.
    Miss,
    /// Something that is not an intact value; it counts as a miss and is overwritten by the next fill.
    Corrupt,
}

impl Found {
    /// What stored bytes are.
    #[must_use]
    pub fn read(stored: Bytes) -> Self {
        Value::decode(stored).map_or(Self::Corrupt, Self::Hit)
    }
}

/// Why a tier did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TierError {
    /// It cannot be reached, or failed. Try again later.
    #[error("the tier is unavailable: {}", with_sources(&**.0))]
    Unavailable(Arc<dyn StdError + Send + Sync>),
    /// There is nothing to open, and it was opened so that nothing is made ([`Access`](crate::Access)).
    #[error("there is no cache: {what}")]
    Missing {
        /// What is missing.
        what: String,
    },
    /// It takes no more: its bound is reached, or the disk is full. Reading still works.
    #[error("the tier is full")]
    Full,
    /// Too much waits for it. Try again at once, or do without.
    #[error("{max} operations wait for the tier already")]
    Busy {
        /// The bound on waiting operations.
        max: usize,
    },
}

/// What an error says, and what each of its sources adds to that: clients of databases keep the reason there.
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
    /// A failure with its cause.
    pub fn unavailable(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Unavailable(Arc::from(cause.into()))
    }
}
