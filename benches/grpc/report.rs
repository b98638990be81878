//! A table of medians from the turns.

use sconce_benches::spread::Spread;
use sconce_benches::wire::process::Usage;

use crate::load::Ran;

/// The server of a turn, and its number of connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) server: String,
    /// 0 for the default.
    pub(crate) workers: usize,
    pub(crate) connections: usize,
}

/// One server's turn in one round.
#[derive(Debug)]
pub(crate) struct ServerTurn {
    pub(crate) name: Name,
    pub(crate) ran: Ran,
    pub(crate) used: Usage,
}

impl ServerTurn {
    fn per_request(&self, amount: f64) -> f64 {
        amount / self.ran.requests as f64
    }

    fn user_us(&self) -> f64 {
        self.per_request(self.used.user.as_secs_f64() * 1e6)
    }

    fn system_us(&self) -> f64 {
        self.per_request(self.used.system.as_secs_f64() * 1e6)
    }

    fn cpu_us(&self) -> f64 {
        self.user_us() + self.system_us()
    }

    fn sleeps(&self) -> f64 {
        self.per_request(self.used.sleeps as f64)
    }

    fn rate(&self) -> f64 {
        self.ran.requests as f64 / self.ran.wall.as_secs_f64()
    }
}

/// Median and range of each figure, one row for each server and number of connections.
pub(crate) fn print(turns: &[ServerTurn], concurrency: usize, seconds: f64) {
    println!(
        "{concurrency} requests in flight, turns of {seconds} s; median (least–most) over the rounds; every answer checked\n"
    );
    println!(
        "| server | workers | connections | server CPU, µs per request | user | system | sleeps per request | requests/s |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let mut rows: Vec<&Name> = Vec::new();
    for turn in turns {
        if !rows.contains(&&turn.name) {
            rows.push(&turn.name);
        }
    }
    for name in rows {
        let of = |figure: fn(&ServerTurn) -> f64| {
            Spread::of(turns.iter().filter(|turn| turn.name == *name).map(figure).collect())
        };
        let Name { server, workers, connections } = name;
        let workers = if *workers == 0 { "default".to_owned() } else { workers.to_string() };
        println!(
            "| {server} | {workers} | {connections} | {:.1} | {:.1} | {:.1} | {:.2} | {:.0} |",
            of(ServerTurn::cpu_us),
            of(ServerTurn::user_us),
            of(ServerTurn::system_us),
            of(ServerTurn::sleeps),
            of(ServerTurn::rate)
        );
    }
}
