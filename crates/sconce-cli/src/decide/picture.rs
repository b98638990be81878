//! Accuracy against cost as an SVG picture that can be read on a light and on a dark page.

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::{
    Cartesian2d, ChartBuilder, ChartContext, Circle, DrawingArea, EmptyElement, IntoDrawingArea, PathElement, RGBColor,
    SVGBackend, Text,
};
use plotters::style::{Color, IntoFont as _, ShapeStyle};
use sconce::decide::{DecidedCandidate, DecisionRecord, ServingVerdict, candidate_name, money, pareto};

const SIZE: (u32, u32) = (900, 480);
/// Width of the picture that the names of candidates take.
const NAMES: u32 = 250;
const LINE: i32 = 24;
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
const FONT: &str = "system-ui, sans-serif";

/// Colours by verdict, each readable on white and on near black.
fn colour(verdict: ServingVerdict) -> RGBColor {
    match verdict {
        ServingVerdict::Chosen => RGBColor(0x1a, 0x8f, 0x4a),
        ServingVerdict::Allowed => RGBColor(0x2f, 0x7f, 0xd6),
        ServingVerdict::Refused => RGBColor(0xd6, 0x4b, 0x3c),
    }
}

/// Ink and grid change with the page: rules of a style count more than attributes.
const DARK: &str = "<style>@media (prefers-color-scheme: dark) { \
    text[fill='#222222'] { fill: #e6e6e6 } [stroke='#222222'] { stroke: #e6e6e6 } [stroke='#DDDDDD'] { stroke: #444444 } }\
    </style>";

/// Draws the candidates of a record: to the left what is cheap, above what is accurate. A candidate may serve if its whole
/// interval is above the line.
pub(crate) fn svg(record: &DecisionRecord) -> Result<String, String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        draw(&area, record).map_err(|cause| cause.to_string())?;
    }
    let begin = svg.find("<svg").and_then(|at| svg[at..].find('>').map(|end| at + end + 1)).ok_or("not an SVG")?;
    svg.insert_str(begin, DARK);
    Ok(svg)
}

type Drawn = Result<(), Box<dyn std::error::Error + Send + Sync>>;
type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

fn draw(area: &Canvas<'_>, record: &DecisionRecord) -> Drawn {
    let candidates = &record.candidates;
    let text = (FONT, 14).into_font().color(&INK);
    let (left, right) = area.split_horizontally(SIZE.0 - NAMES);
    let allowed = -record.policy.max_drop.of(candidates[0].measured.accuracy.value);
    let (most, changes) = (highest_cost(candidates), changes(candidates, allowed));
    let reference = &candidates[0].candidate.precision;
    let mut chart = ChartBuilder::on(&left)
        .caption(format!("{}: accuracy against cost", record.model.name), (FONT, 18).into_font().color(&INK))
        .margin(16)
        .x_label_area_size(48)
        .y_label_area_size(80)
        .build_cartesian_2d(0.0..most, changes.0..changes.1)?;
    chart
        .configure_mesh()
        .label_style(text.clone())
        .axis_desc_style(text.clone())
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(GRID.mix(0.0))
        .x_labels(6)
        .y_labels(6)
        .x_label_formatter(&|cost| money(*cost))
        .y_label_formatter(&|change| if change.abs() < 5e-5 { "0".to_owned() } else { format!("{change:+.4}") })
        .x_desc("cost of a million requests")
        .y_desc(format!("{} compared with {reference}", record.policy.metric))
        .draw()?;
    let refused = colour(ServingVerdict::Refused);
    chart.draw_series([PathElement::new(vec![(0.0, allowed), (most, allowed)], stroke(refused, 1))])?;
    chart.draw_series([EmptyElement::at((0.0, allowed))
        + Text::new("the whole interval must be above", (6, 4), (FONT, 12).into_font().color(&refused))])?;
    draw_candidates(&mut chart, candidates)?;
    draw_names(&right, candidates)?;
    area.present()?;
    Ok(())
}

/// Draws the front, and each candidate with its interval and its number.
fn draw_candidates(chart: &mut Chart<'_, '_>, candidates: &[DecidedCandidate]) -> Drawn {
    let marked = candidates.iter().zip(pareto(candidates));
    let mut front: Vec<_> = marked.filter_map(|(it, on_front)| on_front.then_some(place(it))).collect();
    front.sort_by(|a, b| a.0.total_cmp(&b.0));
    chart.draw_series([PathElement::new(front, stroke(GRID, 2))])?;
    for (it, number) in candidates.iter().zip(1..) {
        let (at, ink) = (place(it), colour(it.verdict));
        let ends = vec![(at.0, -it.measured.drop.high), (at.0, -it.measured.drop.low)];
        chart.draw_series([PathElement::new(ends, stroke(ink, 2))])?;
        let radius = if it.verdict == ServingVerdict::Chosen { 9 } else { 6 };
        let number = Text::new(format!("{number}"), (10, -18), (FONT, 14).into_font().color(&INK));
        chart.draw_series([EmptyElement::at(at) + Circle::new((0, 0), radius, ink.filled()) + number])?;
    }
    Ok(())
}

/// Writes the names of candidates by their numbers.
fn draw_names(area: &Canvas<'_>, candidates: &[DecidedCandidate]) -> Drawn {
    for ((it, number), y) in candidates.iter().zip(1..).zip((60..).step_by(LINE.unsigned_abs() as usize)) {
        let name = format!("{number}  {}{}", candidate_name(&it.candidate, candidates), mark(it.verdict));
        area.draw(&Circle::new((8, y), 6, colour(it.verdict).filled()))?;
        area.draw(&Text::new(name, (22, y - 6), (FONT, 14).into_font().color(&INK)))?;
    }
    Ok(())
}

fn stroke(colour: RGBColor, width: u32) -> ShapeStyle {
    ShapeStyle { color: colour.to_rgba(), filled: false, stroke_width: width }
}

fn mark(verdict: ServingVerdict) -> &'static str {
    match verdict {
        ServingVerdict::Chosen => " (chosen)",
        ServingVerdict::Allowed => "",
        ServingVerdict::Refused => " (refused)",
    }
}

/// Cost, and change of accuracy.
fn place(candidate: &DecidedCandidate) -> (f64, f64) {
    (candidate.measured.cost_per_million, -candidate.measured.drop.value)
}

fn highest_cost(candidates: &[DecidedCandidate]) -> f64 {
    let costs = candidates.iter().map(|it| it.measured.cost_per_million).filter(|cost| cost.is_finite());
    // The axis needs a length, even if everything is free.
    costs.fold(0.0, f64::max).max(1e-6) * 1.15
}

/// The ends of the axis of changes.
fn changes(candidates: &[DecidedCandidate], allowed: f64) -> (f64, f64) {
    let ends = candidates.iter().flat_map(|it| [-it.measured.drop.high, -it.measured.drop.low]);
    let ends = ends.chain([0.0, allowed]).filter(|change| change.is_finite());
    let (least, most) = ends.fold((0f64, 0f64), |(least, most), change| (least.min(change), most.max(change)));
    let margin = ((most - least) * 0.1).max(1e-4);
    (least - margin, most + margin)
}
