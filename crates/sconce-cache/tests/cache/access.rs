//! Opening a database creates it only where the access allows that.

use std::path::Path;

use sconce_cache::{
    Access, ConfigError, Found, PostgresConfig, PostgresTier, Purge, SqliteConfig, SqliteOpenError, SqliteTier,
    StoredTier, Tier, TierError,
};

use crate::support::postgres::{Clients, PostgresServer};
use crate::support::{key, value};

fn open(path: &Path, access: Access) -> Result<SqliteTier, SqliteOpenError> {
    SqliteTier::open(&SqliteConfig { access, ..SqliteConfig::new(path) })
}

/// Checks a store with one entry that is opened read-only.
async fn is_read_and_not_written(tier: &dyn StoredTier) {
    assert_eq!(tier.get_many(&[key("one")]).await.expect("it can be read"), [Found::Hit(value("one"))]);
    assert_eq!(tier.usage().await.expect("it can be read").entries, 1);
    let error = tier.put_many(&[(key("two"), value("two"))]).await.expect_err("it is read only");
    assert!(matches!(&error, TierError::Unavailable(_)), "{error}");
    assert!(tier.purge(Purge::All).await.is_err());
    assert_eq!(tier.usage().await.expect("it can be read").entries, 1);
}

#[tokio::test]
async fn a_file_is_made_only_where_that_is_allowed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cache");
    for access in [Access::Existing, Access::ReadOnly] {
        let error = open(&path, access).err().unwrap();
        assert!(matches!(&error, SqliteOpenError::Missing { why: "there is no such file", .. }), "{error}");
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);
        std::fs::write(&path, "").unwrap();
        let error = open(&path, access).err().unwrap();
        assert!(matches!(&error, SqliteOpenError::Missing { why: "the file is empty", .. }), "{error}");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        std::fs::remove_file(&path).unwrap();
    }
    let made = open(&path, Access::Create).unwrap();
    made.put_many(&[(key("one"), value("one"))]).await.unwrap();
    is_read_and_not_written(&open(&path, Access::ReadOnly).unwrap()).await;
    let existing = open(&path, Access::Existing).unwrap();
    existing.put_many(&[(key("two"), value("two"))]).await.unwrap();
    assert_eq!(existing.purge(Purge::All).await.unwrap(), 2);
}

#[tokio::test]
async fn a_table_is_made_only_where_that_is_allowed() {
    let server = PostgresServer::start();
    let open = |access| PostgresTier::open(&PostgresConfig { access, ..server.config() }).unwrap();
    for access in [Access::Existing, Access::ReadOnly] {
        let tier = open(access);
        for error in [tier.ping().await.unwrap_err(), tier.usage().await.unwrap_err()] {
            assert!(matches!(&error, TierError::Missing { .. }), "{error}");
        }
    }
    open(Access::Create).put_many(&[(key("one"), value("one"))]).await.unwrap();
    is_read_and_not_written(&open(Access::ReadOnly)).await;
    assert_eq!(open(Access::Existing).purge(Purge::All).await.unwrap(), 1);
}

#[test]
fn what_is_no_file_to_sqlite_is_refused() {
    for path in ["", ":memory:"] {
        let error = SqliteTier::open(&SqliteConfig::new(path)).err().unwrap();
        assert!(matches!(&error, SqliteOpenError::Config(ConfigError { field: "path", .. })), "{error}");
    }
}

#[test]
fn a_file_that_cannot_be_opened_is_told_with_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("text");
    std::fs::write(&text, "certainly not a database ".repeat(100)).unwrap();
    let absent = directory.path().join("no/such");
    let table = [
        (directory.path().to_owned(), "it is a directory: give a file".to_owned()),
        (text, "give another file, or delete this one".to_owned()),
        (absent.join("file"), format!("there is no directory {}: make it", absent.display())),
    ];
    for (path, remedy) in table {
        let error = open(&path, Access::Create).err().unwrap().to_string();
        assert!(error.starts_with(&format!("{} cannot be opened: ", path.display())), "{error}");
        assert!(error.ends_with(&remedy), "{error}");
        assert_eq!(error.matches("cannot be opened").count(), 1, "{error}");
    }
}
