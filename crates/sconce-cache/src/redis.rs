//! The Redis tier, which replicas share.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, ConnectionInfo, IntoConnectionInfo, RedisError};

use crate::config::{ConfigError, time, ttl};
use crate::tier::{Found, Tier, TierError, TierFuture};
use crate::{Key, Value};

mod lease;
mod stored;

/// Address of the Redis, and settings of its entries.
///
/// The Redis must be one node, or a proxy that looks like one: a batch is a single `MGET`, which Redis Cluster refuses across
/// slots.
#[derive(Clone)]
pub struct RedisConfig {
    /// `redis://[user][:password]@host[:port][/database]`; `rediss://` for TLS (feature `redis-tls`); `unix:///path`.
    pub url: String,
    /// Prefix of each key, so that several services can share a Redis.
    pub prefix: String,
    /// Time to live of an entry: 1 ms to 100 years. Too short: values are computed again. Too long: memory is spent on
    /// values that nobody asks for.
    pub ttl: Duration,
    /// Largest part of `ttl`, 0 to 1, by which an entry may expire earlier, so that entries stored in one burst do not
    /// expire in one burst.
    pub ttl_jitter: f64,
    /// Time for connecting; more than zero and at most a day.
    pub connect_timeout: Duration,
    /// Time for an operation, where no stack gives it a shorter budget; more than zero and at most a day.
    pub timeout: Duration,
    /// The certificate of the authority to trust for `rediss://`, in PEM, instead of the public ones.
    pub root_certificate: Option<Vec<u8>>,
}

impl RedisConfig {
    /// The default settings: the prefix `sconce:`, a time to live of 22 to 24 hours, 1 s to connect, 5 s for an operation.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: "sconce:".to_owned(),
            ttl: Duration::from_hours(24),
            ttl_jitter: 0.1,
            connect_timeout: Duration::from_secs(1),
            timeout: Duration::from_secs(5),
            root_certificate: None,
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        time("connect_timeout", self.connect_timeout)?;
        time("timeout", self.timeout)?;
        ttl("ttl", self.ttl)?;
        if !(0.0..=1.0).contains(&self.ttl_jitter) {
            let allowed = "between 0 and 1".to_owned();
            return Err(ConfigError { field: "ttl_jitter", value: self.ttl_jitter.to_string(), allowed });
        }
        Ok(())
    }
}

/// Formats the settings without the address, which may hold a password.
impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig").field("prefix", &self.prefix).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

/// Reasons for which a Redis tier cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedisOpenError {
    /// A field is out of bounds.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address or the certificate is malformed, or needs a feature that was not compiled in.
    #[error("not an address of a Redis: {0}")]
    Address(#[source] RedisError),
}

/// The Redis tier: one connection, on which the operations of all callers are in flight together.
///
/// Connects with the first operation, and again in the background when the connection is lost.
#[derive(Clone)]
pub struct RedisTier {
    connection: ConnectionManager,
    prefix: String,
    ttl: Duration,
    ttl_jitter: f64,
}

impl RedisTier {
    /// Opens the tier; does not connect yet. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`RedisOpenError`] if a value is out of bounds or the address is malformed.
    pub fn open(config: &RedisConfig) -> Result<Self, RedisOpenError> {
        config.validate()?;
        let client = client(config).map_err(RedisOpenError::Address)?;
        let manager = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(config.connect_timeout))
            .set_response_timeout(Some(config.timeout))
            // No retries here, because the breaker decides when to try again.
            .set_number_of_retries(0);
        let connection = ConnectionManager::new_lazy_with_config(client, manager).map_err(RedisOpenError::Address)?;
        Ok(Self { connection, prefix: config.prefix.clone(), ttl: config.ttl, ttl_jitter: config.ttl_jitter })
    }

    /// Connects, if there is no connection yet, and waits for an answer. For use before the first request is served.
    ///
    /// # Errors
    /// [`TierError::Unavailable`] if there is no answer.
    pub async fn ping(&self) -> Result<(), TierError> {
        redis::cmd("PING").query_async(&mut self.connection.clone()).await.map_err(TierError::unavailable)
    }

    fn name_of(&self, key: &Key) -> Vec<u8> {
        [self.prefix.as_bytes(), key.as_bytes()].concat()
    }

    async fn mget(&self, keys: &[Key]) -> Result<Vec<Found>, RedisError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = redis::cmd("MGET");
        for key in keys {
            command.arg(self.name_of(key));
        }
        let stored: Vec<Option<Vec<u8>>> = command.query_async(&mut self.connection.clone()).await?;
        Ok(stored
            .into_iter()
            .map(|stored| stored.map_or(Found::Miss, |bytes| Found::read(Bytes::from(bytes))))
            .collect())
    }

    async fn set(&self, entries: &[(Key, Value)]) -> Result<(), RedisError> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut pipeline = redis::pipe();
        for (key, value) in entries {
            let ttl = jittered(self.ttl, self.ttl_jitter, rand::random());
            pipeline.cmd("SET").arg(self.name_of(key)).arg(&value.encoded()[..]).arg("PX").arg(millis(ttl)).ignore();
        }
        pipeline.query_async(&mut self.connection.clone()).await
    }
}

