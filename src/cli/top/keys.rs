//! What a key does in `smith top`. No terminal and no network: a key changes the screen's state,
//! and may answer what is to be asked of the node.

use serde_json::Value;

use super::model::{Model, Row, Sort};
use super::print::plain;

/// Letters of a reason, or of a search, at most.
const LONGEST: usize = 200;

/// A key, whatever the terminal calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Escape,
    Back,
}

/// What can be done to an actor from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Kill,
    Restart,
}

impl Action {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Restart => "restart",
        }
    }
}

/// What is to be done outside of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Give the terminal back, and end.
    Quit,
    /// What would this do?
    Plan { action: Action, path: String },
    /// Do it, to this life.
    Act { action: Action, path: String, life: u64, reason: String },
    /// How did it fail?
    Failures { path: String },
}

/// What lies over the table.
#[derive(Clone, Debug, Default)]
pub(super) enum Mode {
    #[default]
    Table,
    /// A search is being written.
    Search,
    Help,
    /// Something to read.
    Text {
        title: String,
        lines: Vec<String>,
        scroll: usize,
    },
    /// A dry run; with a reason it can be done.
    Confirm {
        action: Action,
        path: String,
        plan: Value,
        reason: String,
    },
}

/// The state of the screen.
#[derive(Clone, Debug, Default)]
pub(super) struct Screen {
    pub(super) model: Model,
    pub(super) mode: Mode,
    /// The line at the bottom: what was done, or what went wrong.
    pub(super) note: Option<String>,
    /// Why the last look failed, if it did: what is shown is old.
    pub(super) lost: Option<String>,
    pub(super) selected: String,
    /// Where it was, for when it is gone.
    pub(super) index: usize,
    /// The first row that is shown.
    pub(super) offset: usize,
    /// Rows that fit.
    pub(super) height: usize,
}

impl Screen {
    /// The row that is selected.
    pub(super) fn index(&self) -> usize {
        let rows = self.model.rows();
        let found = rows.iter().position(|row| row.path() == Some(&self.selected));
        found.unwrap_or_else(|| self.index.min(rows.len().saturating_sub(1)))
    }

    fn selected_path(&self) -> Option<String> {
        let rows = self.model.rows();
        let found = rows[..=self.index().min(rows.len().checked_sub(1)?)].iter().rev();
        // A row of "more" stands for the supervisor above it.
        found.filter_map(Row::path).next().map(str::to_owned)
    }

    fn select(&mut self, index: usize) {
        let rows = self.model.rows();
        let index = index.min(rows.len().saturating_sub(1));
        let path = rows.get(index).and_then(|row| row.path()).unwrap_or_default().to_owned();
        (self.index, self.selected) = (index, path);
    }

    /// Takes a dry run: now it can be confirmed.
    pub(super) fn planned(&mut self, action: Action, path: String, plan: Value) {
        if self.can_be_covered() {
            self.mode = Mode::Confirm { action, path, plan, reason: String::new() };
        }
    }

    /// Whether nobody is writing: an answer that comes late takes no letters away.
    fn can_be_covered(&self) -> bool {
        !matches!(self.mode, Mode::Search | Mode::Confirm { .. })
    }

    /// Takes all that is known of an actor, for its failures.
    pub(super) fn failed(&mut self, path: &str, actor: &Value) {
        if self.can_be_covered() {
            let lines = failures(actor);
            self.mode = Mode::Text { title: format!("failures of {path}"), lines, scroll: 0 };
        }
    }

    /// A key was pressed.
    pub(super) fn press(&mut self, key: Key) -> Option<Wish> {
        match &mut self.mode {
            Mode::Table => return self.press_in_table(key),
            Mode::Search => match key {
                Key::Escape => {
                    self.model.view.search.clear();
                    self.mode = Mode::Table;
                }
                Key::Enter => self.mode = Mode::Table,
                key => write(&mut self.model.view.search, key),
            },
            Mode::Help => self.mode = Mode::Table,
            Mode::Text { lines, scroll, .. } => match key {
                Key::Down => *scroll = (*scroll + 1).min(lines.len().saturating_sub(1)),
                Key::PageDown => *scroll = (*scroll + 10).min(lines.len().saturating_sub(1)),
                Key::Up => *scroll = scroll.saturating_sub(1),
                Key::PageUp => *scroll = scroll.saturating_sub(10),
                _ => self.mode = Mode::Table,
            },
            Mode::Confirm { action, path, plan, reason } => match key {
                Key::Escape => self.mode = Mode::Table,
                Key::Enter if !reason.trim().is_empty() && plan["allowed"] == true => {
                    let wish = Wish::Act {
                        action: *action,
                        path: path.clone(),
                        life: plan["life"].as_u64().unwrap_or_default(),
                        reason: reason.trim().to_owned(),
                    };
                    self.mode = Mode::Table;
                    return Some(wish);
                }
                Key::Enter => {}
                key => write(reason, key),
            },
        }
        None
    }

