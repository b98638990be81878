//! The Postgres tier: a table that replicas share.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, NoTls};

use crate::access::Access;
use crate::config::{ConfigError, size, time, ttl};
use crate::tier::{Found, Tier, TierError, TierFuture};
use crate::{Key, Value};

mod stored;

/// Makes the table unless it exists. The lock keeps two replicas from making it at once, which Postgres answers with an
/// error even with `IF NOT EXISTS`; its number is the ASCII codes of `sconce`.
const MAKE_TABLE: &str = "
    BEGIN;
    SELECT pg_advisory_xact_lock(126879466808165);
    CREATE TABLE IF NOT EXISTS sconce_entries (key bytea PRIMARY KEY, expires timestamptz, value bytea NOT NULL);
    CREATE INDEX IF NOT EXISTS sconce_entries_expires ON sconce_entries (expires) WHERE expires IS NOT NULL;
    COMMIT
";
const HAS_TABLE: &str = "SELECT to_regclass('sconce_entries') IS NOT NULL";

const NO_TABLE: &str = "the database has no table sconce_entries";
const READ_ONLY: &str = "SET default_transaction_read_only = on";

const SELECT: &str =
    "SELECT key, value FROM sconce_entries WHERE key = any($1) AND (expires IS NULL OR expires > now())";
/// Writes many entries. Expiry goes by the server's clock, so replicas need not agree on the time.
const UPSERT: &str = "
    INSERT INTO sconce_entries (key, value, expires)
    SELECT key, value, now() + $3::float8 * interval '1 second' FROM unnest($1::bytea[], $2::bytea[]) AS new (key, value)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = excluded.expires
";
/// Deletes some expired rows with every write, except rows that another replica is deleting.
const SWEEP: &str = "
    DELETE FROM sconce_entries WHERE key IN (
        SELECT key FROM sconce_entries WHERE expires <= now() ORDER BY expires LIMIT 256 FOR UPDATE SKIP LOCKED
    )
";

/// Largest number of connections: more than a Postgres serves well.
const MAX_CONNECTIONS: usize = 4096;

/// Address of the Postgres, and settings of its connections and entries.
#[derive(Clone)]
pub struct PostgresConfig {
    /// `postgres://user:password@host:port/database`, or `key=value` pairs as libpq takes them. Connections are not
    /// encrypted: use it within a private network or through a proxy that encrypts.
    pub address: String,
    /// Access to the table: whether it is created if it does not exist, and whether it is written.
    pub access: Access,
    /// Time to live of an entry, 1 ms to 100 years; `None` for ever. Nothing else bounds the size of the table.
    pub ttl: Option<Duration>,
    /// Number of connections; 1 to 4,096. Too few: lookups wait for each other. Too many: other clients of the database
    /// get none.
    pub max_connections: usize,
    /// Time for connecting, and for waiting for a free connection; more than zero and at most a day.
    pub connect_timeout: Duration,
}

impl PostgresConfig {
    /// The default settings: entries stay for ever; 8 connections; 1 s to connect.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            access: Access::default(),
            ttl: None,
            max_connections: 8,
            connect_timeout: Duration::from_secs(1),
        }
    }
}

/// Formats the settings without the address, which may hold a password.
impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig").field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

