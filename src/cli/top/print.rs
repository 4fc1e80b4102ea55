//! One frame of `smith top` as lines of text, or as JSON for scripts; and the cells of a row, as
//! the screen shows them, too.

use serde_json::{Value, json};

use super::Frame;
use super::model::{Model, Row};

/// The columns, and how wide each is; the first one is as wide as it has to be.
pub(super) const COLUMNS: [(&str, usize); 9] = [
    ("PATH", 24),
    ("STATE", 11),
    ("MBOX", 10),
    ("RATE", 8),
    ("P99", 8),
    ("BUSY%", 5),
    ("RESTARTS", 8),
    ("SPARK", 12),
    ("WARN", 0),
];

/// Columns of numbers stand at the right.
pub(super) const RIGHT: [bool; 9] = [false, false, true, true, true, true, true, false, false];

/// A row in words, one a column.
pub(super) fn cells(model: &Model, row: &Row<'_>) -> [String; 9] {
    let (depth, slot, folded) = match row {
        Row::Slot { depth, slot, folded } => (*depth, slot, *folded),
        Row::More { depth, count } => {
            let mut cells: [String; 9] = Default::default();
            cells[0] = format!("{}  … {count} more", "  ".repeat(*depth));
            return cells;
        }
    };
    let sign = match (slot.children, folded) {
        (0, _) => ' ',
        (_, true) => '▸',
        (_, false) => '▾',
    };
    let some = |value: Option<String>| value.unwrap_or_default();
    [
        format!("{}{sign} {}", "  ".repeat(depth), plain(&slot.id)),
        slot.state.clone(),
        some(slot.mailbox.map(|depth| match (depth, slot.capacity) {
            (0, _) | (_, None) => depth.to_string(),
            (_, Some(capacity)) => format!("{depth}/{capacity}"),
        })),
        some(
            slot.rate
                .map(|rate| if rate < 10.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }),
        ),
        some(slot.p99_us.map(time)),
        some(slot.busy_percent.map(|busy| format!("{busy:.0}"))),
        match slot.restarts {
            0 => String::new(),
            restarts => restarts.to_string(),
        },
        model.spark(&slot.path),
        slot.warnings.join(" "),
    ]
}

/// A name without what would move a terminal's cursor: an id may be anything.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '·' } else { letter }).collect()
}

/// A time with a unit that suits it.
fn time(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{} ms", us / 1_000),
        _ => format!("{} s", us / 1_000_000),
    }
}

/// A frame as lines.
pub(super) fn text(model: &Model) -> String {
    let rows: Vec<[String; 9]> = model.rows().iter().map(|row| cells(model, row)).collect();
    let mut widths = COLUMNS.map(|(_, width)| width);
    for row in &rows {
        widths[0] = widths[0].max(row[0].chars().count());
    }
    let line = |cells: &[String; 9]| {
        let mut line = String::new();
        for (n, cell) in cells.iter().enumerate() {
            let width = widths[n];
            match RIGHT[n] {
                true => line.push_str(&format!("{cell:>width$}  ")),
                false => line.push_str(&format!("{cell:<width$}  ")),
            }
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    };
    let [first, second] = model.header();
    let mut text = format!("{}\n{}\n\n", plain(&first), plain(&second));
    text.push_str(&line(&COLUMNS.map(|(name, _)| name.to_owned())));
    rows.iter().for_each(|row| text.push_str(&line(row)));
    if !model.lints.is_empty() {
        text.push('\n');
    }
    for lint in &model.lints {
        text.push_str(&format!("{}\n", sentence(lint)));
    }
    text
}

/// What is wrong, in one line.
pub(super) fn sentence(lint: &Value) -> String {
    let word = |name: &str| plain(lint[name].as_str().unwrap_or_default());
    format!("{:<8} {}: {}", word("severity"), word("path"), word("text"))
}

/// A frame as data.
pub(super) fn json(model: &Model, frame: &Frame) -> Value {
    let rows = model.rows();
    let slots = rows.iter().filter_map(|row| match row {
        Row::Slot { slot, .. } => Some(slot),
        Row::More { .. } => None,
    });
    json!({
        "at": frame.tree["at"], "seq": frame.tree["seq"], "node": frame.node, "rate": model.rate,
        "actors": slots.collect::<Vec<_>>(), "lints": model.lints,
    })
}
