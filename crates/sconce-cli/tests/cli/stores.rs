//! `sconce cache`, on a real Redis, a real Postgres and SQLite.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use sconce_test_servers::{PostgresServer, RedisServer};

use crate::command::{ended, path, run, sconce};
use crate::serve::{Server, first_source, sources};

/// Number of entries of each tier, in the order of the flags' rows.
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
    assert_eq!(entries(&[redis, postgres_flags].concat()), [0, 1200]);

    let warm = ended(&[&["cache", "warm", "--max-entries", "700"][..], &sqlite, &postgres_flags].concat(), b"");
    assert!(warm.succeeded().stdout.contains("copied 700 entries from postgres to sqlite"));
    assert_eq!(entries(&all), [0, 700, 1200]);
    let warm = ended(&[&["cache", "warm"], &all[..]].concat(), b"").succeeded();
    assert!(warm.stdout.contains("copied 1200 entries from sqlite to redis"), "{warm:?}");
    assert_eq!(entries(&all), [1200, 1200, 1200]);

    let server = Server::start(&[&["--model", "tiny-bert-sentiment"], &redis[..]].concat());
    let asked = (0..1200).map(|number| format!("text {number}"));
    assert_eq!(first_source(server.address, asked).await.as_deref(), Some("redis"));

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
    ended(&["cache", "purge"], b"").failed_with(2, &["--expired", "--all"]);
    ended(&["cache", "purge", "--all", "--expired"], b"")
        .failed_with(2, &["--expired", "--all", "cannot be used with"]);
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
        let said = [name, "Connection refused", "127.0.0.1:", &format!("check that it is up and that {flag} names it")];
        ended(&["cache", "stats", flag, &url], b"").failed_with(1, &said);
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

/// Sorted names in a directory; an open SQLite tier has further files beside its own.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = directory.read_dir().expect("the directory can be read");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("it can be listed").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn no_command_leaves_files_beside_a_database() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (directory.path().join("one.sqlite"), directory.path().join("other.sqlite"));
    let flag = ["--cache-sqlite", path(&one)];
    let precompute = ["precompute", "--model", "tiny-bert-sentiment", "--format", "text", "-"];
    ended(&[&precompute[..], &flag].concat(), b"a lovely day").succeeded();
    assert_eq!(names(directory.path()), ["one.sqlite"]);
    let before = fs::read(&one).unwrap();
    assert_eq!(entries(&flag), [1]);
    assert_eq!((names(directory.path()), fs::read(&one).unwrap()), (vec!["one.sqlite".to_owned()], before));
    ended(&[&["cache", "purge", "--expired"], &flag[..]].concat(), b"").succeeded();
    assert_eq!(names(directory.path()), ["one.sqlite"]);

    let redis = RedisServer::start();
    let url = redis.url();
    let from = [&flag[..], &["--cache-redis", &url]].concat();
    ended(&[&["cache", "warm"], &from[..]].concat(), b"").succeeded();
    assert_eq!(names(directory.path()), ["one.sqlite"]);

    // Files that were there stay: another process may use them.
    fs::copy(&one, &other).unwrap();
    let flag = ["--cache-sqlite", path(&other)];
    let mut server = Server::start(&[&["--model", "tiny-bert-sentiment"], &flag[..]].concat());
    let before = names(directory.path());
    assert!(before.len() > 2, "{before:?}");
    assert_eq!(entries(&flag), [1]);
    assert_eq!(names(directory.path()), before);
    server.stop();
}

#[test]
fn a_database_that_is_not_there_is_told_and_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let (missing, target) = (directory.path().join("missing.sqlite"), ["--cache-redis", "redis://127.0.0.1:1"]);
    let flag = ["--cache-sqlite", path(&missing)];
    let said = ["there is no cache in", "missing.sqlite", "sconce precompute", "--cache-sqlite"];
    for command in [
        &["cache", "stats"][..],
        &["cache", "stats", "--json"],
        &["cache", "purge", "--expired"],
        &["cache", "purge", "--all", "--yes"],
        &[&["cache", "warm"], &target[..]].concat(),
    ] {
        ended(&[command, &flag].concat(), b"").failed_with(2, &said);
        assert_eq!(names(directory.path()), Vec::<String>::new(), "{command:?}");
    }
    // To SQLite an empty file is a database; it must not get a table.
    fs::write(&missing, "").unwrap();
    ended(&[&["cache", "stats"], &flag[..]].concat(), b"")
        .failed_with(2, &["there is no cache in", "the file is empty"]);
    ended(&[&["cache", "purge", "--expired"], &flag[..]].concat(), b"").failed_with(2, &["there is no cache in"]);
    assert_eq!((fs::metadata(&missing).unwrap().len(), names(directory.path()).len()), (0, 1));
}