/// Reasons for which a Postgres tier cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresOpenError {
    /// A field is out of bounds.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address is malformed.
    #[error("not an address of a Postgres: {0}")]
    Address(#[source] tokio_postgres::Error),
    /// The pool cannot be made.
    #[error("no pool of connections: {0}")]
    Pool(#[source] deadpool_postgres::BuildError),
}

/// The Postgres tier: a pool of connections, one query for many keys and one for many entries.
#[derive(Clone)]
pub struct PostgresTier {
    pool: Pool,
    ttl: Option<Duration>,
}

impl PostgresTier {
    /// Opens the tier; does not connect yet. The first connection makes the table `sconce_entries` unless it exists, if
    /// [`access`](PostgresConfig::access) allows it.
    ///
    /// # Errors
    /// [`PostgresOpenError`] if a value is out of bounds or the address is malformed.
    pub fn open(config: &PostgresConfig) -> Result<Self, PostgresOpenError> {
        size("max_connections", config.max_connections, MAX_CONNECTIONS)?;
        time("connect_timeout", config.connect_timeout)?;
        config.ttl.map_or(Ok(()), |time| ttl("ttl", time))?;
        let mut address = Config::from_str(&config.address).map_err(PostgresOpenError::Address)?;
        address.connect_timeout(config.connect_timeout);
        // So that a peer that is gone without closing is noticed.
        address.tcp_user_timeout(Duration::from_secs(5));
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let access = config.access;
        let pool = Pool::builder(Manager::from_config(address, NoTls, recycling))
            .max_size(config.max_connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(config.connect_timeout))
            .create_timeout(Some(config.connect_timeout))
            .post_create(Hook::async_fn(move |client, _| Box::pin(begin(client, access))))
            .build()
            .map_err(PostgresOpenError::Pool)?;
        Ok(Self { pool, ttl: config.ttl })
    }

    /// Connects, if there is no connection yet. For use before the first request is served.
    ///
    /// # Errors
    /// [`TierError::Unavailable`] if that fails, [`TierError::Missing`] if there is no table and the access does not
    /// allow creating one.
    pub async fn ping(&self) -> Result<(), TierError> {
        self.client().await.map(drop)
    }

    async fn client(&self) -> Result<Object, TierError> {
        self.pool.get().await.map_err(|error| match error {
            PoolError::PostCreateHook(HookError::Message(what)) => TierError::Missing { what: what.into_owned() },
            error => TierError::unavailable(error),
        })
    }

    async fn select(&self, keys: &[Key]) -> Result<Vec<Found>, TierError> {
        let client = self.client().await?;
        let wanted: Vec<&[u8]> = keys.iter().map(|key| &key.as_bytes()[..]).collect();
        let statement = client.prepare_cached(SELECT).await.map_err(tier_error)?;
        let rows = client.query(&statement, &[&wanted]).await.map_err(tier_error)?;
        let mut found = HashMap::with_capacity(rows.len());
        for row in &rows {
            let (key, value): (&[u8], &[u8]) =
                (row.try_get(0).map_err(tier_error)?, row.try_get(1).map_err(tier_error)?);
            found.insert(key, Found::read(Bytes::copy_from_slice(value)));
        }
        Ok(keys.iter().map(|key| found.get(&key.as_bytes()[..]).cloned().unwrap_or(Found::Miss)).collect())
    }

    async fn upsert(&self, entries: &[(Key, Value)]) -> Result<(), TierError> {
        // A map, because one statement cannot write a row twice; and sorted, because writers that lock rows in the same
        // order cannot deadlock.
        let sorted: BTreeMap<&Key, &Value> = entries.iter().map(|(key, value)| (key, value)).collect();
        let keys: Vec<&[u8]> = sorted.keys().map(|key| &key.as_bytes()[..]).collect();
        let values: Vec<&[u8]> = sorted.values().map(|value| &value.encoded()[..]).collect();
        let ttl_s = self.ttl.map(|ttl| ttl.as_secs_f64());
        let client = self.client().await?;
        if self.ttl.is_some() {
            let sweep = client.prepare_cached(SWEEP).await.map_err(tier_error)?;
            client.execute(&sweep, &[]).await.map_err(tier_error)?;
        }
        let statement = client.prepare_cached(UPSERT).await.map_err(tier_error)?;
        client.execute(&statement, &[&keys, &values, &ttl_s]).await.map(drop).map_err(tier_error)
    }
}

impl Tier for PostgresTier {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn get_many<'a>(&'a self, keys: &'a [Key]) -> TierFuture<'a, Result<Vec<Found>, TierError>> {
        Box::pin(self.select(keys))
    }

    fn put_many<'a>(&'a self, entries: &'a [(Key, Value)]) -> TierFuture<'a, Result<(), TierError>> {
        Box::pin(self.upsert(entries))
    }
}

/// Prepares a new connection: creates the table, or checks that it exists, as `access` says.
async fn begin(client: &tokio_postgres::Client, access: Access) -> Result<(), HookError> {
    // Checked first, because a role may be allowed to use the table and not to make it.
    let row = client.query_one(HAS_TABLE, &[]).await.map_err(HookError::Backend)?;
    let has_table: bool = row.try_get(0).map_err(HookError::Backend)?;
    let statement = match (access, has_table) {
        (Access::Create, false) => MAKE_TABLE,
        (Access::Existing | Access::ReadOnly, false) => return Err(HookError::message(NO_TABLE)),
        (Access::Create | Access::Existing, true) => return Ok(()),
        (Access::ReadOnly, true) => READ_ONLY,
    };
    client.batch_execute(statement).await.map_err(HookError::Backend)
}

fn tier_error(error: tokio_postgres::Error) -> TierError {
    if error.code() == Some(&SqlState::DISK_FULL) { TierError::Full } else { TierError::unavailable(error) }
}
