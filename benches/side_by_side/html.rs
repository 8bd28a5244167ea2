//! The results as one HTML file, with plots and without anything to fetch.
//!
//! In: a [`Report`]. Out: a page. Each work has a strip for each peer: a dot for every round, a bar at the median, and a
//! line at 1, which is nginx. A strip whose dots lie apart says that its median is not worth much.

use std::fmt::Write as _;

use crate::kit::page::{LEFT, RIGHT, WIDTH, escape, head, section, table, tail};
use crate::options::{Peer, Work, name};
use crate::report::Report;
use crate::rounds::{Row, TITLES};

/// The height of a strip, in SVG units.
const STRIP: f64 = 26.0;

/// The whole page.
pub(crate) fn page(report: &Report) -> String {
    let mut page = head("cloudbeds-auth-proxy, side by side");
    let versions: Vec<String> = report.versions.iter().map(|(who, version)| format!("{who} {version}")).collect();
    let _ = write!(
        page,
        "<p>{}; {} cores, {}. {} rounds of {} s each.</p>",
        escape(report.machine["cpu"].as_str().unwrap_or("unknown CPU")),
        report.machine["cores"],
        escape(&versions.join(", ")),
        report.rounds,
        report.seconds
    );
    if !report.rows.is_empty() {
        page += "<p>CPU time per answered request as a ratio to nginx in the same round: less is better. A dot is a \
                 round, a bar the median.</p>";
    }
    let mut works: Vec<Work> = report.rows.iter().map(|row| row.work).collect();
    works.dedup();
    for work in works {
        let rows: Vec<&Row> = report.rows.iter().filter(|row| row.work == work).collect();
        let _ = write!(page, "<h2>{}</h2>{}", title(work), plot(&rows));
    }
    if !report.rows.is_empty() {
        let cells: Vec<Vec<String>> = report.rows.iter().map(Row::cells).collect();
        let _ = write!(page, "<h2>The same in figures</h2>{}", table(&TITLES, &cells));
    }
    report.sections.iter().for_each(|each| page += &section(each));
    page + &tail(&report.notes)
}

fn title(work: Work) -> &'static str {
    match work {
        Work::Json1k => "GET of 1 KiB, 32 connections",
        Work::Json16k => "GET of 16 KiB, 16 connections",
        Work::Down1m => "GET of 1 MiB, 16 connections",
        Work::Up1m => "POST of 1 MiB, 16 connections",
        _ => "",
    }
}

fn plot(rows: &[&Row]) -> String {
    let most = rows.iter().flat_map(|row| &row.ratios).copied().fold(1.0_f64, f64::max);
    let end = (most * 4.0).ceil() / 4.0;
    let x = |ratio: f64| LEFT + ratio / end * (WIDTH - LEFT - RIGHT);
    let bottom = rows.len() as f64 * STRIP;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"ratios by peer\">", bottom + 22.0);
    let steps = (end * 4.0).round() as u32;
    for step in 0..=steps {
        let ratio = f64::from(step) / 4.0;
        let (at, width) = (x(ratio), if step == 4 { 1.6 } else { 0.6 });
        let colour = if step == 4 { "var(--pale)" } else { "var(--line)" };
        let _ = write!(
            svg,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"0\" y2=\"{bottom}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>"
        );
        if steps <= 10 || step % 4 == 0 {
            let _ = write!(
                svg,
                "<text class=\"pale\" x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{ratio}</text>",
                bottom + 16.0
            );
        }
    }
    for (index, row) in rows.iter().enumerate() {
        let middle = (index as f64 + 0.5) * STRIP;
        let colour = if row.peer.is_ours() { "var(--ours)" } else { "var(--other)" };
        let _ = write!(svg, "<text x=\"0\" y=\"{:.1}\">{}</text>", middle + 4.0, name(row.peer));
        for ratio in &row.ratios {
            let _ = write!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{middle}\" r=\"3.6\" fill=\"{colour}\" fill-opacity=\".45\"/>",
                x(*ratio)
            );
        }
        if let Some(ratio) = row.ratio() {
            let (at, top) = (x(ratio), middle - 9.0);
            let _ =
                write!(svg, "<rect x=\"{:.1}\" y=\"{top}\" width=\"3\" height=\"18\" fill=\"{colour}\"/>", at - 1.5);
            let measure = if row.peer == Peer::Nginx { " (the measure)" } else { "" };
            let _ = write!(
                svg,
                "<text x=\"{}\" y=\"{:.1}\"><title>{ratio}{measure}</title>{ratio:.2}</text>",
                WIDTH - RIGHT + 24.0,
                middle + 4.0
            );
        }
    }
    svg + "</svg>"
}
