//! The results as a table and as a file, with the machine and the command that repeat them.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sconce::DeviceName;
use sconce::models::{Backends, Isa, ListedDevice};

use super::subject::Cell;
use super::timing::Summary;
use crate::explain::seconds;
use crate::table;

/// Machine, command and date of the measurement.
pub(crate) struct Heading {
    pub(crate) machine: String,
    pub(crate) command: String,
    pub(crate) date: String,
}

/// One line of the table.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) model: String,
    pub(crate) device: String,
    pub(crate) precision: String,
    pub(crate) batch: String,
    items: usize,
    weight: usize,
    distance: Option<f64>,
    /// Summary of the times; `None` if the answers were wrong, and so not timed.
    summary: Option<Summary>,
}

impl Heading {
    pub(crate) fn new(threads: usize, devices: &[DeviceName]) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let isa = Isa::best().name();
        let mut machine =
            format!("{}, {cores} cores, {threads} threads, {isa}", cpu_name().unwrap_or("CPU".to_owned()));
        let listed = Backends::default().iter().flat_map(|backend| backend.listing().devices).collect::<Vec<_>>();
        for ListedDevice { device, name, .. } in listed.iter().filter(|listed| listed.device != DeviceName::CPU) {
            if devices.contains(device) {
                let _ = write!(machine, "; {device} {name}");
            }
        }
        let command = std::env::args().collect::<Vec<_>>().join(" ");
        Self { machine, command, date: date(SystemTime::now()) }
    }

    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { machine, command, date } = self;
        writeln!(out, "machine: {machine}\ncommand: {command}\ndate: {date}\n")
    }
}

impl Row {
    pub(crate) fn new(model: &str, cell: &Cell) -> Self {
        Self {
            model: model.to_owned(),
            device: cell.device.to_string(),
            precision: cell.precision.to_string(),
            batch: cell.shape.to_string(),
            items: cell.batch.len(),
            weight: cell.weight(),
            distance: cell.distance,
            summary: cell.timings.summary(),
        }
    }

    /// Items per second.
    pub(crate) fn throughput(&self) -> Option<f64> {
        Some(self.items as f64 / self.summary?.median)
    }

    fn cells(&self) -> [String; 12] {
        let or_none = |cell: Option<String>| cell.unwrap_or_else(|| "–".to_owned());
        let of = |figure: fn(&Summary) -> String| or_none(self.summary.as_ref().map(figure));
        let per_second = |amount: usize| or_none(self.summary.map(|it| format!("{:.0}", amount as f64 / it.median)));
        let millijoules = self.summary.and_then(|it| it.joules).map(|joules| joules * 1e3 / self.items as f64);
        [
            self.model.clone(),
            self.device.clone(),
            self.precision.clone(),
            self.batch.clone(),
            or_none(
                self.distance.map(|distance| {
                    if distance > 0.5 { format!("cos {distance:.5}") } else { format!("{distance:.1e}") }
                }),
            ),
            of(|it| seconds(it.median)),
            of(|it| seconds(it.p99)),
            of(|it| format!("{:.0} %", 100.0 * it.spread)),
            per_second(self.items),
            per_second(self.weight),
            or_none(millijoules.map(|millijoules| format!("{millijoules:.2}"))),
            of(|it| it.batches.to_string()),
        ]
    }
}

const HEADER: [&str; 12] = [
    "MODEL",
    "DEVICE",
    "PRECISION",
    "BATCH",
    "FROM CPU f32",
    "MEDIAN",
    "P99",
    "SPREAD",
    "ITEMS/S",
    "TOKENS/S",
    "mJ/ITEM",
    "BATCHES",
];

pub(crate) fn write_table(out: &mut impl Write, rows: &[Row]) -> io::Result<()> {
    let mut cells = vec![HEADER.map(str::to_owned)];
    cells.extend(rows.iter().map(Row::cells));
    table::write(out, &cells)
}

/// Writes one line per row, with numbers in plain units; an unknown value is left empty.
pub(crate) fn write_csv(path: &Path, heading: &Heading, rows: &[Row]) -> io::Result<()> {
    let mut out = csv::Writer::from_writer(BufWriter::new(File::create(path)?));
    out.write_record([
        "model",
        "device",
        "precision",
        "batch",
        "items",
        "weight",
        "distance",
        "batches",
        "median_s",
        "p99_s",
        "spread",
        "items_per_s",
        "weight_per_s",
        "joules_per_item",
        "machine",
        "command",
        "date",
    ])?;
    for row in rows {
        let figure = |figure: Option<f64>| figure.map(|figure| figure.to_string()).unwrap_or_default();
        let of = |part: fn(&Summary) -> f64| figure(row.summary.as_ref().map(part));
        let per_second = |amount: usize| figure(row.summary.map(|it| amount as f64 / it.median));
        out.write_record([
            row.model.as_str(),
            &row.device,
            &row.precision,
            &row.batch,
            &row.items.to_string(),
            &row.weight.to_string(),
            &figure(row.distance),
            &row.summary.map_or(0, |it| it.batches).to_string(),
            &of(|it| it.median),
            &of(|it| it.p99),
            &of(|it| it.spread),
            &per_second(row.items),
            &per_second(row.weight),
            &figure(row.summary.and_then(|it| it.joules).map(|joules| joules / row.items as f64)),
            &heading.machine,
            &heading.command,
            &heading.date,
        ])?;
    }
    out.flush()
}

/// The CPU's name, on Linux.
pub(crate) fn cpu_name() -> Option<String> {
    let told = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = told.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim().to_owned())
}

/// Formats a time as `2026-11-25T16:20:00Z`.
fn date(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// Year, month and day of a number of days since 1970 (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_795_623_600, "2026-11-25T16:20:00Z"),
        ] {
            assert_eq!(date(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }
}
