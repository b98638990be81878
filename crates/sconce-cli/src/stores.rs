//! `sconce cache`: counts, copies and deletes the entries of the tiers that outlive a process.

use std::io::{self, Write as _};
use std::num::NonZeroU64;
use std::pin::Pin;
use std::process::ExitCode;

use sconce::cache::{Access, Purge, Usage};
use serde_json::json;

use crate::args::{CacheCommand, PurgeArgs, StatsArgs, WarmArgs};
use crate::cache::{Opened, Store, StoredArgs};
use crate::error::Error;
use crate::progress;
use crate::say::say;
use crate::signals::{Signal, Signals};

const STOPPING: &str = "stopping: what was begun is finished (signal again to end at once)";
/// Entries that are copied at a time.
const PAGE: usize = 512;
const FLAGS: &str = "--cache-redis URL, --cache-sqlite FILE or --cache-postgres URL";

pub(crate) async fn run(command: &CacheCommand, signals: Signals) -> Result<ExitCode, Error> {
    let mut stop: Stop = Box::pin(signals.first(STOPPING));
    let stopped = match command {
        CacheCommand::Stats(args) => stats(args, &mut stop).await?,
        CacheCommand::Warm(args) => warm(args, &mut stop).await?,
        CacheCommand::Purge(args) => purge(args, &mut stop).await?,
    };
    if stopped.is_some() {
        say!("stopped");
    }
    Ok(stopped.map_or(ExitCode::SUCCESS, Signal::exit_code))
}

/// Resolves at the first signal.
type Stop = Pin<Box<dyn Future<Output = Signal>>>;

/// Takes the signal, if it came.
async fn signal(stop: &mut Stop) -> Option<Signal> {
    tokio::select! {
        biased;
        signal = stop => Some(signal),
        () = std::future::ready(()) => None,
    }
}

async fn stats(args: &StatsArgs, stop: &mut Stop) -> Result<Option<Signal>, Error> {
    let mut rows = Vec::new();
    for store in some(&args.stored)? {
        let stopped = signal(stop).await;
        if stopped.is_some() {
            return Ok(stopped);
        }
        let opened = store.open(Access::ReadOnly)?;
        let spinner = progress::spinner(format!("counting in {}", store.name()));
        let usage = opened.tier.usage().await;
        spinner.finish_and_clear();
        let usage = opened.told(usage);
        opened.close().await;
        rows.push((store.name(), usage?));
    }
    let mut out = io::stdout().lock();
    if !args.json {
        writeln!(out, "{:10}{:>14}{:>14}{:>14}", "TIER", "ENTRIES", "EXPIRED", "BYTES")?;
    }
    for (tier, usage) in rows {
        let Usage { entries, expired, bytes, .. } = usage;
        if args.json {
            writeln!(out, "{}", json!({"tier": tier, "entries": entries, "expired": expired, "bytes": bytes}))?;
        } else {
            writeln!(out, "{tier:10}{entries:>14}{expired:>14}{bytes:>14}")?;
        }
    }
    Ok(None)
}

/// Copies from the last tier into the one before it, and so on up to the first.
async fn warm(args: &WarmArgs, stop: &mut Stop) -> Result<Option<Signal>, Error> {
    let stores = args.stored.stores();
    let [nearer @ .., last] = &stores[..] else { return Err(NOT_TWO) };
    if nearer.is_empty() {
        return Err(NOT_TWO);
    }
    let mut from = last.open(Access::ReadOnly)?;
    // Before any tier is made: there may be no tier to copy from.
    let counted = from.told(from.tier.usage().await).map(drop);
    let mut copied = counted.map(|()| None);
    for store in nearer.iter().rev() {
        if !matches!(copied, Ok(None)) {
            break;
        }
        let to = store.open(Access::Create)?;
        copied = copy(&from, &to, args.max_entries.map(NonZeroU64::get), stop).await;
        from.close().await;
        from = to;
    }
    from.close().await;
    copied
}

const NOT_TWO: Error = Error::NoTier {
    what: "there are no two tiers, one to copy from and one to copy into",
    flags: "--cache-redis URL with --cache-sqlite FILE or --cache-postgres URL",
};

/// Copies entries until there are no more, or a signal comes.
async fn copy(from: &Opened, to: &Opened, max_entries: Option<u64>, stop: &mut Stop) -> Result<Option<Signal>, Error> {
    let held = from.told(from.tier.usage().await)?;
    let total = max_entries.unwrap_or(u64::MAX).min(held.entries.saturating_sub(held.expired));
    let bar = progress::entries_bar(total);
    let (mut copied, mut corrupt, mut position, mut stopped) = (0, 0, None, None);
    while copied < max_entries.unwrap_or(u64::MAX) {
        stopped = signal(stop).await;
        if stopped.is_some() {
            break;
        }
        let room = max_entries.map_or(PAGE, |max| PAGE.min(usize::try_from(max - copied).unwrap_or(PAGE)));
        let mut page = from.told(from.tier.scan(position, room).await)?;
        // Redis may return more entries than the page has room for.
        page.entries
            .truncate(max_entries.map_or(usize::MAX, |max| usize::try_from(max - copied).unwrap_or(usize::MAX)));
        to.told(to.tier.put_many(&page.entries).await)?;
        copied += page.entries.len() as u64;
        corrupt += page.corrupt;
        bar.set_position(copied);
        position = page.next;
        if position.is_none() {
            break;
        }
    }
    bar.finish_and_clear();
    to.told(to.tier.settle().await)?;
    let (source, target) = (from.tier.name(), to.tier.name());
    writeln!(io::stdout(), "copied {copied} entries from {source} to {target}{}", passed_over(corrupt))?;
    Ok(stopped)
}

fn passed_over(corrupt: u64) -> String {
    if corrupt == 0 { String::new() } else { format!("; passed over {corrupt} that are not intact") }
}

async fn purge(args: &PurgeArgs, stop: &mut Stop) -> Result<Option<Signal>, Error> {
    let stores = some(&args.stored)?;
    if args.all && !args.yes {
        let tiers = stores.iter().map(|store| store.name()).collect::<Vec<_>>().join(", ");
        return Err(Error::NotConfirmed { tiers });
    }
    let (what, which) = if args.all { (Purge::All, "") } else { (Purge::Expired, "expired ") };
    for store in stores {
        let stopped = signal(stop).await;
        if stopped.is_some() {
            return Ok(stopped);
        }
        let opened = store.open(Access::Existing)?;
        let spinner = progress::spinner(format!("deleting from {}", store.name()));
        let deleted = opened.told(opened.tier.purge(what).await);
        spinner.finish_and_clear();
        let settled = opened.told(opened.tier.settle().await);
        opened.close().await;
        writeln!(io::stdout(), "deleted {} {which}entries from {}", deleted?, store.name())?;
        settled?;
    }
    Ok(None)
}

fn some(flags: &StoredArgs) -> Result<Vec<Store<'_>>, Error> {
    let stores = flags.stores();
    if stores.is_empty() {
        return Err(Error::NoTier { what: "there is no tier to look at", flags: FLAGS });
    }
    Ok(stores)
}
