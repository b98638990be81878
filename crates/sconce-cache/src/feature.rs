//! A cache of prepared inputs, so that an input is prepared once even where the result cannot be cached.

use std::sync::Arc;

use moka::sync::Cache;

use crate::config::{ConfigError, size};
use crate::flight::{Boarded, Flights, FollowerOutcome};
use crate::stats::Counter;
use crate::{Digest, Key};

/// A cache of prepared inputs (tokens, a decoded image), by the input and the way of preparing it, bounded by bytes.
/// Preparing fails with `E`; failures are not kept.
///
/// ```
/// use sconce_cache::{Digest, FeatureCache};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let words: FeatureCache<Vec<String>, std::str::Utf8Error> = FeatureCache::new(1 << 20, |words: &Vec<String>| {
///     words.iter().map(String::len).sum()
/// })?;
/// let (how, text) = (Digest::of(b"split at spaces"), b"a candle");
/// for _ in 0..2 {
///     let split = || async { Ok(std::str::from_utf8(text)?.split(' ').map(str::to_owned).collect()) };
///     assert_eq!(words.get_or_prepare(how, text, split).await?, ["a", "candle"]);
/// }
/// assert_eq!((words.stats().hits, words.stats().misses), (1, 1));
/// # Ok(())
/// # }
/// ```
pub struct FeatureCache<T, E> {
    features: Cache<Key, T>,
    flights: Flights<Result<T, Arc<E>>, ()>,
    hits: Counter,
    misses: Counter,
    shared: Counter,
}

/// Counts of a feature cache since it was made, and its size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeatureStats {
    /// Inputs that were prepared already.
    pub hits: u64,
    /// Inputs that had to be prepared.
    pub misses: u64,
    /// Callers that got the input that another caller prepared.
    pub shared: u64,
    /// Inputs that the cache holds, as of the last eviction.
    pub held: u64,
    /// Bytes of these inputs, keys and overhead included.
    pub held_bytes: u64,
}

impl<T, E> FeatureCache<T, E>
where
    T: Clone + Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// Estimated bytes that an entry takes besides its feature.
    pub const OVERHEAD: usize = 232;

    /// Makes a cache of at most `max_bytes`; `weigh` returns the bytes that a feature takes.
    ///
    /// # Errors
    /// [`ConfigError`] for a bound of zero.
    pub fn new(max_bytes: u64, weigh: impl Fn(&T) -> usize + Send + Sync + 'static) -> Result<Self, ConfigError> {
        size("max_bytes", usize::try_from(max_bytes).unwrap_or(usize::MAX), usize::MAX)?;
        let features = Cache::builder()
            .max_capacity(max_bytes)
            // A feature of 4 GiB or more counts as 4 GiB.
            .weigher(move |_, feature| u32::try_from(weigh(feature).saturating_add(Self::OVERHEAD)).unwrap_or(u32::MAX))
            .build();
        let (hits, misses, shared) = (Counter::default(), Counter::default(), Counter::default());
        Ok(Self { features, flights: Flights::new(), hits, misses, shared })
    }

    /// Looks up the prepared `input`, or prepares it; `processing` is the digest of everything else that `prepare`
    /// depends on. Concurrent callers prepare it once; if the caller that prepares goes away, another takes over.
    ///
    /// # Errors
    /// The error of `prepare`, shared by all callers that waited for it.
    pub async fn get_or_prepare<P, F>(&self, processing: Digest, input: &[u8], prepare: P) -> Result<T, Arc<E>>
    where
        P: FnOnce() -> F + Send,
        F: Future<Output = Result<T, E>> + Send,
    {
        let key = key(processing, input);
        if let Some(feature) = self.features.get(&key) {
            self.hits.add(1);
            return Ok(feature);
        }
        let lead = match self.flights.board(key, ()) {
            Boarded::Leads(lead) => lead,
            Boarded::Waits(waiting) => match waiting.outcome().await {
                FollowerOutcome::Leads(lead) => lead,
                FollowerOutcome::Landed(outcome) => {
                    self.shared.add(1);
                    return outcome;
                }
            },
        };
        // Another flight may have landed between the lookup above and the start of this one.
        let outcome = if let Some(feature) = self.features.get(&key) {
            self.hits.add(1);
            Ok(feature)
        } else {
            self.misses.add(1);
            prepare().await.inspect(|feature| self.features.insert(key, feature.clone())).map_err(Arc::new)
        };
        lead.land(&outcome);
        outcome
    }

    /// Looks up or prepares an input as [`get_or_prepare`](Self::get_or_prepare) does, for a thread that may block.
    /// Does not wait for other callers that prepare the same input.
    ///
    /// # Errors
    /// The error of `prepare`.
    pub fn get_or_prepare_blocking(
        &self,
        processing: Digest,
        input: &[u8],
        prepare: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let key = key(processing, input);
        if let Some(feature) = self.features.get(&key) {
            self.hits.add(1);
            return Ok(feature);
        }
        self.misses.add(1);
        prepare().inspect(|feature| self.features.insert(key, feature.clone()))
    }

    /// Counts since the cache was made, and its size.
    #[must_use]
    pub fn stats(&self) -> FeatureStats {
        FeatureStats {
            hits: self.hits.get(),
            misses: self.misses.get(),
            shared: self.shared.get(),
            held: self.features.entry_count(),
            held_bytes: self.features.weighted_size(),
        }
    }

    /// Runs the evictions that are due now, which otherwise run during the next operations.
    pub fn tidy_up(&self) {
        self.features.run_pending_tasks();
    }
}

/// Digests `processing` and `input`. The first has a fixed length, so different pairs are different bytes.
fn key(processing: Digest, input: &[u8]) -> Key {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&processing.0);
    hasher.update(input);
    Key::from_bytes(*hasher.finalize().as_bytes())
}
