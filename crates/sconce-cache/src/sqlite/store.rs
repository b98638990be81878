//! The file: its settings, its one table, its version.

use std::time::{Duration, SystemTime};

use rusqlite::{Connection, OpenFlags};

use super::{SqliteConfig, SqliteOpenError, unusable};
use crate::access::Access;

const SCHEMA_VERSION: i64 = 1;
const PAGE_BYTES: u64 = 8192;

/// The table. The id is the beginning of the key, so that a row is found by one descent of one tree; of two keys that
/// share an id, the later takes the row. Only rows that can expire are in the index.
const SCHEMA: &str = "
    CREATE TABLE entries (
        id INTEGER PRIMARY KEY,
        key BLOB NOT NULL,
        expires_ms INTEGER,
        value BLOB NOT NULL
    );
    CREATE INDEX expiring ON entries (expires_ms) WHERE expires_ms IS NOT NULL;
    PRAGMA user_version = 1;
";

/// Opens the file for the thread that writes, and makes its table if there is none and the access allows it.
pub(super) fn open_to_write(config: &SqliteConfig) -> Result<Connection, SqliteOpenError> {
    let failed = unusable(&config.path);
    match config.access {
        Access::Create => {}
        Access::Existing => must_exist(config)?,
        Access::ReadOnly => {
            must_exist(config)?;
            return open_to_read(config);
        }
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(&config.path, flags).map_err(&failed)?;
    // Another process may write at the same time; the stack's budget bounds the wait of callers.
    connection.busy_timeout(Duration::from_secs(1)).map_err(&failed)?;
    // Checked before anything is changed, because it may be another application's file.
    check(&connection, config)?;
    // The size of a page can only be set before the first page exists.
    connection.pragma_update(None, "page_size", PAGE_BYTES).map_err(&failed)?;
    connection.pragma_update(None, "journal_mode", "wal").map_err(&failed)?;
    // A power failure may lose the last entries of a cache, but does not damage the file.
    connection.pragma_update(None, "synchronous", "normal").map_err(&failed)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20).map_err(&failed)?;
    connection.pragma_update(None, "max_page_count", config.max_bytes / PAGE_BYTES).map_err(&failed)?;
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(&failed)?;
    // Another process may have made the table in the meantime.
    if check(&transaction, config)? == Tables::None {
        transaction.execute_batch(SCHEMA).map_err(&failed)?;
    }
    transaction.commit().map_err(&failed)?;
    Ok(connection)
}

/// Checks that the table exists, without changing anything and without creating a file.
fn must_exist(config: &SqliteConfig) -> Result<(), SqliteOpenError> {
    let missing = |why| Err(SqliteOpenError::Missing { path: config.path.clone(), why });
    if matches!(config.path.try_exists(), Ok(false)) {
        return missing("there is no such file");
    }
    let connection = open_to_read(config)?;
    // Another process may be making the table right now.
    connection.busy_timeout(Duration::from_secs(1)).map_err(unusable(&config.path))?;
    match check(&connection, config)? {
        Tables::Ours => Ok(()),
        Tables::None => missing("the file is empty"),
    }
}

#[derive(PartialEq)]
enum Tables {
    None,
    Ours,
}

fn check(connection: &Connection, config: &SqliteConfig) -> Result<Tables, SqliteOpenError> {
    let query = |sql| connection.query_row(sql, [], |row| row.get(0)).map_err(unusable(&config.path));
    let (tables, version): (i64, i64) = (query("SELECT count(*) FROM sqlite_schema")?, query("PRAGMA user_version")?);
    match (tables, version) {
        (0, 0) => Ok(Tables::None),
        (1.., SCHEMA_VERSION) => Ok(Tables::Ours),
        _ => Err(SqliteOpenError::Foreign { path: config.path.clone(), found: version }),
    }
}

/// Opens the file, which must exist, for a thread that reads.
pub(super) fn open_to_read(config: &SqliteConfig) -> Result<Connection, SqliteOpenError> {
    let failed = unusable(&config.path);
    // Each connection is used by one thread at a time, so SQLite needs no locks of its own.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&config.path, flags).map_err(&failed)?;
    connection.busy_timeout(Duration::ZERO).map_err(&failed)?;
    connection.pragma_update(None, "query_only", true).map_err(&failed)?;
    // SQLite takes sizes of 63 bits.
    let mmap_bytes = i64::try_from(config.mmap_bytes).unwrap_or(i64::MAX);
    connection.pragma_update(None, "mmap_size", mmap_bytes).map_err(&failed)?;
    Ok(connection)
}

/// The current time as in the table: milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
