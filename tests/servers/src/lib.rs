//! Servers that a test starts for itself on a free port, kills, pauses and restarts. They end with the test.
//!
//! They are Debian's packages `redis-server` and `postgresql`, which need not run or be configured.
//!
//! ```no_run
//! let mut redis = sconce_test_servers::RedisServer::start();
//! let url = redis.url();
//! redis.kill();
//! redis.restart(); // at the same address, empty
//! ```

// They panic as assertions do: a server that does not start ends the test.
#![expect(
    clippy::missing_panics_doc,
    reason = "every function of a test's server panics where the server does not obey"
)]

mod postgres;
mod process;
mod redis;

use std::net::TcpListener;
use std::path::Path;

pub use postgres::PostgresServer;
pub use process::Process;
pub use redis::RedisServer;

/// A port that is free at the moment.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

fn last_lines(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