impl Tier for RedisTier {
    fn name(&self) -> &'static str {
        "redis"
    }

    /// Looks up all keys with one `MGET`.
    fn get_many<'a>(&'a self, keys: &'a [Key]) -> TierFuture<'a, Result<Vec<Found>, TierError>> {
        Box::pin(async { self.mget(keys).await.map_err(TierError::unavailable) })
    }

    /// Stores all entries with one pipeline of `SET … PX`.
    fn put_many<'a>(&'a self, entries: &'a [(Key, Value)]) -> TierFuture<'a, Result<(), TierError>> {
        Box::pin(async {
            self.set(entries)
                .await
                .map_err(|error| if is_out_of_memory(&error) { TierError::Full } else { TierError::unavailable(error) })
        })
    }
}

/// Returns true if `maxmemory` is reached and the policy evicts nothing.
fn is_out_of_memory(error: &RedisError) -> bool {
    let errors = error.clone().into_server_errors();
    errors.is_some_and(|errors| errors.iter().any(|(_, error)| error.code() == "OOM"))
}

fn client(config: &RedisConfig) -> Result<Client, RedisError> {
    let address = config.url.as_str().into_connection_info()?;
    // No delay, because callers wait for the answer; a timeout, so that a peer that is gone without closing is noticed.
    let tcp = address.tcp_settings().clone().set_nodelay(true);
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(config.timeout);
    connect_to(address.set_tcp_settings(tcp), config)
}

#[cfg(feature = "redis-tls")]
fn connect_to(address: ConnectionInfo, config: &RedisConfig) -> Result<Client, RedisError> {
    if !config.url.starts_with("rediss:") {
        return Client::open(address);
    }
    // A provider that the process has installed already stays in use.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        rustls::crypto::ring::default_provider().install_default().ok();
    }
    let root_cert = config.root_certificate.clone();
    Client::build_with_tls(address, redis::TlsCertificates { client_tls: None, root_cert })
}

#[cfg(not(feature = "redis-tls"))]
fn connect_to(address: ConnectionInfo, _: &RedisConfig) -> Result<Client, RedisError> {
    Client::open(address)
}

/// Shortens `ttl` by the part `jitter` · `random`, where `random` is 0 to 1. At least a millisecond, as Redis demands.
fn jittered(ttl: Duration, jitter: f64, random: f64) -> Duration {
    ttl.mul_f64(1.0 - jitter * random).max(Duration::from_millis(1))
}

fn millis(time: Duration) -> u64 {
    // Half a billion years fit.
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_only_shortens_and_never_to_nothing() {
        let ttl = Duration::from_secs(100);
        assert_eq!(jittered(ttl, 0.1, 0.0), ttl);
        assert_eq!(jittered(ttl, 0.1, 1.0), Duration::from_secs(90));
        assert_eq!(jittered(ttl, 1.0, 1.0), Duration::from_millis(1));
    }

    #[tokio::test]
    async fn a_configuration_that_cannot_be_right_is_refused_before_anything_connects() {
        let good = || RedisConfig::new("redis://localhost");
        let message = |config| RedisTier::open(&config).err().expect("it is refused").to_string();
        let config = RedisConfig { ttl_jitter: 1.5, ..good() };
        assert_eq!(message(config), "ttl_jitter is 1.5, but must be between 0 and 1");
        let config = RedisConfig { ttl: Duration::ZERO, ..good() };
        assert_eq!(message(config), "ttl is 0ns, but must be at least 1ms");
        let config = RedisConfig { ttl: Duration::MAX, ttl_jitter: 0.0, ..good() };
        assert!(message(config).ends_with("but must be at most 3153600000s"));
        let config = RedisConfig { timeout: Duration::MAX, ..good() };
        assert!(message(config).ends_with("but must be at most 86400s"));
        assert!(message(RedisConfig::new("postgres://localhost")).starts_with("not an address of a Redis: "));
    }

    #[test]
    fn a_password_is_never_printed() {
        let config = RedisConfig::new("redis://:secret@localhost");
        assert!(!format!("{config:?}").contains("secret"));
    }
}
