//! The history of a dataset as a picture.

use std::fmt::Write;

use super::report;
use crate::store::{Column, History, Rewrites, VersionRewrites};

/// Width of the bars, in pixels.
const BAR_WIDTH: f64 = 800.0;
/// Space for the versions' names.
const NAMES_WIDTH: f64 = 220.0;
/// Of each version, with the gap below it.
const ROW_HEIGHT: f64 = 16.0;
/// Above the first version.
const TOP: f64 = 60.0;
/// Below the last one, for the legend.
const BOTTOM: f64 = 46.0;
/// A name is cut behind so many characters.
const NAME_CHARS: usize = 28;

const STYLE: &str = "\
text{font:12px sans-serif;fill:#24292f}.t{font-size:15px;font-weight:bold}.s{fill:#57606a}\
.k{fill:#9db7d9}.c{fill:#d9480f}.u{fill:#eceff2}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.s{fill:#9198a1}.k{fill:#39577f}.c{fill:#ff8a4c}.u{fill:#262c34}}";

/// Draws a line for each version, oldest first; hovering over it tells its name, time and what it rewrote.
pub(super) fn picture(history: &History, dataset: &str, rewrites: &Rewrites) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a place in a picture")]
    let (rows, columns) = (
        rewrites.versions.len() as f64,
        rewrites.versions.first().map_or(1, |row| row.columns.len()) as f64,
    );
    let (width, height) = (
        NAMES_WIDTH + BAR_WIDTH + 20.0,
        TOP + rows * ROW_HEIGHT + BOTTOM,
    );
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\"><style>{STYLE}</style>\n<text class=\"t\" x=\"10\" y=\"24\">{}</text>\n\
         <text class=\"s\" x=\"10\" y=\"44\">{}, {}: from the first chunk to the last</text>\n",
        escaped(dataset),
        report::counted(rewrites.versions.len() as u64, "version"),
        report::counted(rewrites.cells, "chunk"),
    );
    let mut y = TOP;
    for row in &rewrites.versions {
        put_row(&mut svg, history, row, y, BAR_WIDTH / columns);
        y += ROW_HEIGHT;
    }
    put_legend(&mut svg, y + 18.0);
    svg.push_str("</svg>\n");
    svg
}

fn put_row(svg: &mut String, history: &History, row: &VersionRewrites, y: f64, column_width: f64) {
    let name = report::version_name(history, row.version);
    let time = history.version(row.version).timestamp;
    let (changed, all) = row.columns.iter().fold((0, 0), |(changed, all), column| {
        let inside = column.changed + column.kept + column.unmapped;
        (changed + column.changed, all + inside)
    });
    let told = format!(
        "{name}{}: {changed} of {} rewritten",
        time.map_or_else(String::new, |time| format!(
            ", {}",
            report::both_times(time)
        )),
        report::counted(all, "chunk"),
    );
    let short: String = if name.chars().count() > NAME_CHARS {
        name.chars().take(NAME_CHARS - 1).chain(['…']).collect()
    } else {
        name
    };
    write!(
        svg,
        "<g><title>{}</title><text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
        escaped(&told),
        NAMES_WIDTH - 8.0,
        y + 11.0,
        escaped(&short)
    )
    .expect("writing to memory");
    let mut x = NAMES_WIDTH;
    for run in row.columns.chunk_by(|a, b| look(a) == look(b)) {
        #[expect(clippy::cast_precision_loss, reason = "a place in a picture")]
        let width = run.len() as f64 * column_width;
        if let Some((class, opacity)) = look(&run[0]) {
            write!(
                svg,
                "<rect class=\"{class}\" x=\"{x:.2}\" y=\"{y}\" width=\"{width:.2}\" height=\"{}\"",
                ROW_HEIGHT - 3.0
            )
            .expect("writing to memory");
            if opacity < 10 {
                write!(svg, " opacity=\"0.{opacity}\"").expect("writing to memory");
            }
            svg.push_str("/>");
        }
        x += width;
    }
    svg.push_str("</g>\n");
}

/// The class of a column's rectangle, and its opacity in tenths; `None` where there is nothing.
fn look(column: &Column) -> Option<(&'static str, u64)> {
    let inside = column.changed + column.kept + column.unmapped;
    match column {
        _ if inside == 0 => None,
        // Half of the scale is for how much of the column changed: a single chunk is to be seen too.
        Column { changed, .. } if *changed > 0 => Some(("c", 5 + changed * 5 / inside)),
        Column { kept: 0, .. } => Some(("u", 10)),
        _ => Some(("k", 10)),
    }
}

fn put_legend(svg: &mut String, y: f64) {
    let mut x = NAMES_WIDTH;
    for (class, text) in [
        ("c", "rewritten by this version"),
        ("k", "shared with its parent"),
        ("u", "fill value, not stored"),
    ] {
        write!(
            svg,
            "<rect class=\"{class}\" x=\"{x}\" y=\"{}\" width=\"12\" height=\"12\"/><text class=\"s\" x=\"{}\" y=\"{}\">{text}</text>",
            y - 10.0,
            x + 18.0,
            y
        )
        .expect("writing to memory");
        x += 220.0;
    }
    svg.push('\n');
}

/// Text as XML has it. Characters that XML cannot have become a replacement character.
fn escaped(text: &str) -> String {
    text.chars()
        .map(|character| match character {
            '&' => "&amp;".to_owned(),
            '<' => "&lt;".to_owned(),
            '>' => "&gt;".to_owned(),
            '"' => "&quot;".to_owned(),
            character if character.is_control() => '\u{fffd}'.to_string(),
            character => character.to_string(),
        })
        .collect()
}
