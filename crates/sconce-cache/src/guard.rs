//! A tier with its time budget, its breakers and its counts. Turns every failure of the tier into a miss.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::breaker::{Breaker, Outcome, Pass};
use crate::config::{BreakerConfig, TierConfig};
use crate::stats::{Counter, LatencyCounter, Lost, OperationStats, TierStats};
use crate::sync::{Mutex, MutexGuard};
use crate::tier::{Found, Tier, TierError};
use crate::{Key, Value};

pub(crate) struct Guarded {
    tier: Arc<dyn Tier>,
    pub(crate) config: TierConfig,
    reads: Gate,
    writes: Gate,
    hits: Counter,
    misses: Counter,
    corrupt: Counter,
    read_bytes: Counter,
    puts: Counter,
    written_bytes: Counter,
    lost: Counter,
}

impl Guarded {
    pub(crate) fn new(tier: Arc<dyn Tier>, config: TierConfig) -> Self {
        let gate = |operation| Gate::new(tier.name(), operation, config.breaker.clone());
        let (reads, writes) = (gate("read"), gate("write"));
        Self {
            tier,
            config,
            reads,
            writes,
            hits: Counter::default(),
            misses: Counter::default(),
            corrupt: Counter::default(),
            read_bytes: Counter::default(),
            puts: Counter::default(),
            written_bytes: Counter::default(),
            lost: Counter::default(),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.tier.name()
    }

    /// Looks up keys; returns one value or `None` per key. Never fails, and takes no longer than the budget.
    pub(crate) async fn get_many(&self, keys: &[Key]) -> Vec<Option<Value>> {
        let Some(found) = self.reads.pass(self.config.get_budget, self.tier.get_many(keys)).await else {
            return vec![None; keys.len()];
        };
        debug_assert_eq!(found.len(), keys.len(), "a tier answers each key");
        found.into_iter().map(|found| self.count(found)).collect()
    }

    fn count(&self, found: Found) -> Option<Value> {
        match found {
            Found::Hit(value) => {
                self.hits.add(1);
                self.read_bytes.add(value.encoded().len());
                return Some(value);
            }
            Found::Miss => self.misses.add(1),
            Found::Corrupt => self.corrupt.add(1),
        }
        None
    }

    /// Stores a batch; counts its entries as lost if that fails.
    pub(crate) async fn put_many(&self, entries: &[(Key, Value)]) {
        match self.writes.pass(self.config.put_budget, self.tier.put_many(entries)).await {
            Some(()) => {
                self.puts.add(entries.len());
                self.written_bytes.add(entries.iter().map(|(_, value)| value.encoded().len()).sum());
            }
            None => self.lost.add(entries.len()),
        }
    }

    pub(crate) async fn settle(&self) {
        if let Err(error) = self.tier.settle().await {
            tracing::debug!(tier = self.name(), %error, "a tier could not tidy up");
        }
    }

    /// Counts of the tier, without those of the queue in front of it.
    pub(crate) fn stats(&self) -> TierStats {
        TierStats {
            tier: self.name(),
            hits: self.hits.get(),
            misses: self.misses.get(),
            corrupt: self.corrupt.get(),
            read_bytes: self.read_bytes.get(),
            puts: self.puts.get(),
            written_bytes: self.written_bytes.get(),
            held_bytes: None,
            lost: Lost { failed: self.lost.get(), ..Lost::default() },
            reads: self.reads.stats(),
            writes: self.writes.stats(),
        }
    }
}

/// Budget, breaker and counts of one kind of operation.
struct Gate {
    tier: &'static str,
    operation: &'static str,
    breaker: Mutex<Breaker>,
    errors: Counter,
    timeouts: Counter,
    skipped: Counter,
    latency: LatencyCounter,
}

impl Gate {
    fn new(tier: &'static str, operation: &'static str, breaker: BreakerConfig) -> Self {
        Self {
            tier,
            operation,
            breaker: Mutex::new(Breaker::new(breaker)),
            errors: Counter::default(),
            timeouts: Counter::default(),
            skipped: Counter::default(),
            latency: LatencyCounter::default(),
        }
    }

    /// Tries an operation, if the breaker lets it pass. Returns `None` for every kind of failure.
    async fn pass<T>(&self, budget: Duration, operation: impl Future<Output = Result<T, TierError>>) -> Option<T> {
        let started = Instant::now();
        let Some(pass) = self.breaker().admit(started) else {
            self.skipped.add(1);
            return None;
        };
        let mut trial = Trial { gate: self, pass, outcome: Outcome::Unknown };
        let result = tokio::time::timeout(budget, operation).await;
        self.latency.record(started.elapsed());
        trial.outcome = Outcome::Failed;
        match result {
            Ok(Ok(output)) => {
                trial.outcome = Outcome::Good;
                Some(output)
            }
            Ok(Err(error)) => {
                self.errors.add(1);
                tracing::debug!(tier = self.tier, operation = self.operation, %error, "a tier failed");
                None
            }
            Err(_) => {
                self.timeouts.add(1);
                tracing::debug!(tier = self.tier, operation = self.operation, ?budget, "a tier was too slow");
                None
            }
        }
    }

    fn stats(&self) -> OperationStats {
        let breaker = self.breaker();
        OperationStats {
            errors: self.errors.get(),
            timeouts: self.timeouts.get(),
            skipped: self.skipped.get(),
            breaker: breaker.state(),
            opened: breaker.opened(),
            latency: self.latency.get(),
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().expect("no holder of this lock can panic")
    }
}

/// Tells the breaker the outcome of an operation, also if its future is dropped.
struct Trial<'a> {
    gate: &'a Gate,
    pass: Pass,
    outcome: Outcome,
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        let mut breaker = self.gate.breaker();
        let before = breaker.state();
        breaker.settle(self.pass, self.outcome, Instant::now());
        let after = breaker.state();
        drop(breaker);
        if before != after {
            // A warning, because operators should see it by default; it comes once per change.
            tracing::warn!(tier = self.gate.tier, operation = self.gate.operation, ?before, ?after, "breaker");
        }
    }
}
