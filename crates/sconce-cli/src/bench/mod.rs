//! `sconce bench`: the same models and batches on each device in each precision, in turns.
//!
//! `subject` loads what is compared and `shape` makes the batches; `check` compares answers before anything is timed; `timing` runs the
//! turns and `energy` reads what they took; `report` and `plot` say it. Networks are called directly: what is timed is a batch, copies
//! to and from the device included, without tokenising and queueing.

mod check;
mod energy;
mod plot;
mod report;
mod shape;
mod subject;
mod timing;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use sconce::models::Team;

pub(crate) use shape::Shape;

use crate::args::BenchArgs;
use crate::error::Error;
use crate::models_path::{Found, ModelsPath};
use crate::progress;
use report::{Heading, Row};
use subject::{Cell, Subjects};

pub(crate) fn run(args: &BenchArgs) -> Result<ExitCode, Error> {
    let path = ModelsPath::new(&args.models);
    let found: Vec<Found> = args.names.iter().map(|name| path.find(name)).collect::<Result<_, _>>()?;
    let team = match args.threads {
        Some(threads) => Team::new(threads).map_err(Error::Threads)?,
        None => Team::default(),
    };
    let heading = Heading::new(team.threads().get(), &args.devices);
    let mut out = io::stdout().lock();
    heading.write(&mut out)?;
    let subjects = Subjects { devices: &args.devices, precisions: &args.precisions, team: Arc::new(team) };
    let (mut rows, mut wrong) = (Vec::new(), 0);
    for found in &found {
        let mut cells = subjects.load(found, &args.batches)?;
        let failures = check::check(&mut cells)?;
        wrong += failures.len();
        for failure in failures {
            eprintln!("WRONG: {failure}");
        }
        rows.extend(timed(&found.name, &mut cells, args)?);
    }
    report::write_table(&mut out, &rows)?;
    out.flush()?;
    if let Some(csv) = &args.csv {
        report::write_csv(csv, &heading, &rows).map_err(|source| Error::Write { path: csv.clone(), source })?;
    }
    if let Some(png) = &args.png {
        plot::draw(png, &heading, &rows).map_err(|message| Error::Plot { path: png.clone(), message })?;
    }
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Times all cells whose answers are right, in turns: a disturbance falls on all of them alike.
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
