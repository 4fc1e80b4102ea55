//! The terminal of `smith top`: taken, drawn on, and given back, whatever happens.
//!
//! One task asks the node, one thread reads keys, and the loop here waits for either. A node that
//! is slow, or gone, holds up no key.

use std::io::{IsTerminal as _, stdin, stdout};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use hyper::Method;
use mister_smith_supervisors::TaskGuard;
use percent_encoding::percent_decode_str;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::keys::{Action, Key, Screen, Wish};
use super::{Frame, Top, draw};
use crate::cli::node::escaped;
use crate::runtime::Signals;

/// What is waiting to be heard at most; who sends more waits.
const WAITING: usize = 64;

/// How soon the thread that reads keys sees that it is to end.
const KEYS: Duration = Duration::from_millis(100);

/// What the screen hears.
enum Heard {
    Frame(anyhow::Result<Frame>),
    Press(Key),
    /// The size of the terminal is another.
    Resized,
    Quit,
    Planned(Action, String, Value),
    Failures(String, Value),
    Note(String),
}

/// The terminal is given back when this is dropped; ratatui's hook does so in a panic.
struct Taken(ratatui::DefaultTerminal);

impl Drop for Taken {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Runs until it is quit.
pub(super) async fn run(top: Top) -> anyhow::Result<ExitCode> {
    if !stdout().is_terminal() || !stdin().is_terminal() {
        anyhow::bail!("this is no terminal; give --once to print one frame, --json for data");
    }
    let mut signals = Signals::listen()?;
    // What a node that is not there, or does not let us in, says belongs on a usual screen.
    let first = top.look("").await?;
    let mut screen = Screen::default();
    screen.model.view.sort = top.sort;
    screen.model.feed(&first);
    let (hear, mut heard) = mpsc::channel(WAITING);
    let (search, searched) = watch::channel(String::new());
    let _looks = TaskGuard::spawn(look(top.clone(), searched, hear.clone()));
    let mut terminal = Taken(ratatui::try_init()?);
    let over = Arc::new(AtomicBool::new(false));
    let keys = read_keys(hear.clone(), Arc::clone(&over));
    let mut asked = TaskGuard::spawn(async {});
    let outcome = loop {
        if let Err(error) = terminal.0.draw(|frame| draw::draw(frame, &mut screen)) {
            break Err(error.into());
        }
        let what = tokio::select! {
            biased;
            _ = signals.next() => break Ok(ExitCode::SUCCESS),
            what = heard.recv() => what,
        };
        let wish = match what {
            None | Some(Heard::Quit) => Some(Wish::Quit),
            Some(Heard::Press(key)) => screen.press(key),
            Some(other) => {
                take(&mut screen, other);
                None
            }
        };
        search.send_if_modified(|search| {
            let changed = *search != screen.model.view.search;
            search.clone_from(&screen.model.view.search);
            changed
        });
        match wish {
            Some(Wish::Quit) => break Ok(ExitCode::SUCCESS),
            // One question at a time; an action that was sent is done all the same.
            Some(wish) => asked = TaskGuard::spawn(ask(top.clone(), wish, hear.clone())),
            None => {}
        }
    };
    drop((asked, heard));
    over.store(true, Ordering::Relaxed);
    drop(terminal);
    // It looks at `over` every so often, and sends to nobody any more.
    let _ = keys.join();
    outcome
}

fn take(screen: &mut Screen, heard: Heard) {
    match heard {
        Heard::Frame(Ok(frame)) => {
            screen.lost = None;
            screen.model.feed(&frame);
        }
        Heard::Frame(Err(error)) => screen.lost = Some(error.to_string()),
        Heard::Planned(action, path, plan) => screen.planned(action, path, plan),
        Heard::Failures(path, actor) => screen.failed(&path, &actor),
        Heard::Note(note) => screen.note = Some(note),
        Heard::Press(_) | Heard::Resized | Heard::Quit => {}
    }
}

/// Asks the node again and again. The next question waits for the answer to the one before it.
async fn look(top: Top, search: watch::Receiver<String>, hear: mpsc::Sender<Heard>) {
    let mut clock = tokio::time::interval(top.every());
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    clock.tick().await;
    loop {
        clock.tick().await;
        let text = search.borrow().clone();
        if hear.send(Heard::Frame(top.look(&text).await)).await.is_err() {
            return;
        }
    }
}

/// Asks the node what was wished for.
async fn ask(top: Top, wish: Wish, hear: mpsc::Sender<Heard>) {
    let answer = match wish {
        Wish::Quit => return,
        Wish::Plan { action, path } => {
            let url = format!("{}/plan?action={}", url(&path), action.as_str());
            let plan = top.node.ask(Method::GET, &url).await;
            plan.map(|plan| Heard::Planned(action, path, plan))
        }
        Wish::Failures { path } => {
            let actor = top.node.ask(Method::GET, &url(&path)).await;
            actor.map(|actor| Heard::Failures(path, actor))
        }
        Wish::Act { action, path, life, reason } => {
            // Nobody has it twice: the process, and when.
            let key = format!("top {} {}", std::process::id(), jiff::Timestamp::now());
            let url = format!("{}/{}", url(&path), action.as_str());
            let body = json!({ "reason": reason, "expect_life": life });
            let done = top.node.act(&url, &key, &body).await;
            done.map(|_| Heard::Note(format!("{path}: {} is done, or on its way", action.as_str())))
        }
    };
    let _ = hear.send(answer.unwrap_or_else(|error| Heard::Note(error.to_string()))).await;
}

/// Where an actor is in the API. Paths have `%2F` and `%25` inside a segment.
fn url(path: &str) -> String {
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    let segments = segments.map(|one| escaped(&percent_decode_str(one).decode_utf8_lossy()));
    format!("/debug/v1/actors/{}", segments.collect::<Vec<_>>().join("/"))
}

/// Reads keys until `over` is set, in a thread: reading a terminal blocks.
fn read_keys(hear: mpsc::Sender<Heard>, over: Arc<AtomicBool>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            let heard = match event::poll(KEYS) {
                Ok(false) => continue,
                Ok(true) => match event::read() {
                    Ok(Event::Key(key)) if key.kind == KeyEventKind::Press => {
                        pressed(key.code, key.modifiers)
                    }
                    Ok(Event::Resize(..)) => Some(Heard::Resized),
                    Ok(_) => None,
                    Err(_) => Some(Heard::Quit),
                },
                // The terminal has gone.
                Err(_) => Some(Heard::Quit),
            };
            let ended = matches!(heard, Some(Heard::Quit));
            if heard.is_some_and(|heard| hear.blocking_send(heard).is_err()) || ended {
                return;
            }
        }
    })
}

fn pressed(code: KeyCode, modifiers: KeyModifiers) -> Option<Heard> {
    let key = match code {
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => {
            return Some(Heard::Quit);
        }
        KeyCode::Char(letter)
            if !modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) =>
        {
            Key::Char(letter)
        }
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Back,
        _ => return None,
    };
    Some(Heard::Press(key))
}
