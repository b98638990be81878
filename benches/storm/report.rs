//! Tables of medians from the turns.

use std::time::Duration;

use clap::ValueEnum as _;
use sconce_benches::spread::Spread;

use crate::Args;
use crate::cores::Cores;
use crate::server::Observed;
use crate::storms::Storm;
use crate::tally::{Range, Tally};

/// One server's turn in one round.
#[derive(Debug)]
pub(crate) struct StormTurn {
    pub(crate) build: &'static str,
    /// `None` for the turn that measured the capacity.
    pub(crate) storm: Option<Storm>,
    pub(crate) round: usize,
    pub(crate) seconds: f64,
    pub(crate) tally: Tally,
    pub(crate) observed: Observed,
}

impl StormTurn {
    pub(crate) fn in_time_rate(&self) -> f64 {
        self.per_second(self.tally.in_time)
    }

    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.seconds
    }

    /// A processor time in percent of the core.
    fn of_core(&self, time: Duration) -> f64 {
        100.0 * time.as_secs_f64() / self.seconds
    }

    fn answered(&self) -> u64 {
        self.tally.in_time + self.tally.late
    }

    /// Processor time of all threads but those that run batches.
    fn serving(&self) -> Duration {
        let used = self.observed.used;
        (used.user + used.system).saturating_sub(used.devices)
    }

    fn serving_us(&self) -> f64 {
        self.serving().as_secs_f64() * 1e6
    }

    /// Processor time per refusal, if an answer costs as much as when the capacity was measured.
    fn refusal_us(&self, capacity: &Self) -> f64 {
        let an_answer = capacity.serving_us() / capacity.answered() as f64;
        (self.serving_us() - an_answer * self.answered() as f64) / self.tally.refused() as f64
    }

    fn batch_size(&self) -> f64 {
        self.observed.figures.batched as f64 / self.observed.figures.batches as f64
    }

    fn batch_ms(&self) -> f64 {
        ms(self.observed.figures.run) / self.observed.figures.batches as f64
    }

    fn largest_estimate(&self) -> Option<Duration> {
        self.tally.estimates.map(|Range { most, .. }| most)
    }
}

/// Turns of one build under one load.
struct Row<'a> {
    build: &'static str,
    load: String,
    turns: Vec<&'a StormTurn>,
    /// The turns that measured the capacity in the same rounds.
    capacities: Vec<&'a StormTurn>,
}

impl<'a> Row<'a> {
    /// All rows, in the order of the first round.
    fn of(turns: &'a [StormTurn]) -> Vec<Self> {
        let same = |one: &StormTurn, other: &StormTurn| (one.build, one.storm) == (other.build, other.storm);
        let firsts = turns.iter().filter(|turn| turn.round == 0);
        let row = |first: &StormTurn| {
            let turns_of_row: Vec<_> = turns.iter().filter(|turn| same(turn, first)).collect();
            let capacity = |of: &&StormTurn| {
                turns.iter().find(|turn| (turn.build, turn.storm, turn.round) == (of.build, None, of.round))
            };
            let load = first.storm.and_then(|storm| Some(storm.to_possible_value()?.get_name().to_owned()));
            Self {
                build: first.build,
                load: load.unwrap_or_else(|| "capacity".to_owned()),
                capacities: turns_of_row.iter().filter_map(capacity).collect(),
                turns: turns_of_row,
            }
        };
        firsts.map(row).collect()
    }

    fn spread(&self, figure: impl Fn(&StormTurn) -> f64) -> Spread {
        Spread::of(self.turns.iter().map(|turn| figure(turn)).collect())
    }

    fn beside_capacity(&self, figure: impl Fn(&StormTurn, &StormTurn) -> f64) -> Spread {
        Spread::of(self.turns.iter().zip(&self.capacities).map(|(turn, capacity)| figure(turn, capacity)).collect())
    }

    fn tally(&self) -> Tally {
        self.turns.iter().fold(Tally::default(), |sum, turn| sum.and(turn.tally))
    }

    fn is_capacity(&self) -> bool {
        self.turns.iter().all(|turn| turn.storm.is_none())
    }
}

/// Prints the machine, the command and the conditions.
pub(crate) fn print_conditions(args: &Args, cores: &Cores) {
    let described = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = described.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim())
    };
    let command: Vec<_> = std::env::args().skip(1).collect();
    let beside = if args.alone { "alone" } else { "beside a busy process" };
    println!("{}, {} cores; storm {}", field("model name").unwrap_or("?"), cores.all(), command.join(" "));
    println!(
        "server of {} on core {} {beside}, callers on {:?}; {} callers over {} connections, {} ms for each request; \
         turns of {} s, median (least–most) over {} rounds; every answer checked",
        args.served.model,
        cores.server,
        cores.callers,
        args.callers,
        args.connections,
        args.deadline_ms,
        args.seconds,
        args.rounds
    );
}