    fn press_in_table(&mut self, key: Key) -> Option<Wish> {
        let (index, page) = (self.index(), self.height.max(2) - 1);
        self.note = None;
        match key {
            Key::Char('q') => return Some(Wish::Quit),
            Key::Escape if self.model.view.search.is_empty() => return Some(Wish::Quit),
            Key::Escape => self.model.view.search.clear(),
            Key::Up => self.select(index.saturating_sub(1)),
            Key::Down => self.select(index + 1),
            Key::PageUp => self.select(index.saturating_sub(page)),
            Key::PageDown => self.select(index + page),
            Key::Home => self.select(0),
            Key::End => self.select(usize::MAX),
            Key::Char(' ') | Key::Enter => self.fold(None),
            Key::Left => self.fold(Some(true)),
            Key::Right => self.fold(Some(false)),
            Key::Char('/') => self.mode = Mode::Search,
            Key::Char('?' | 'h') => self.mode = Mode::Help,
            Key::Char('s') => self.sort(Sort::State),
            Key::Char('r') => self.sort(Sort::Restarts),
            Key::Char('m') => self.sort(Sort::Mailbox),
            Key::Char('b') => self.sort(Sort::Busy),
            Key::Char('k') => return self.plan(Action::Kill),
            Key::Char('R') => return self.plan(Action::Restart),
            Key::Char('f') => return self.selected_path().map(|path| Wish::Failures { path }),
            Key::Char(_) | Key::Back => {}
        }
        None
    }

    fn plan(&self, action: Action) -> Option<Wish> {
        self.selected_path().map(|path| Wish::Plan { action, path })
    }

    /// The same letter once more is the order of the tree again.
    fn sort(&mut self, sort: Sort) {
        let sort = if self.model.view.sort == sort { Sort::Tree } else { sort };
        self.model.view.sort = sort;
    }

    /// Folds what is selected, or unfolds it; the other one of both if it is not said which. What
    /// has nothing to fold leads to the supervisor above it.
    fn fold(&mut self, fold: Option<bool>) {
        let Some(path) = self.selected_path() else { return };
        let open = !self.model.view.folded.contains(&path);
        let children = self.model.slot(&path).is_some_and(|slot| slot.has_children());
        match fold.unwrap_or(open) {
            true if open && children => {
                self.model.view.folded.insert(path.clone());
                self.selected = path;
            }
            true if fold.is_some() => {
                let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
                self.selected = if parent.is_empty() { "/".to_owned() } else { parent.to_owned() };
            }
            true => {}
            false => drop(self.model.view.folded.remove(&path)),
        }
        self.index = self.index();
    }
}

/// A key into a text.
fn write(text: &mut String, key: Key) {
    match key {
        Key::Char(letter) if text.len() < LONGEST => text.push(letter),
        Key::Back => drop(text.pop()),
        _ => {}
    }
}

/// The failures of an actor, the last one first, and how that came about.
fn failures(actor: &Value) -> Vec<String> {
    let word = |value: &Value| plain(value.as_str().unwrap_or_default());
    let mut lines: Vec<String> =
        actor["lineage"].as_array().into_iter().flatten().map(word).collect();
    if !lines.is_empty() {
        lines.insert(0, "How the last one came about:".to_owned());
        lines.push(String::new());
    }
    let all = actor["failures"].as_array().map(Vec::as_slice).unwrap_or_default();
    let newest = {
        let mut all: Vec<&Value> = all.iter().collect();
        all.sort_by_key(|failure| std::cmp::Reverse(failure["seq"].as_u64()));
        all
    };
    for failure in newest {
        let message = failure["message"].as_str();
        let message =
            message.map_or_else(String::new, |name| format!(", handling {}", plain(name)));
        lines.push(format!("{}  life {}{message}", word(&failure["at"]), failure["life"]));
        lines.push(format!("  {}", word(&failure["reason"])));
        for more in [&failure["location"], &failure["decision"]["text"]] {
            if let Some(text) = more.as_str() {
                lines.push(format!("  {}", plain(text)));
            }
        }
        let backtrace = failure["backtrace"].as_str().unwrap_or_default();
        lines.extend(backtrace.lines().map(|line| format!("    {}", plain(line))));
    }
    if lines.is_empty() {
        lines.push("It has not failed.".to_owned());
    }
    lines
}
