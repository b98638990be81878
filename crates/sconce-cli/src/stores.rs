//! `sconce cache`: what the tiers that outlive a process hold; copying and deleting it.

use std::io::{self, Write as _};
use std::process::ExitCode;

use sconce::cache::{Purge, StoredTier, TierError, Usage};
use serde_json::json;

use crate::args::{CacheCommand, PurgeArgs, StatsArgs, WarmArgs};
use crate::cache::StoredArgs;
use crate::error::Error;
use crate::progress;

/// Entries that are copied at once.
const PAGE: usize = 512;
const FLAGS: &str = "--cache-redis URL, --cache-sqlite FILE or --cache-postgres URL";

pub(crate) async fn run(command: &CacheCommand) -> Result<ExitCode, Error> {
    match command {
        CacheCommand::Stats(args) => stats(args).await?,
        CacheCommand::Warm(args) => warm(args).await?,
        CacheCommand::Purge(args) => purge(args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn stats(args: &StatsArgs) -> Result<(), Error> {
    let mut rows = Vec::new();
    for tier in some(&args.stored)? {
        let usage = told(&*tier, tier.usage().await)?;
        rows.push((tier.name(), usage));
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
    Ok(())
}

/// Copies from the last tier into the one before it, and so on up to the first.
async fn warm(args: &WarmArgs) -> Result<(), Error> {
    let tiers = args.stored.open()?;
    if tiers.len() < 2 {
        let what = "there are no two tiers, one to copy from and one to copy into";
        return Err(Error::NoTier {
            what,
            flags: "--cache-redis URL with --cache-sqlite FILE or --cache-postgres URL",
        });
    }
    for pair in tiers.windows(2).rev() {
        let (to, from) = (&*pair[0], &*pair[1]);
        let (copied, corrupt) = copy(from, to, args.max_entries).await?;
        println!("copied {copied} entries from {} to {}{}", from.name(), to.name(), passed_over(corrupt));
    }
    Ok(())
}

async fn copy(from: &dyn StoredTier, to: &dyn StoredTier, max_entries: Option<u64>) -> Result<(u64, u64), Error> {
    let held = told(from, from.usage().await)?;
    let total = max_entries.unwrap_or(u64::MAX).min(held.entries.saturating_sub(held.expired));
    let bar = progress::entries_bar(total);
    let (mut copied, mut corrupt, mut position) = (0, 0, None);
    while copied < max_entries.unwrap_or(u64::MAX) {
        let room = max_entries.map_or(PAGE, |max| PAGE.min(usize::try_from(max - copied).unwrap_or(PAGE)));
        let mut page = told(from, from.scan(position, room).await)?;
        // Redis may give more than it was asked for.
        page.entries
            .truncate(max_entries.map_or(usize::MAX, |max| usize::try_from(max - copied).unwrap_or(usize::MAX)));
        told(to, to.put_many(&page.entries).await)?;
        copied += page.entries.len() as u64;
        corrupt += page.corrupt;
        bar.set_position(copied);
        position = page.next;
        if position.is_none() {
            break;
        }
    }
    bar.finish_and_clear();
    told(to, to.settle().await)?;
    Ok((copied, corrupt))
}

fn passed_over(corrupt: u64) -> String {
    if corrupt == 0 { String::new() } else { format!("; passed over {corrupt} that are not intact") }
}

async fn purge(args: &PurgeArgs) -> Result<(), Error> {
    let tiers = some(&args.stored)?;
    if args.all && !args.yes {
        let tiers = tiers.iter().map(|tier| tier.name()).collect::<Vec<_>>().join(", ");
        return Err(Error::NotConfirmed { tiers });
    }
    let (what, which) = if args.all { (Purge::All, "") } else { (Purge::Expired, "expired ") };
    for tier in tiers {
        let spinner = progress::spinner(format!("deleting from {}", tier.name()));
        let deleted = told(&*tier, tier.purge(what).await);
        spinner.finish_and_clear();
        println!("deleted {} {which}entries from {}", deleted?, tier.name());
        told(&*tier, tier.settle().await)?;
    }
    Ok(())
}

fn some(stored: &StoredArgs) -> Result<Vec<Box<dyn StoredTier>>, Error> {
    let tiers = stored.open()?;
    if tiers.is_empty() {
        return Err(Error::NoTier { what: "there is no tier to look at", flags: FLAGS });
    }
    Ok(tiers)
}

fn told<T>(tier: &dyn StoredTier, outcome: Result<T, TierError>) -> Result<T, Error> {
    outcome.map_err(|source| Error::Tier { tier: tier.name(), source })
}
