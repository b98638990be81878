//! Single flight across replicas: one replica computes, the others wait for its result, within a bound.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use crate::Key;
use crate::breaker::{Breaker, Outcome, Pass};
use crate::config::{BreakerConfig, ConfigError, lease, time, time_or_none};
use crate::sync::{Mutex, MutexGuard};
use crate::tier::{TierError, TierFuture};

/// Identifier of one holder of a lock.
pub type Token = [u8; 16];

/// A lock with a lease that replicas share.
pub trait Leases: Send + Sync + 'static {
    /// Takes the lock of `key` for `lease`; returns false if another holder has it.
    fn try_acquire<'a>(
        &'a self,
        key: &'a Key,
        token: Token,
        lease: Duration,
    ) -> TierFuture<'a, Result<bool, TierError>>;

    /// Releases the lock, if `token` still holds it.
    fn release<'a>(&'a self, key: &'a Key, token: Token) -> TierFuture<'a, Result<(), TierError>>;
}

/// Times for which replicas wait for each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaConfig {
    /// Time that a replica may take to compute and store before another may start: 1 ms to a day. Too short: work is done
    /// twice. Too long: after a crash, waiting replicas wait in vain, up to `max_wait`.
    pub lease: Duration,
    /// Time that a replica waits for another's result before it computes by itself: zero to a day. Too short: work is
    /// done twice. Longer than computing takes: the wait can only lose time.
    pub max_wait: Duration,
    /// Time between the first two lookups while a replica waits; later pauses double, up to ten times this. At most a
    /// day. Too short: Redis is asked too often. Too long: a result is found late.
    pub poll: Duration,
    /// Time for taking the lock, at most a day; after it the replica computes without the lock.
    pub budget: Duration,
    /// Breaker for taking locks, so that a dead Redis costs `budget` only a few times.
    pub breaker: BreakerConfig,
}

/// A lease of 5 s; waits of up to 1 s, with the first lookup after 5 ms; 10 ms to take the lock.
impl Default for ReplicaConfig {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(5),
            max_wait: Duration::from_secs(1),
            poll: Duration::from_millis(5),
            budget: Duration::from_millis(10),
            breaker: BreakerConfig::default(),
        }
    }
}

impl ReplicaConfig {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        lease("lease", self.lease)?;
        time_or_none("max_wait", self.max_wait)?;
        time("poll", self.poll)?;
        time("budget", self.budget)?;
        self.breaker.validate()
    }
}

/// The outcome of asking for the lease of a key that no tier has.
pub(crate) enum LeaseOutcome<T> {
    /// Another replica computed this value.
    Found(T),
    /// This replica must compute. It holds the lease, if there is one, until the result is stored.
    Compute(Option<Lease>),
}

/// The agreement with other replicas.
pub(crate) struct Replicas {
    leases: Arc<dyn Leases>,
    config: ReplicaConfig,
    breaker: Mutex<Breaker>,
    runtime: Handle,
}

impl Replicas {
    pub(crate) fn new(leases: Arc<dyn Leases>, config: ReplicaConfig, runtime: Handle) -> Self {
        let breaker = Mutex::new(Breaker::new(config.breaker.clone()));
        Self { leases, config, breaker, runtime }
    }

    /// Takes the lock, or waits for the result of the replica that has it, which `look` looks up.
    pub(crate) async fn lease_or_wait<T, F>(&self, key: Key, look: impl Fn() -> F) -> LeaseOutcome<T>
    where
        F: Future<Output = Option<T>>,
    {
        let give_up = Instant::now() + self.config.max_wait;
        let mut pause = self.config.poll;
        let mut waited = false;
        loop {
            match self.try_acquire(key).await {
                // The last holder may have stored its result between our lookup and its release.
                Ok(Some(lease)) if waited => {
                    return look().await.map_or(LeaseOutcome::Compute(Some(lease)), LeaseOutcome::Found);
                }
                Ok(Some(lease)) => return LeaseOutcome::Compute(Some(lease)),
                Err(NoLocks) => return LeaseOutcome::Compute(None),
                Ok(None) if Instant::now() + pause > give_up => return LeaseOutcome::Compute(None),
                Ok(None) => {}
            }
            tokio::time::sleep(pause).await;
            waited = true;
            pause = (pause * 2).min(self.config.poll * 10);
            if let Some(found) = look().await {
                return LeaseOutcome::Found(found);
            }
        }
    }

    async fn try_acquire(&self, key: Key) -> Result<Option<Lease>, NoLocks> {
        let pass = self.breaker().admit(Instant::now()).ok_or(NoLocks)?;
        let token: Token = rand::random();
        // Made before the lock is taken: if this future is dropped half-way, or its time runs out, the lock may have been
        // taken nevertheless, and is released.
        let lease = Lease { leases: Arc::clone(&self.leases), key, token, runtime: self.runtime.clone(), taken: true };
        let mut settle = Settle { replicas: self, pass, outcome: Outcome::Unknown };
        let acquired =
            tokio::time::timeout(self.config.budget, self.leases.try_acquire(&key, token, self.config.lease)).await;
        settle.outcome = if matches!(acquired, Ok(Ok(_))) { Outcome::Good } else { Outcome::Failed };
        match acquired {
            Ok(Ok(true)) => Ok(Some(lease)),
            Ok(Ok(false)) => {
                lease.forget();
                Ok(None)
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "no lock could be taken");
                lease.forget();
                Err(NoLocks)
            }
            Err(_) => Err(NoLocks),
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().expect("no holder of this lock can panic")
    }
}

/// Locks cannot be taken at the moment: every replica computes.
struct NoLocks;

/// Tells the breaker the outcome of an operation, also if its future is dropped.
struct Settle<'a> {
    replicas: &'a Replicas,
    pass: Pass,
    outcome: Outcome,
}

impl Drop for Settle<'_> {
    fn drop(&mut self) {
        self.replicas.breaker().settle(self.pass, self.outcome, Instant::now());
    }
}

/// A held lock; released when dropped.
pub(crate) struct Lease {
    leases: Arc<dyn Leases>,
    key: Key,
    token: Token,
    runtime: Handle,
    taken: bool,
}

impl Lease {
    /// Drops the lease without a release, because the lock was not taken.
    fn forget(mut self) {
        self.taken = false;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.taken {
            return;
        }
        let (leases, key, token) = (Arc::clone(&self.leases), self.key, self.token);
        self.runtime.spawn(async move {
            // If the release fails the lease runs out.
            if let Err(error) = leases.release(&key, token).await {
                tracing::debug!(%error, "a lock could not be given back");
            }
        });
    }
}
