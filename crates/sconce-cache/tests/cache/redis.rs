//! Promises of the Redis tier alone.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use redis::InfoDict;
use sconce_cache::{Found, RedisConfig, RedisTier, Tier, TierError};

use crate::support::redis::{Clients as _, RedisServer};
use crate::support::{key, keys, value};

fn info(connection: &mut redis::Connection, section: &str) -> InfoDict {
    redis::cmd("INFO").arg(section).query(connection).expect("the server answers")
}

fn calls(connection: &mut redis::Connection, command: &str) -> u64 {
    let line: Option<String> = info(connection, "commandstats").get(&format!("cmdstat_{command}"));
    let calls = line.as_deref().and_then(|line| line.strip_prefix("calls=")?.split(',').next()?.parse().ok());
    calls.unwrap_or(0)
}

/// Number of the server's reads from connections and writes to them. This query is one of each, counted by the next.
fn trips(connection: &mut redis::Connection) -> [u64; 2] {
    let info = info(connection, "stats");
    ["total_reads_processed", "total_writes_processed"].map(|name| info.get(name).expect("the server answers"))
}

#[tokio::test]
async fn a_batch_of_32_is_one_command_to_read_and_one_round_trip_either_way() {
    let server = RedisServer::start();
    let (tier, mut beside) = (server.tier().await, server.connection());
    let keys = keys("batch", 32);
    let entries: Vec<_> = keys.iter().map(|key| (*key, value("small"))).collect();

    let before = trips(&mut beside);
    tier.put_many(&entries).await.unwrap();
    let between = trips(&mut beside);
    let found = tier.get_many(&keys).await.unwrap();
    let after = trips(&mut beside);

    assert!(found.iter().all(|found| *found == Found::Hit(value("small"))));
    assert_eq!((calls(&mut beside, "set"), calls(&mut beside, "mget"), calls(&mut beside, "get")), (32, 1, 0));
    // One for the batch, one for the query before.
    assert_eq!([0, 1].map(|which| between[which] - before[which]), [2, 2]);
    assert_eq!([0, 1].map(|which| after[which] - between[which]), [2, 2]);
}

#[tokio::test]
async fn entries_stored_together_expire_apart_and_none_later_than_its_time() {
    let server = RedisServer::start();
    let config = RedisConfig { ttl: Duration::from_secs(1000), ttl_jitter: 0.5, ..server.config() };
    let tier = RedisTier::open(&config).unwrap();
    let keys = keys("jitter", 100);
    tier.put_many(&keys.iter().map(|key| (*key, value("x"))).collect::<Vec<_>>()).await.unwrap();
    let mut beside = server.connection();
    let mut left_s: Vec<i64> = keys
        .iter()
        .map(|key| redis::cmd("TTL").arg([b"sconce:", &key.as_bytes()[..]].concat()).query(&mut beside).unwrap())
        .collect();
    left_s.sort_unstable();
    assert!(left_s[0] >= 490 && left_s[99] <= 1000, "{left_s:?}");
    assert!(left_s[99] - left_s[0] > 200, "{left_s:?}");
}

#[tokio::test]
async fn a_full_redis_that_evicts_nothing_says_that_it_is_full() {
    let server = RedisServer::start_with(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]);
    let error = server.tier().await.put_many(&[(key("x"), value("x"))]).await.unwrap_err();
    assert!(matches!(error, TierError::Full), "{error}");
}

#[tokio::test]
async fn a_password_opens_and_its_absence_is_an_error_that_does_not_tell_it() {
    let server = RedisServer::start_with(&["--requirepass", "open sesame"]);
    let with = |address: String| RedisTier::open(&RedisConfig::new(address)).unwrap();
    let tier = with(format!("redis://:open%20sesame@127.0.0.1:{}", server.port()));
    tier.put_many(&[(key("x"), value("x"))]).await.unwrap();
    assert_eq!(tier.get_many(&[key("x")]).await.unwrap(), [Found::Hit(value("x"))]);
    assert!(with(server.url()).ping().await.is_err());
    let error = with(format!("redis://:wrong@127.0.0.1:{}", server.port())).ping().await.unwrap_err();
    assert!(!error.to_string().contains("wrong:") && !format!("{error:?}").contains(":wrong@"), "{error:?}");
}

#[tokio::test]
async fn tls_is_spoken_with_a_server_whose_certificate_is_trusted_and_with_no_other() {
    let directory = tempfile::tempdir().unwrap();
    make_certificates(directory.path());
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (certificate, secret, authority) = (file("server.pem"), file("server.key"), file("authority.pem"));
    let server = RedisServer::start_with(&[
        "--port",
        "0",
        "--tls-port",
        "{port}",
        "--tls-auth-clients",
        "no",
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &secret,
        "--tls-ca-cert-file",
        &authority,
    ]);
    let url = format!("rediss://127.0.0.1:{}", server.port());
    let trusting = RedisConfig { root_certificate: std::fs::read(authority).ok(), ..RedisConfig::new(&url) };
    let tier = RedisTier::open(&trusting).unwrap();
    tier.put_many(&[(key("x"), value("x"))]).await.unwrap();
    assert_eq!(tier.get_many(&[key("x")]).await.unwrap(), [Found::Hit(value("x"))]);
    let error = RedisTier::open(&RedisConfig::new(&url)).unwrap().ping().await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
}

/// Makes an authority, and its certificate for this machine.
fn make_certificates(directory: &Path) {
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        command.current_dir(directory).args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        let made = command.args(["-nodes", "-days", "2"]).args(arguments.split(' ')).output();
        let made = made.expect("openssl is not installed; install it: apt-get install openssl");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    openssl("-keyout authority.key -out authority.pem -subj /CN=authority");
    openssl(
        "-CA authority.pem -CAkey authority.key -keyout server.key -out server.pem -subj /CN=server \
         -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE",
    );
}
