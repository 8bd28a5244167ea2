//! The results as one HTML file, with plots and without anything to fetch.
//!
//! In: a [`Report`]. Out: a page. Each work has a strip for each peer: a dot for every round, a bar at the median, and a
//! line at 1, which is nginx. A strip whose dots lie apart says that its median is not worth much.

use std::fmt::Write as _;

use crate::options::{Peer, Work, name};
use crate::report::{Report, Series};
use crate::rounds::{Row, TITLES};

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1c2430;--pale:#667085;--line:#d5dae1;--ours:#0b6e4f;--other:#8a5a00;--page:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--pale:#9aa4b2;--line:#39424e;--ours:#4cc38a;--other:#e0a94a;--page:#14181d}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:860px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.05rem;margin:2rem 0 .4rem}p,li{color:var(--pale)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
td,th{padding:.25rem .6rem;border-bottom:1px solid var(--line);text-align:right}
td:first-child,th:first-child,td.w,th.w{text-align:left}th{font-weight:600}
svg{width:100%;height:auto;display:block}svg text{fill:var(--ink);font:12px system-ui,sans-serif}svg .pale{fill:var(--pale)}
.wide{overflow-x:auto}";

/// Plot geometry, in SVG units.
const WIDTH: f64 = 820.0;
const LEFT: f64 = 100.0;
const RIGHT: f64 = 70.0;
const STRIP: f64 = 26.0;

/// The whole page.
pub(crate) fn page(report: &Report) -> String {
    let mut page = String::from("<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">");
    page += "<meta name=\"viewport\" content=\"width=device-width\"><title>cloudbeds-auth-proxy, side by side</title>";
    let _ = write!(page, "<style>{STYLE}</style></head><body><h1>cloudbeds-auth-proxy, side by side</h1>");
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
    for section in &report.sections {
        let _ = write!(page, "<h2>{}</h2>{}", escape(section.title), table(&section.titles, &section.rows));
        section.series.iter().for_each(|series| page += &course(series));
    }
    if !report.notes.is_empty() {
        page += "<h2>Notes</h2><ul>";
        report.notes.iter().for_each(|note| page += &format!("<li>{}</li>", escape(note)));
        page += "</ul>";
    }
    page + "</body></html>\n"
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

/// A value over time, from nothing up: a line that is level means a value that stays.
fn course(series: &Series) -> String {
    const HEIGHT: f64 = 120.0;
    let most = series.points.iter().map(|(_, value)| *value).max().unwrap_or(0).max(1);
    let end = series.points.last().map_or(1.0, |(at, _)| *at);
    let width = WIDTH - LEFT - RIGHT;
    let mut line = String::new();
    for (at, value) in &series.points {
        let y = HEIGHT - *value as f64 / most as f64 * (HEIGHT - 10.0);
        let _ = write!(line, "{:.1},{y:.1} ", LEFT + at / end * width);
    }
    let name = escape(&series.name);
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{name} over time\">\
         <text x=\"0\" y=\"{}\">{name}</text><text class=\"pale\" x=\"{}\" y=\"14\">{most}</text>\
         <line x1=\"{LEFT}\" x2=\"{}\" y1=\"{HEIGHT}\" y2=\"{HEIGHT}\" stroke=\"var(--line)\"/>\
         <polyline points=\"{line}\" fill=\"none\" stroke=\"var(--ours)\" stroke-width=\"1.6\"/>\
         <text class=\"pale\" x=\"{LEFT}\" y=\"{}\">0 s</text>\
         <text class=\"pale\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{end:.0} s</text></svg>",
        HEIGHT + 18.0,
        HEIGHT / 2.0,
        WIDTH - RIGHT + 24.0,
        WIDTH - RIGHT,
        HEIGHT + 14.0,
        WIDTH - RIGHT,
        HEIGHT + 14.0,
    )
}

fn table(titles: &[&str], rows: &[Vec<String>]) -> String {
    let word = |cell: &str| !cell.starts_with(|first: char| first.is_ascii_digit() || first == '–');
    let mut html = String::from("<div class=\"wide\"><table><tr>");
    for (column, title) in titles.iter().enumerate() {
        let class = if rows.first().is_some_and(|row| word(&row[column])) { " class=\"w\"" } else { "" };
        let _ = write!(html, "<th{class}>{}</th>", escape(title));
    }
    html += "</tr>";
    for row in rows {
        html += "<tr>";
        for cell in row {
            let class = if word(cell) { " class=\"w\"" } else { "" };
            let _ = write!(html, "<td{class}>{}</td>", escape(cell));
        }
        html += "</tr>";
    }
    html + "</table></div>"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
