//! The state of `smith top` on a screen. Draws and decides nothing.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row, Table, TableState, Wrap};
use serde_json::Value;

use super::keys::{Mode, Screen};
use super::model;
use super::print::{COLUMNS, RIGHT, cells, plain, sentence};

const HELP: &str = "\
arrows, page keys   select
space, Enter        fold or unfold; ← and → too
/                   search; Esc ends it
s r m b             sort by state, restarts, mailbox, busy; once more: as the tree
f                   failures of the selected actor
k                   kill it: first what would happen, then a reason
R                   restart it in order, as above
q                   quit

RATE is messages a second, BUSY% the share of the time in which it handled one,
MBOX what waits (and the room there is), SPARK the last rates. A dynamic
supervisor shows the worst of its children; --children shows more.";

/// Lines of what is wrong that are shown below the table.
const LINTS: usize = 3;

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, screen: &mut Screen) {
    let lints = screen.model.lints.len().min(LINTS) as u16;
    let [header, _, table, below, bottom] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(lints),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let [first, second] = screen.model.header();
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let dim = Style::new().add_modifier(Modifier::DIM);
    let header_lines = [Line::styled(plain(&first), bold), Line::styled(plain(&second), dim)];
    frame.render_widget(Paragraph::new(header_lines.to_vec()), header);
    rows(frame, table, screen);
    let lints = screen.model.lints.iter().take(LINTS);
    let lints = lints.map(|lint| Line::styled(sentence(lint), severity(lint)));
    frame.render_widget(Paragraph::new(lints.collect::<Vec<_>>()), below);
    frame.render_widget(Paragraph::new(footer(screen)), bottom);
    over(frame, screen);
}

fn rows(frame: &mut Frame<'_>, area: Rect, screen: &mut Screen) {
    let index = screen.index();
    screen.height = usize::from(area.height.saturating_sub(1));
    let mut state = TableState::new().with_offset(screen.offset).with_selected(index);
    let rows: Vec<(Style, [String; 9])> =
        screen.model.rows().iter().map(|row| (style(row), cells(&screen.model, row))).collect();
    let widest = rows.iter().map(|(_, cells)| cells[0].chars().count()).max().unwrap_or(0);
    // The path may take half of a wide screen, and no more: the numbers are what is looked for.
    let path = widest.clamp(COLUMNS[0].1, usize::from(area.width / 2).max(COLUMNS[0].1));
    let widths = COLUMNS.iter().enumerate().map(|(n, (_, width))| match n {
        0 => Constraint::Length(u16::try_from(path).unwrap_or(u16::MAX)),
        8 => Constraint::Fill(1),
        _ => Constraint::Length(*width as u16),
    });
    let aligned = |n: usize, text: String| {
        let side = if RIGHT[n] { Alignment::Right } else { Alignment::Left };
        Cell::from(Line::from(text).alignment(side))
    };
    let head = COLUMNS.iter().enumerate().map(|(n, (name, _))| aligned(n, (*name).to_owned()));
    let head = Row::new(head).style(Style::new().add_modifier(Modifier::BOLD));
    let body = rows.into_iter().map(|(style, cells)| {
        Row::new(cells.into_iter().enumerate().map(|(n, text)| aligned(n, text))).style(style)
    });
    let table = Table::new(body, widths)
        .header(head)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    frame.render_stateful_widget(table, area, &mut state);
    screen.offset = state.offset();
}

fn style(row: &model::Row<'_>) -> Style {
    match row {
        model::Row::More { .. } => Style::new().add_modifier(Modifier::DIM),
        model::Row::Slot { slot, .. } => match slot.state.as_str() {
            "up" if slot.warnings.is_empty() => Style::new(),
            "down" | "stuck" | "failed" => Style::new().fg(Color::Red),
            _ => Style::new().fg(Color::Yellow),
        },
    }
}

fn severity(lint: &Value) -> Style {
    match lint["severity"].as_str() {
        Some("error") => Style::new().fg(Color::Red),
        Some("warning") => Style::new().fg(Color::Yellow),
        _ => Style::new().add_modifier(Modifier::DIM),
    }
}

