//! `smith tree`: the tree of a running node, as a picture.

use std::process::ExitCode;

use clap::Args;
use hyper::Method;

use super::node::{NodeArg, query};
use super::output::{self, write};

/// Options of `smith tree`.
#[derive(Clone, Debug, Args)]
pub(super) struct TreeArgs {
    #[command(flatten)]
    form: Form,
    /// Only what is at this path and below it
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Levels below that are shown
    #[arg(long, value_name = "LEVELS")]
    depth: Option<usize>,
    /// Children of a dynamic supervisor that are shown, the worst first
    #[arg(long, value_name = "COUNT")]
    children: Option<usize>,
    #[command(flatten)]
    node: NodeArg,
}

/// Which picture.
#[derive(Clone, Debug, Args)]
#[group(multiple = false)]
struct Form {
    /// As lines of text (the default)
    #[arg(long)]
    text: bool,
    /// For Graphviz: smith tree --dot | dot -Tpng > tree.png
    #[arg(long)]
    dot: bool,
    /// For Mermaid, as Markdown pages show it
    #[arg(long)]
    mermaid: bool,
    /// As an SVG picture
    #[arg(long)]
    svg: bool,
}

impl Form {
    /// What the node calls a picture that is not made of lines.
    fn graph(&self) -> Option<&'static str> {
        [(self.dot, "dot"), (self.mermaid, "mmd"), (self.svg, "svg")]
            .into_iter()
            .find_map(|(wanted, name)| wanted.then_some(name))
    }
}

impl TreeArgs {
    pub(super) async fn execute(self) -> anyhow::Result<ExitCode> {
        let count = |count: Option<usize>| count.map(|count| count.to_string());
        let part = [
            ("path", self.path.clone()),
            ("depth", count(self.depth)),
            ("children", count(self.children)),
        ];
        let graph = self.form.graph();
        if self.node.json {
            if graph.is_some() || self.form.text {
                anyhow::bail!("--json is a form of its own; leave the other one out");
            }
            let path = format!("/debug/v1/tree{}", query(part));
            output::json(&self.node.ask(Method::GET, &path).await?)?;
            return Ok(ExitCode::SUCCESS);
        }
        let path = match graph {
            Some(form) => format!("/debug/v1/graph.{form}{}", query(part)),
            None => {
                let part = part.into_iter().chain([("format", Some("text".to_owned()))]);
                format!("/debug/v1/tree{}", query(part))
            }
        };
        let picture = self.node.text(&path).await?;
        write(format_args!("{}\n", picture.trim_end()))?;
        Ok(ExitCode::SUCCESS)
    }
}
