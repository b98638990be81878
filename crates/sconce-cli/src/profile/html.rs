//! The picture of a profile: one HTML file that needs no other, with two bars of stages and every latency over time.

use std::fmt::Write as _;

use super::{StageProfile, time};
use crate::replay::{ReplayOutcome, STAGES};

/// A colour for each stage, in their order, that readers with any colour vision tell apart (Okabe and Ito).
const COLOURS: [&str; STAGES.len()] = ["#56b4e9", "#e69f00", "#cc79a7", "#0072b2", "#009e73", "#999999"];

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 260.0;
/// Room for the labels of the axes.
const LEFT: f64 = 70.0;
const BELOW: f64 = 24.0;

/// Points of the picture at most; of more requests every so many are drawn, and the slowest all.
const MAX_POINTS: usize = 4000;

pub(super) fn page(profile: &StageProfile) -> String {
    let mut page = String::new();
    let title = escaped(&profile.heading());
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>sconce profile: {title}</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<style>\n\
         body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 960px; margin: 2em auto; padding: 0 1em; color: #222; background: #fff }}\n\
         table {{ border-collapse: collapse }} td, th {{ padding: .2em .8em; text-align: right; border-bottom: 1px solid #ddd }}\n\
         td:first-child, th:first-child {{ text-align: left }} svg {{ width: 100%; height: auto }} i {{ display: inline-block; width: .8em; height: .8em; margin-right: .4em }}\n\
         </style></head><body>\n<h1>{title}</h1>\n<p>Load: {}<br>{}</p>\n<p><b>{}</b></p>\n",
        escaped(&profile.origin),
        escaped(&profile.answers()),
        escaped(&profile.bottleneck())
    );
    let shares: [f64; STAGES.len()] = std::array::from_fn(|stage| profile.figures.share(stage));
    page.push_str(&bar("All requests: share of each stage", &shares));
    page.push_str(&bar("The slowest 1 % of the requests", &profile.shares_of_slowest()));
    page.push_str(&stage_table(profile));
    page.push_str(&latencies(profile));
    page.push_str("</body></html>\n");
    page
}

/// One bar, cut into the stages.
fn bar(title: &str, shares: &[f64; STAGES.len()]) -> String {
    let mut svg = format!("<h2>{title}</h2>\n<svg viewBox=\"0 0 {WIDTH} 44\" role=\"img\" aria-label=\"{title}\">\n");
    let mut left = 0.0;
    for ((share, name), colour) in shares.iter().zip(STAGES).zip(COLOURS) {
        let width = share * WIDTH;
        let _ = writeln!(
            svg,
            "<rect x=\"{left:.1}\" y=\"0\" width=\"{width:.1}\" height=\"40\" fill=\"{colour}\"><title>{name}: {:.1} %</title></rect>",
            share * 100.0
        );
        if width > 80.0 {
            let middle = left + width / 2.0;
            let _ = writeln!(
                svg,
                "<text x=\"{middle:.1}\" y=\"25\" text-anchor=\"middle\" font-size=\"13\" fill=\"#fff\">{name} {:.0} %</text>",
                share * 100.0
            );
        }
        left += width;
    }
    svg.push_str("</svg>\n");
    svg
}

fn stage_table(profile: &StageProfile) -> String {
    let mut table = "<table><tr><th>stage<th>share<th>mean<th>p50<th>p99<th>mean of slowest 1 %</tr>\n".to_owned();
    let figures = &profile.figures;
    for ((stage, name), colour) in STAGES.iter().enumerate().zip(COLOURS) {
        let times = &figures.stages[stage];
        let quantile = |part| time(times.quantile(part).as_secs_f64());
        let _ = writeln!(
            table,
            "<tr><td><i style=\"background:{colour}\"></i>{name}<td>{:.1} %<td>{}<td>{}<td>{}<td>{}</tr>",
            figures.share(stage) * 100.0,
            time(times.mean()),
            quantile(0.5),
            quantile(0.99),
            time(figures.of_slowest[stage])
        );
    }
    let quantile = |part| time(figures.latency.quantile(part).as_secs_f64());
    let mean = time(figures.latency.mean());
    let slowest = time(figures.of_slowest.iter().sum());
    let _ = writeln!(
        table,
        "<tr><td>all<td>100 %<td>{mean}<td>{}<td>{}<td>{slowest}</tr></table>",
        quantile(0.5),
        quantile(0.99)
    );
    table
}

/// Every answered request as a point, by its time of arrival and its latency on a logarithmic axis.
fn latencies(profile: &StageProfile) -> String {
    let answered = profile.replayed.iter().filter(|request| matches!(request.outcome, ReplayOutcome::Answered { .. }));
    let points: Vec<(f64, f64)> =
        answered.map(|it| (it.at.as_secs_f64(), it.latency.as_secs_f64().max(1e-6))).collect();
    let Some(end) = points.iter().map(|(at, _)| *at).reduce(f64::max) else { return String::new() };
    let low = points.iter().map(|(_, latency)| *latency).fold(f64::INFINITY, f64::min).log10().floor();
    let high = points.iter().map(|(_, latency)| *latency).fold(0.0, f64::max).log10().ceil().max(low + 1.0);
    let p99 = profile.figures.latency.quantile(0.99).as_secs_f64();
    let x = |at: f64| LEFT + at / end.max(1e-9) * (WIDTH - LEFT - 5.0);
    let y = |latency: f64| (high - latency.log10()) / (high - low) * (HEIGHT - BELOW);
    let mut svg = format!(
        "<h2>Latency of each request</h2>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"latency over time\">\n"
    );
    let mut power = low;
    while power <= high {
        let at = y(10_f64.powf(power));
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"12\" fill=\"#555\">{}</text>",
            LEFT - 6.0,
            at.max(10.0),
            time(10_f64.powf(power))
        );
        power += 1.0;
    }
    let every = points.len().div_ceil(MAX_POINTS);
    for (index, (at, latency)) in points.iter().enumerate() {
        if index % every == 0 || *latency >= p99 {
            let _ = write!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"1.6\" fill=\"#0072b2\" opacity=\".5\"/>",
                x(*at),
                y(*latency)
            );
        }
    }
    let (line, label) = (y(p99.max(1e-6)), time(p99));
    let _ = writeln!(
        svg,
        "\n<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{line:.1}\" y2=\"{line:.1}\" stroke=\"#d55e00\"/>\
         <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"12\" fill=\"#d55e00\">p99 {label}</text>\
         <text x=\"{WIDTH}\" y=\"{}\" text-anchor=\"end\" font-size=\"12\" fill=\"#555\">{end:.1} s</text>\n</svg>",
        WIDTH - 4.0,
        line - 4.0,
        HEIGHT - 6.0
    );
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
