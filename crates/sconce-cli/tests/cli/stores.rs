//! `sconce cache`, on a real Redis, a real Postgres and SQLite.

use std::collections::BTreeSet;

use sconce_test_servers::{PostgresServer, RedisServer};

use crate::command::{ended, path};
use crate::serve::{Server, sources};

/// Entries of the tiers in the order of their rows.
pub(crate) fn entries(tiers: &[&str]) -> Vec<u64> {
    let stats = ended(&[&["cache", "stats", "--json"], tiers].concat(), b"").succeeded();
    stats.objects().iter().map(|row| row["entries"].as_u64().expect("a count")).collect()
}

#[tokio::test]
async fn tiers_are_counted_copied_to_nearer_ones_and_purged() {
    let (redis, postgres) = (RedisServer::start(), PostgresServer::start());
    let directory = tempfile::tempdir().unwrap();
    let sqlite = directory.path().join("answers.sqlite");
    let (redis, postgres) = (["--cache-redis", &redis.url()].map(str::to_owned), (postgres.url(), postgres));
    let redis = redis.each_ref().map(String::as_str);
    let (sqlite, postgres_flags) = (["--cache-sqlite", path(&sqlite)], ["--cache-postgres", postgres.0.as_str()]);
    let all = [redis, sqlite, postgres_flags].concat();

    let texts = (0..1200).map(|number| format!("text {number}\n")).collect::<Vec<_>>().concat();
    let precompute = ["precompute", "--model", "tiny-bert-sentiment", "--format", "text", "-"];
    ended(&[&precompute[..], &postgres_flags].concat(), texts.as_bytes()).succeeded();
    assert_eq!(entries(&all), [0, 0, 1200]);

    let warm = ended(&[&["cache", "warm", "--max-entries", "700"][..], &sqlite, &postgres_flags].concat(), b"");
    assert!(warm.succeeded().stdout.contains("copied 700 entries from postgres to sqlite"));
    assert_eq!(entries(&all), [0, 700, 1200]);
    let warm = ended(&[&["cache", "warm"], &all[..]].concat(), b"").succeeded();
    assert!(warm.stdout.contains("copied 1200 entries from sqlite to redis"), "{warm:?}");
    assert_eq!(entries(&all), [1200, 1200, 1200]);

    let server = Server::start(&[&["--model", "tiny-bert-sentiment"], &redis[..]].concat());
    let asked = (0..50).map(|number| format!("text {number}"));
    assert!(sources(server.address, asked).await.contains(&Some("redis".to_owned())));

    let purge = ["cache", "purge"];
    ended(&[&purge[..], &["--expired"], &sqlite].concat(), b"").succeeded();
    assert_eq!(entries(&all), [1200, 1200, 1200], "none has expired");
    let refused = ended(&[&purge[..], &["--all"], &redis, &sqlite].concat(), b"");
    refused.failed_with(2, &["--yes", "redis, sqlite"]);
    let purged = ended(&[&purge[..], &["--all", "--yes"], &redis, &sqlite].concat(), b"").succeeded();
    assert!(purged.stdout.contains("deleted 1200 entries from redis"), "{purged:?}");
    assert_eq!(entries(&all), [0, 0, 1200]);
}

#[test]
fn without_tiers_there_is_nothing_to_do() {
    ended(&["cache", "stats"], b"").failed_with(2, &["there is no tier to look at", "--cache-redis URL"]);
    ended(&["cache", "purge"], b"").failed_with(2, &["--expired"]);
    let directory = tempfile::tempdir().unwrap();
    let one = directory.path().join("one.sqlite");
    ended(&["cache", "warm", "--cache-sqlite", path(&one)], b"").failed_with(2, &["one to copy from"]);
}

#[test]
fn a_server_that_is_not_there_is_named_with_the_reason() {
    let (mut redis, mut postgres) = (RedisServer::start(), PostgresServer::start());
    redis.kill();
    postgres.kill();
    for (name, flag, url) in [("redis", "--cache-redis", redis.url()), ("postgres", "--cache-postgres", postgres.url())]
    {
        ended(&["cache", "stats", flag, &url], b"").failed_with(1, &[name, "Connection refused"]);
    }
}

#[tokio::test]
async fn a_server_says_which_tiers_it_has_and_which_of_them_do_not_answer_and_answers_itself() {
    let mut redis = RedisServer::start();
    redis.kill();
    let tiers = ["--cache-memory", "16", "--cache-redis", &redis.url()].map(str::to_owned);
    let tiers = tiers.each_ref().map(String::as_str);
    let mut server = Server::start(&[&["--model", "tiny-bert-sentiment"], &tiers[..]].concat());
    assert!(server.banner.contains("Answers are cached: memory, then redis"), "{}", server.banner);
    server.wait_until_it_says("redis: ");
    let twice = ["a lovely day", "a lovely day"].map(str::to_owned);
    let expected = BTreeSet::from([None, Some("memory".to_owned())]);
    assert_eq!(sources(server.address, twice).await, expected);
}