#[test]
fn a_table_that_is_not_there_is_told_and_not_made() {
    let postgres = PostgresServer::start();
    let directory = tempfile::tempdir().unwrap();
    let (sqlite, url) = (directory.path().join("target.sqlite"), postgres.url());
    let flag = ["--cache-postgres", url.as_str()];
    let said = ["there is no cache: the database has no table sconce_entries", "sconce precompute"];
    for command in [
        &["cache", "stats"][..],
        &["cache", "purge", "--all", "--yes"],
        &["cache", "warm", "--cache-sqlite", path(&sqlite)],
    ] {
        // The second command would find the table if the first had made it.
        ended(&[command, &flag].concat(), b"").failed_with(2, &said);
    }
    assert!(!sqlite.exists(), "there is nothing to copy into it");
    let precompute = ["precompute", "--model", "tiny-bert-sentiment", "--format", "text", "-"];
    ended(&[&precompute[..], &flag].concat(), b"a lovely day").succeeded();
    assert_eq!(entries(&flag), [1]);
    let purged = ended(&[&["cache", "purge", "--all", "--yes"], &flag[..]].concat(), b"").succeeded();
    assert!(purged.stdout.contains("deleted 1 entries from postgres"), "{purged:?}");
}

#[test]
fn what_is_no_database_is_told_with_what_it_is_and_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("text"), "certainly not a database, but long enough to look for its beginning".repeat(20)).unwrap();
    fs::create_dir(at("directory")).unwrap();
    let table = [
        (at("text"), "file is not a database; give another file, or delete this one"),
        (at("directory"), "it is a directory: give a file"),
        (at("no/such/file"), "no/such"),
        (":memory:".into(), "path is ':memory:', but must be the name of a file"),
    ];
    for (file, said) in &table {
        for command in [
            &["cache", "stats"][..],
            &["cache", "purge", "--expired"],
            &["precompute", "--model", "tiny-bert-sentiment", "--format", "text"],
            &["serve", "--grpc", "127.0.0.1:0", "--http", "none", "--model", "tiny-bert-sentiment"],
        ] {
            ended(&[command, &["--cache-sqlite", path(file)]].concat(), b"").failed_with(2, &["--cache-sqlite", said]);
        }
    }
    assert_eq!(names(directory.path()), ["directory", "text"]);
}

#[test]
fn an_address_that_is_none_is_told_with_the_form_and_without_the_password() {
    let table = [
        ("--cache-redis", "localhost:6379", "--cache-redis 'localhost:6379'", "redis://localhost:6379"),
        ("--cache-redis", "redis://:secret@", "--cache-redis 'redis://…@'", "redis://localhost:6379"),
        ("--cache-redis", "http://user:secret@cache", "--cache-redis 'http://…@cache'", "redis://localhost:6379"),
        ("--cache-postgres", "localhost", "--cache-postgres 'localhost'", "postgres://user:password@localhost:5432"),
        ("--cache-postgres", "host=db pass=secret", "--cache-postgres 'host=db'", "postgres://user:password@"),
    ];
    for (flag, url, shown, form) in table {
        for command in [
            &["cache", "stats"][..],
            &["serve", "--grpc", "127.0.0.1:0", "--http", "none", "--model", "tiny-bert-sentiment"],
        ] {
            let ended = ended(&[command, &[flag, url]].concat(), b"").failed_with(2, &[shown, form]);
            assert!(!ended.stderr.contains("secret"), "{}", ended.stderr);
        }
    }
}

#[test]
fn a_server_that_cannot_be_reached_is_named_without_its_password() {
    for (flag, url) in [
        ("--cache-redis", "redis://user:secret@127.0.0.1:1"),
        ("--cache-postgres", "postgres://user:secret@127.0.0.1:1/answers"),
    ] {
        let said = ["…@127.0.0.1:1", "Connection refused", flag];
        let ended = ended(&["cache", "stats", flag, url], b"").failed_with(1, &said);
        assert!(!ended.stderr.contains("secret"), "{}", ended.stderr);
        let mut server = Server::start(&["--model", "tiny-bert-sentiment", flag, url]);
        let line = server.wait_until_it_says("requests pass it over until it answers");
        assert!(line.contains(flag) && line.contains("…@127.0.0.1:1") && !line.contains("secret"), "{line}");
    }
}

#[test]
fn amounts_of_memory_are_taken_as_people_write_them_and_refused_with_what_is_allowed() {
    let serve = |flag: &str, size: &str| {
        // With a valid size, the unknown model is the error.
        ended(&["serve", "--model", "no-such", &format!("{flag}{size}")], b"")
    };
    for flag in ["--cache-memory=", "--cache-inputs=", "--device-memory=cpu="] {
        for size in ["64", "1GB", "512MiB", "1.5g", "64 MB"] {
            serve(flag, size).failed_with(2, &["'no-such' is neither a known model"]);
        }
        for size in ["1XB", "-5", "lots"] {
            serve(flag, size)
                .failed_with(2, &[flag.trim_end_matches('=').split('=').next().unwrap(), size, "512MiB, 1GB"]);
        }
        serve(flag, "0").failed_with(2, &["'0' leaves no memory at all", "at least 1 (MiB)"]);
        serve(flag, "99999999999999").failed_with(2, &["'99999999999999' is more than can be counted"]);
    }
    let mut from_environment = sconce(&["serve", "--model", "no-such"]);
    from_environment.env("SCONCE_CACHE_MEMORY", "plenty");
    run(from_environment, b"").failed_with(2, &["--cache-memory", "'plenty' is not an amount of memory"]);
}
