//! Tables on standard output, whose columns are as wide as their widest cell.

use std::io::{self, Write};

/// Writes `rows` below each other; the first is the header.
pub(crate) fn write<const COLUMNS: usize>(out: &mut impl Write, rows: &[[String; COLUMNS]]) -> io::Result<()> {
    write_rows(out, rows)
}

/// Does what [`write()`] does for a number of columns that the first row decides.
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