fn footer(screen: &Screen) -> Line<'static> {
    if let Mode::Search = screen.mode {
        return Line::from(format!("/{}▏", plain(&screen.model.view.search)));
    }
    if let Some(lost) = &screen.lost {
        let text = format!("what is shown is old: {}", plain(lost));
        return Line::styled(text, Style::new().fg(Color::Red));
    }
    if let Some(note) = &screen.note {
        return Line::from(plain(note));
    }
    let view = &screen.model.view;
    let search = match view.search.is_empty() {
        true => String::new(),
        false => format!("  /{}", plain(&view.search)),
    };
    let keys = "? help  / search  s r m b sort  k kill  R restart  f failures  q quit";
    let dim = Style::new().add_modifier(Modifier::DIM);
    let state = format!("sort {}{search}  ", view.sort.as_str());
    Line::from(vec![Span::raw(state), Span::styled(keys, dim)])
}

/// What lies over the table.
fn over(frame: &mut Frame<'_>, screen: &Screen) {
    match &screen.mode {
        Mode::Table | Mode::Search => {}
        Mode::Help => popup(frame, "help", HELP.lines().map(Line::from).collect(), 0),
        Mode::Text { title, lines, scroll } => {
            let lines = lines.iter().map(|line| Line::from(line.as_str())).collect();
            popup(frame, title, lines, *scroll);
        }
        Mode::Confirm { action, path, plan, reason } => {
            let title = format!("{} {}?", action.as_str(), plain(path));
            popup(frame, &title, dry_run(plan, reason), 0);
        }
    }
}

/// What an action would do, and what is missing before it is done.
fn dry_run(plan: &Value, reason: &str) -> Vec<Line<'static>> {
    let word = |value: &Value| plain(value.as_str().unwrap_or_default());
    let mut lines = vec![Line::from(word(&plan["text"])), Line::default()];
    for stop in plan["stops"].as_array().into_iter().flatten() {
        lines.push(Line::from(format!("{:<8} {}", word(&stop["how"]), word(&stop["path"]))));
    }
    for start in plan["starts"].as_array().into_iter().flatten() {
        lines.push(Line::from(format!("{:<8} {}", "started", word(start))));
    }
    if let Some(used) = plan["intensity"]["used"].as_u64() {
        let max = &plan["intensity"]["max"];
        lines.push(Line::from(format!("{used} of {max} restarts are used then")));
    }
    let red = Style::new().fg(Color::Red);
    if plan["escalates"] == true {
        lines.push(Line::styled("its supervisor gives up, and fails upward", red));
    }
    if plan["ends_system"] == true {
        lines.push(Line::styled("the node ends", red));
    }
    lines.push(Line::default());
    if plan["allowed"] == true {
        lines.push(Line::from(format!("reason: {}▏", plain(reason))));
        lines.push(Line::from("Enter does it, once there is a reason; Esc leaves it alone"));
    } else {
        lines.push(Line::styled(format!("it is not done: {}", word(&plan["why"])), red));
        lines.push(Line::from("Esc goes back"));
    }
    lines
}

fn popup(frame: &mut Frame<'_>, title: &str, lines: Vec<Line<'_>>, scroll: usize) {
    let area = frame.area();
    let width = area.width.saturating_sub(4).min(100);
    let height = area.height.saturating_sub(2).min(lines.len() as u16 + 2);
    let [area] = Layout::horizontal([Constraint::Length(width)])
        .flex(ratatui::layout::Flex::Center)
        .areas(area);
    let [area] = Layout::vertical([Constraint::Length(height)])
        .flex(ratatui::layout::Flex::Center)
        .areas(area);
    let block = Block::bordered().title(format!(" {} ", plain(title)));
    let scroll = u16::try_from(scroll).unwrap_or(u16::MAX);
    let text = Paragraph::new(lines).block(block).wrap(Wrap { trim: false }).scroll((scroll, 0));
    frame.render_widget(Clear, area);
    frame.render_widget(text, area);
}
