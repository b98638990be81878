//! Throughput as bars: a group for each model and batch, in which the longest bar is the fastest.

use std::path::Path;

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};
use plotters::coord::Shift;
use plotters::prelude::{BLACK, BitMapBackend, DrawingArea, IntoDrawingArea, RGBColor, Rectangle, WHITE};
use plotters::style::{Color, Palette, Palette99};

use super::report::{Heading, Row};

const WIDTH: u32 = 1200;
const MARGIN: i32 = 20;
const LINE: i32 = 22;
/// Distance of the bars, and of the figures behind them, from the left edge.
const BARS: i32 = 420;
const FIGURES: i32 = 1020;
const TEXT: RasterHeight = RasterHeight::Size16;

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// Draws all rows that were timed into a PNG.
pub(crate) fn draw(png: &Path, heading: &Heading, rows: &[Row]) -> Result<(), String> {
    let lines = rows.len() + groups(rows).len();
    let height = u32::try_from(lines + 5).map_err(|_| "too many rows".to_owned())? * LINE.unsigned_abs();
    let area = BitMapBackend::new(png, (WIDTH, height)).into_drawing_area();
    drawn(&area, heading, rows).map_err(|cause| cause.to_string())
}

fn drawn(area: &Area<'_>, heading: &Heading, rows: &[Row]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    area.fill(&WHITE)?;
    let mut y = MARGIN;
    for line in [&format!("sconce bench, {}", heading.date), &heading.machine] {
        write(area, line, MARGIN, y, BLACK)?;
        y += LINE;
    }
    for group in groups(rows) {
        y += LINE / 2;
        write(area, &format!("{} {}", group[0].model, group[0].batch), MARGIN, y, BLACK)?;
        let fastest = group.iter().filter_map(|row| row.throughput()).fold(0.0, f64::max);
        for row in group {
            write(area, &format!("{} {}", row.device, row.precision), MARGIN + 220, y, BLACK)?;
            let figure = match row.throughput() {
                Some(throughput) => {
                    bar(area, y, throughput / fastest, colour(rows, row))?;
                    format!("{throughput:.0} items/s")
                }
                None => "answers are wrong".to_owned(),
            };
            write(area, &figure, FIGURES, y, BLACK)?;
            y += LINE;
        }
    }
    area.present()?;
    Ok(())
}

/// Groups the rows by model and batch, in the order of the first row of each group.
fn groups(rows: &[Row]) -> Vec<Vec<&Row>> {
    let mut groups: Vec<Vec<&Row>> = Vec::new();
    for row in rows {
        match groups.iter_mut().find(|group| (&group[0].model, &group[0].batch) == (&row.model, &row.batch)) {
            Some(group) => group.push(row),
            None => groups.push(vec![row]),
        }
    }
    groups
}

/// The colour of a device and precision, which is the same in every group.
fn colour(rows: &[Row], row: &Row) -> RGBColor {
    let kind = |row: &Row| (row.device.clone(), row.precision.clone());
    let mut kinds: Vec<_> = rows.iter().map(kind).collect();
    kinds.sort();
    kinds.dedup();
    let at = kinds.iter().position(|one| *one == kind(row)).unwrap_or(0);
    let (red, green, blue) = Palette99::COLORS[at % Palette99::COLORS.len()];
    RGBColor(red, green, blue)
}

fn bar(area: &Area<'_>, y: i32, part: f64, colour: RGBColor) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    #[expect(clippy::cast_possible_truncation, reason = "a part of the width")]
    let length = (part * f64::from(FIGURES - MARGIN - BARS)) as i32;
    area.draw(&Rectangle::new([(BARS, y), (BARS + length.max(1), y + LINE - 6)], colour.filled()))?;
    Ok(())
}

/// Draws text pixel by pixel, because plotters takes fonts from the system, and many servers have none.
fn write(
    area: &Area<'_>,
    text: &str,
    x: i32,
    y: i32,
    RGBColor(red, green, blue): RGBColor,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let advance = i32::try_from(get_raster_width(FontWeight::Regular, TEXT))?;
    for (letter, left) in text.chars().zip((x..).step_by(advance.unsigned_abs() as usize)) {
        let Some(raster) = get_raster(letter, FontWeight::Regular, TEXT) else { continue };
        for (row, top) in raster.rows().zip(y..) {
            for (shade, at) in row.iter().zip(left..).filter(|(shade, _)| **shade > 0) {
                let colour = RGBColor(red, green, blue).mix(f64::from(*shade) / 255.0);
                area.draw_pixel((at, top), &colour)?;
            }
        }
    }
    Ok(())
}
