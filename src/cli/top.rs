//! `smith top`: the actors of a running node, and what is wrong with them.
//!
//! | file | what |
//! |---|---|
//! | [`model`] | what the node answered, twice: states and rates; no terminal, no network |
//! | [`print`](mod@print) | one frame as lines of text, or as JSON |
//! | [`keys`] | what a key does: selects, folds, asks, decides; still no terminal |
//! | [`draw`] | the model on a screen |
//! | [`screen`] | the terminal: taken, drawn on, given back |
//!
//! The last three need the feature `tui`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use hyper::Method;
use serde_json::Value;

use self::model::{Model, Sort};
use super::demo::duration;
use super::node::{NodeArg, query};
use super::output::{self, write};

#[cfg(feature = "tui")]
mod draw;
#[cfg(feature = "tui")]
mod keys;
mod model;
mod print;
#[cfg(feature = "tui")]
mod screen;
#[cfg(test)]
mod tests;

/// A node is not asked more often.
const OFTEN: Duration = Duration::from_secs(1);

/// Options of `smith top`.
#[derive(Clone, Debug, Args)]
pub(super) struct Top {
    #[command(flatten)]
    node: NodeArg,
    /// Print one frame and end; with --json as data
    #[arg(long)]
    once: bool,
    /// How often the node is asked; at most once a second
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    every: Duration,
    /// Children of a dynamic supervisor that are shown, the worst first
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    children: usize,
    /// The order of the children of a supervisor
    #[arg(long, value_enum, default_value_t = Sort::Tree)]
    sort: Sort,
}

/// What the node says about itself at one moment.
#[derive(Clone, Debug)]
struct Frame {
    node: Value,
    tree: Value,
    lints: Value,
}

impl Top {
    pub(super) async fn execute(self) -> anyhow::Result<ExitCode> {
        if self.once || self.node.json {
            return self.once().await;
        }
        #[cfg(feature = "tui")]
        return screen::run(self).await;
        #[cfg(not(feature = "tui"))]
        anyhow::bail!(
            "built without feature `tui`; rebuild with `--features tui`, or give --once to print \
             one frame"
        )
    }

    /// Two looks, because a rate is the difference between them.
    async fn once(&self) -> anyhow::Result<ExitCode> {
        let mut model = Model::default();
        model.view.sort = self.sort;
        model.feed(&self.look("").await?);
        tokio::time::sleep(self.every()).await;
        let frame = self.look("").await?;
        model.feed(&frame);
        match self.node.json {
            true => output::json(&print::json(&model, &frame))?,
            false => write(format_args!("{}", print::text(&model)))?,
        };
        Ok(ExitCode::SUCCESS)
    }

    fn every(&self) -> Duration {
        self.every.max(OFTEN)
    }

    /// What the node says now; of the tree only what has `text` in its path.
    async fn look(&self, text: &str) -> anyhow::Result<Frame> {
        let part = [
            ("children", Some(self.children.to_string())),
            ("q", (!text.is_empty()).then(|| text.to_owned())),
        ];
        let ask = async |path: &str| self.node.ask(Method::GET, path).await;
        Ok(Frame {
            node: ask("/debug/v1/node").await?,
            tree: ask(&format!("/debug/v1/tree{}", query(part))).await?,
            lints: ask("/debug/v1/lints").await?,
        })
    }
}
