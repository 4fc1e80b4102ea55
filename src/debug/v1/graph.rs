//! The tree as a picture: Graphviz, Mermaid, SVG.

use std::fmt::Write as _;

use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use mister_smith_supervisors::{Look, NodeView, SlotState};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::http::{Edge, Problem};

/// Children of a dynamic supervisor that are drawn, unless asked otherwise.
const CHILDREN: usize = 12;

/// Children of a dynamic supervisor at most: nobody can read a larger picture.
const MOST_CHILDREN: usize = 1_000;

/// What part of the tree.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Asked {
    /// Where to begin; the root.
    path: Option<String>,
    /// Levels below; all.
    depth: Option<usize>,
    /// Children of a dynamic supervisor that are drawn, the worst first; 12.
    children: Option<usize>,
}

/// Height of a row, in pixels of the SVG.
const ROW: usize = 26;

/// Width of a level.
const INDENT: usize = 22;

/// `GET /debug/v1/graph.dot`, `.mmd`, `.svg`
#[utoipa::path(get, path = "/debug/v1/graph.{form}", tag = "tree",
    params(("form" = String, Path, description = "dot, mmd or svg"), Asked),
    responses((status = 200, description = "The tree as a picture", content_type = "text/plain"),
        (status = 404, description = "There is no such form, or nothing at that path")))]
pub(super) async fn show(
    State(edge): State<Edge>,
    Path(form): Path<String>,
    query: Result<Query<Asked>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let Query(asked) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let path = asked.path.as_deref().unwrap_or("/");
    let look = Look::at(path)
        .levels(asked.depth.unwrap_or(usize::MAX))
        .children(asked.children.unwrap_or(CHILDREN).min(MOST_CHILDREN));
    let tree = edge.node()?.actors.look_for(&look);
    let tree = tree.ok_or_else(|| Problem::missing(format!("nothing lives at {path}")))?;
    let (kind, text) = match form.as_str() {
        "dot" => ("text/vnd.graphviz; charset=utf-8", dot(&tree.root)),
        "mmd" => ("text/plain; charset=utf-8", mermaid(&tree.root)),
        "svg" => ("image/svg+xml", svg(&tree.root)),
        other => {
            return Err(Problem::missing(format!(
                "there is no graph.{other}; ask for dot, mmd or svg"
            )));
        }
    };
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

fn colour(node: &NodeView) -> &'static str {
    match node.state {
        SlotState::Up if node.restarts > 0 => "#b7791f",
        SlotState::Up => "#2f855a",
        SlotState::Suspended => "#2b6cb0",
        SlotState::Stuck | SlotState::Down => "#c53030",
        _ => "#975a16",
    }
}

/// All slots with the number of each and of its parent; what is folded is a node of its own.
fn walk(node: &NodeView, visit: &mut impl FnMut(usize, Option<usize>, &str, &str, usize)) {
    fn go(
        node: &NodeView,
        parent: Option<usize>,
        level: usize,
        next: &mut usize,
        visit: &mut impl FnMut(usize, Option<usize>, &str, &str, usize),
    ) {
        let own = *next;
        *next += 1;
        let label = match (node.supervisor, node.restarts) {
            (Some(supervisor), _) => format!("{} ({})", node.id, supervisor.strategy),
            (None, 0) => node.id.clone(),
            (None, restarts) => format!("{} ↻{restarts}", node.id),
        };
        visit(own, parent, &label, colour(node), level);
        for child in &node.children {
            go(child, Some(own), level + 1, next, visit);
        }
        let hidden =
            node.supervisor.map_or(0, |one| one.children.saturating_sub(node.children.len()));
        if hidden > 0 {
            let folded = *next;
            *next += 1;
            visit(folded, Some(own), &format!("… {hidden} more"), "#718096", level + 1);
        }
    }
    go(node, None, 0, &mut 0, visit);
}

/// A text in double quotes of Graphviz and Mermaid: letters that end it, or begin something, are
/// written by their numbers.
fn quoted(text: &str, entity: impl Fn(char) -> Option<String>) -> String {
    text.chars().fold(String::new(), |mut out, letter| {
        match entity(letter) {
            Some(entity) => out.push_str(&entity),
            None if letter.is_control() => out.push(' '),
            None => out.push(letter),
        }
        out
    })
}

fn xml(text: &str) -> String {
    quoted(text, |letter| match letter {
        '<' | '>' | '&' | '"' | '\'' => Some(format!("&#{};", u32::from(letter))),
        _ => None,
    })
}

fn dot(root: &NodeView) -> String {
    let mut out = String::from(
        "digraph node {\n  rankdir=LR;\n  node [shape=box, style=rounded, fontname=\"sans-serif\"];\n",
    );
    walk(root, &mut |own, parent, label, colour, _| {
        let label = quoted(label, |letter| match letter {
            '"' | '\\' => Some(format!("\\{letter}")),
            _ => None,
        });
        let _ = writeln!(out, "  n{own} [label=\"{label}\", color=\"{colour}\"];");
        if let Some(parent) = parent {
            let _ = writeln!(out, "  n{parent} -> n{own};");
        }
    });
    out.push_str("}\n");
    out
}

fn mermaid(root: &NodeView) -> String {
    let mut out = String::from("flowchart LR\n");
    walk(root, &mut |own, parent, label, colour, _| {
        let label = quoted(label, |letter| match letter {
            '"' | '<' | '>' | '&' | '#' | '`' => Some(format!("#{};", u32::from(letter))),
            _ => None,
        });
        let _ = writeln!(out, "  n{own}[\"{label}\"]\n  style n{own} stroke:{colour}");
        if let Some(parent) = parent {
            let _ = writeln!(out, "  n{parent} --> n{own}");
        }
    });
    out
}

fn svg(root: &NodeView) -> String {
    let (mut body, mut rows, mut widest) = (String::new(), 0, 0);
    walk(root, &mut |own, parent, label, colour, level| {
        let (x, y) = (20 + level * INDENT, 24 + own * ROW);
        if parent.is_some() {
            let _ = writeln!(
                body,
                "<path d=\"M{} {} h{}\" stroke=\"#cbd5e0\" fill=\"none\"/>",
                x - INDENT + 5,
                y - 5,
                INDENT - 12
            );
        }
        let _ = writeln!(
            body,
            "<circle cx=\"{}\" cy=\"{}\" r=\"4\" fill=\"{colour}\"/><text x=\"{}\" y=\"{y}\">{}</text>",
            x,
            y - 5,
            x + 10,
            xml(label)
        );
        rows = own + 1;
        widest = widest.max(x + 10 + label.chars().count() * 8);
    });
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" \
         font-family=\"ui-monospace, monospace\" font-size=\"13\" fill=\"#2d3748\">\n{body}</svg>\n",
        widest + 20,
        24 + rows * ROW
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_gets_out_of_its_quotes() {
        assert_eq!(xml("<a href=\"x\">&'"), "&#60;a href=&#34;x&#34;&#62;&#38;&#39;");
        let one = |letter| (letter == '"').then(|| "\\\"".to_owned());
        assert_eq!(quoted("a\"b\nc", one), "a\\\"b c");
    }
}
