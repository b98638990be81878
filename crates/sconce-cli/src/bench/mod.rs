//! `sconce bench`: the same models and batches on each device in each precision, in turns.
//!
//! `subject` loads the models and `shape` makes the batches; `check` compares answers before anything is timed;
//! `timing` runs the turns and `energy` reads what they took; `report` and `plot` show the results. Networks are called
//! directly: the time is that of a batch with its copies to and from the device, without tokenising and queueing.

mod check;
mod energy;
mod plot;
mod report;
mod shape;
mod subject;
mod timing;

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use sconce::BuildError;
use sconce::models::Team;

pub(crate) use report::cpu_name;
pub(crate) use shape::BenchShape;

use crate::args::BenchArgs;
use crate::error::Error;
use crate::models_path::ModelsPath;
use crate::progress;
use crate::say::say;
use crate::signals::uninterrupted;
use report::{Heading, Row};
use subject::{Cell, Loaded, Subjects};

pub(crate) fn run(args: &BenchArgs) -> Result<ExitCode, Error> {
    let found = ModelsPath::new(&args.models).find_all(&args.names)?;
    // Before anything is measured, which takes minutes.
    if let Some(png) = args.png.as_ref().filter(|png| !png.extension().is_some_and(|it| it.eq_ignore_ascii_case("png")))
    {
        return Err(Error::Plot { path: png.clone(), message: "that is no name of a PNG".to_owned() });
    }
    for target in args.csv.iter().chain(&args.png) {
        uninterrupted(|| check_writable(target)).map_err(|source| Error::Write { path: target.clone(), source })?;
    }
    let team = match args.threads {
        Some(threads) => Team::new(threads).map_err(|source| BuildError::CpuThreads { threads, source })?,
        None => Team::default(),
    };
    let heading = Heading::new(team.threads().get(), &args.devices);
    let subjects = Subjects { devices: &args.devices, precisions: &args.precisions, team: Arc::new(team) };
    let (mut rows, mut left_out, mut wrong) = (Vec::new(), Vec::new(), 0);
    let mut without: Vec<&str> = Vec::new();
    for found in &found {
        let spinner = progress::spinner(format!("loading {} and comparing its answers", found.name));
        let loaded = subjects.load(found, &args.batches);
        let checked = loaded.and_then(|mut loaded| Ok((check::check(&mut loaded.cells)?, loaded)));
        spinner.finish_and_clear();
        let (failures, Loaded { mut cells, left_out: more }) = checked?;
        wrong += failures.len();
        for failure in failures {
            say!("WRONG: {failure}");
        }
        for line in &more {
            say!("{line}: left out");
        }
        left_out.extend(more);
        if cells.is_empty() {
            without.push(&found.name);
        }
        rows.extend(timed(&found.name, &mut cells, args)?);
    }
    if rows.is_empty() {
        return Err(Error::NothingToMeasure { left_out });
    }
    let mut out = io::stdout().lock();
    heading.write(&mut out)?;
    report::write_table(&mut out, &rows)?;
    out.flush()?;
    if let Some(csv) = &args.csv {
        let written = uninterrupted(|| report::write_csv(csv, &heading, &rows));
        written.map_err(|source| Error::Write { path: csv.clone(), source })?;
    }
    if let Some(png) = &args.png {
        let drawn = uninterrupted(|| plot::draw(png, &heading, &rows));
        drawn.map_err(|message| Error::Plot { path: png.clone(), message })?;
    }
    for name in &without {
        say!("nothing of {name} could be measured, for the reasons above");
    }
    Ok(if wrong == 0 && without.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Checks that the file can be written, and leaves the directory as it was.
pub(crate) fn check_writable(path: &Path) -> io::Result<()> {
    let was_there = path.exists();
    OpenOptions::new().append(true).create(true).open(path)?;
    if was_there { Ok(()) } else { fs::remove_file(path) }
}

/// Times all cells whose answers are right, in turns, so that a disturbance affects all of them alike.
fn timed(model: &str, cells: &mut [Cell], args: &BenchArgs) -> Result<Vec<Row>, Error> {
    let turns = args.rounds.get() * cells.iter().filter(|cell| cell.right).count();
    let bar = progress::count_bar(turns as u64, format!("timing {model}"));
    let turn = Duration::from_millis(args.turn_ms);
    for cell in cells.iter_mut().filter(|cell| cell.right) {
        timing::warm_up(cell)?;
    }
    for _ in 0..args.rounds.get() {
        for cell in cells.iter_mut().filter(|cell| cell.right) {
            timing::take_turn(cell, turn)?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(cells.iter().map(|cell| Row::new(model, cell)).collect())
}
