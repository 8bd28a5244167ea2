//! A page that holds all it needs: its style, tables, and curves over time.
//!
//! In: tables and series. Out: HTML without anything to fetch.

use std::fmt::Write as _;

use super::section::{Section, Series};

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
pub(crate) const WIDTH: f64 = 820.0;
pub(crate) const LEFT: f64 = 100.0;
pub(crate) const RIGHT: f64 = 70.0;

/// Up to the heading and with it.
pub(crate) fn head(title: &str) -> String {
    let title = escape(title);
    format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
         <style>{STYLE}</style></head><body><h1>{title}</h1>"
    )
}

/// A table with its heading and its curves.
pub(crate) fn section(section: &Section) -> String {
    let curves: String = section.series.iter().map(course).collect();
    format!("<h2>{}</h2>{}{curves}", escape(&section.title), table(&section.titles, &section.rows))
}

/// Notes, if there are any, and the end.
pub(crate) fn tail(notes: &[String]) -> String {
    let items: String = notes.iter().map(|note| format!("<li>{}</li>", escape(note))).collect();
    let list = if notes.is_empty() { String::new() } else { format!("<h2>Notes</h2><ul>{items}</ul>") };
    list + "</body></html>\n"
}

/// A value over time, from nothing up: a line that is level means a value that stays.
pub(crate) fn course(series: &Series) -> String {
    const HEIGHT: f64 = 120.0;
    let most = series.points.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let most = if most > 0.0 { most } else { 1.0 };
    let end = series.points.last().map_or(1.0, |(at, _)| *at);
    let width = WIDTH - LEFT - RIGHT;
    let mut line = String::new();
    for (at, value) in &series.points {
        let y = HEIGHT - value / most * (HEIGHT - 10.0);
        let _ = write!(line, "{:.1},{y:.1} ", LEFT + at / end * width);
    }
    let (name, unit) = (escape(&series.name), series.unit);
    let top = if most < 100.0 { (most * 10.0).round() / 10.0 } else { most.round() };
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{name} over time\">\
         <text x=\"0\" y=\"{}\">{name}</text><text class=\"pale\" x=\"{}\" y=\"14\">{top}</text>\
         <line x1=\"{LEFT}\" x2=\"{}\" y1=\"{HEIGHT}\" y2=\"{HEIGHT}\" stroke=\"var(--line)\"/>\
         <polyline points=\"{line}\" fill=\"none\" stroke=\"var(--ours)\" stroke-width=\"1.6\"/>\
         <text class=\"pale\" x=\"{LEFT}\" y=\"{}\">0 {unit}</text>\
         <text class=\"pale\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{end:.0} {unit}</text></svg>",
        HEIGHT + 18.0,
        HEIGHT / 2.0,
        WIDTH - RIGHT + 24.0,
        WIDTH - RIGHT,
        HEIGHT + 14.0,
        WIDTH - RIGHT,
        HEIGHT + 14.0,
    )
}

/// A table; columns of words to the left, of numbers to the right.
pub(crate) fn table(titles: &[&str], rows: &[Vec<String>]) -> String {
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

/// Text as it may stand in a page.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
