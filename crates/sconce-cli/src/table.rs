//! Columns as wide as what is in them.

use std::io::{self, Write};

/// Writes rows below each other, of which the first is the header.
pub(crate) fn write<const COLUMNS: usize>(out: &mut impl Write, rows: &[[String; COLUMNS]]) -> io::Result<()> {
    write_rows(out, rows)
}

/// As [`write()`], where the number of columns is not known beforehand; it is the first row's.
pub(crate) fn write_rows(out: &mut impl Write, rows: &[impl AsRef<[String]>]) -> io::Result<()> {
    let columns = rows.first().map_or(0, |row| row.as_ref().len());
    let cell = |row: &[String], column: usize| row.get(column).map_or(0, |cell| cell.chars().count());
    let width = |column: usize| rows.iter().map(|row| cell(row.as_ref(), column)).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells = row.as_ref().iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}