/// Prints a table of outcomes, one of refusals, and one of the server's work.
pub(crate) fn print(turns: &[StormTurn]) {
    let rows = Row::of(turns);
    let storms = || rows.iter().filter(|row| !row.is_capacity());
    println!("\n| build | load | in time/s | of the capacity, % | late/s | unanswered/s | cut off/s |");
    println!("|---|---|---|---|---|---|---|");
    rows.iter().for_each(print_answers);
    println!(
        "\n| build | load | refused/s: overloaded | full | too late | longest wait, ms | largest estimate, ms | \
         estimate / wait | pushback, ms | without one, % |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    storms().for_each(print_refusals);
    println!(
        "\n| build | load | computing, % of the core | serving, % | of that per refusal, µs | computed/s | \
         items per batch | ms per batch | batches of 1, 2, –4, –8, … items, % | learned: fixed, per weight, margin, ms |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    rows.iter().for_each(print_server);
}

fn print_answers(row: &Row<'_>) {
    println!(
        "| {} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
        row.build,
        row.load,
        row.spread(StormTurn::in_time_rate),
        row.beside_capacity(|turn, capacity| 100.0 * turn.in_time_rate() / capacity.in_time_rate()),
        row.spread(|turn| turn.per_second(turn.tally.late)),
        row.spread(|turn| turn.per_second(turn.tally.unanswered)),
        row.spread(|turn| turn.per_second(turn.tally.broken)),
    );
}

/// Prints a row of the refusals. The extremes are those of all rounds.
fn print_refusals(row: &Row<'_>) {
    let tally = row.tally();
    let range = |range: Option<Range>| match range {
        Some(Range { least, most }) => format!("{:.0}–{:.0}", ms(least), ms(most)),
        None => "–".to_owned(),
    };
    let estimates =
        row.turns.iter().filter_map(|turn| Some(ms(turn.largest_estimate()?) / ms(turn.tally.longest_wait)));
    println!(
        "| {} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} | {} | {:.0} |",
        row.build,
        row.load,
        row.spread(|turn| turn.per_second(turn.tally.overloaded)),
        row.spread(|turn| turn.per_second(turn.tally.full)),
        row.spread(|turn| turn.per_second(turn.tally.too_late)),
        ms(tally.longest_wait),
        tally.estimates.map_or(f64::NAN, |Range { most, .. }| ms(most)),
        Spread::of(estimates.collect()),
        range(tally.pushbacks),
        100.0 * tally.untold as f64 / tally.refused() as f64,
    );
}

/// Prints a row of the server's work. The learned cost is the one after the last round.
fn print_server(row: &Row<'_>) {
    let refusal_us =
        if row.is_capacity() { "–".to_owned() } else { format!("{:.0}", row.beside_capacity(StormTurn::refusal_us)) };
    let Some(last) = row.turns.last().map(|turn| &turn.observed.figures) else { return };
    println!(
        "| {} | {} | {:.0} | {:.0} | {refusal_us} | {:.0} | {:.1} | {:.1} | {} | {:.2}, {:.3}, {:.1} |",
        row.build,
        row.load,
        row.spread(|turn| turn.of_core(turn.observed.used.devices)),
        row.spread(|turn| turn.of_core(turn.serving())),
        row.spread(|turn| turn.per_second(turn.observed.figures.batched)),
        row.spread(StormTurn::batch_size),
        row.spread(StormTurn::batch_ms),
        batch_sizes(&row.turns),
        ms(last.fixed),
        ms(last.per_weight),
        ms(last.margin),
    );
}

/// Share of each bucket, up to the last that is not empty.
fn batch_sizes(turns: &[&StormTurn]) -> String {
    let mut sums: Vec<u64> = Vec::new();
    for sizes in turns.iter().map(|turn| &turn.observed.figures.batch_sizes) {
        sums.resize(sizes.len(), 0);
        sums.iter_mut().zip(sizes).for_each(|(sum, size)| *sum += size);
    }
    let all: u64 = sums.iter().sum();
    let used = sums.iter().rposition(|sum| *sum > 0).map_or(0, |last| last + 1);
    let share = |sum: &u64| format!("{:.0}", 100.0 * *sum as f64 / all as f64);
    sums[..used].iter().map(share).collect::<Vec<_>>().join(" ")
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
