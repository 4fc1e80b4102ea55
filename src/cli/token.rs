//! `smith token`: makes a token, and the line that a node knows it by.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::output::write;
use crate::http::access::{Role, Token};

/// Options of `smith token`.
#[derive(Clone, Debug, Args)]
pub(super) struct TokenArgs {
    /// Whose it is: what the record says when it is used
    name: String,
    /// What it allows: viewer, operator or admin
    #[arg(long, default_value = "viewer")]
    role: String,
    /// File of tokens to add its line to; made if missing, and readable by its owner alone
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
}

impl TokenArgs {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let role: Role = self.role.parse()?;
        let mut random = [0; 48];
        getrandom::fill(&mut random).context("the system has no random numbers")?;
        let (text, token) = Token::create(role, &self.name, random)?;
        match &self.tokens {
            Some(file) => {
                let before = match std::fs::read_to_string(file) {
                    Ok(text) => text,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
                    Err(error) => return Err(error).with_context(|| file.display().to_string()),
                };
                let all = format!("{before}{token}\n");
                Token::read(&all).with_context(|| file.display().to_string())?;
                keep(file, &all).with_context(|| file.display().to_string())?;
            }
            None => drop(write(format_args!("# a line for the file of --tokens:\n{token}\n"))?),
        }
        write(format_args!("# the token; it is shown this once:\n{text}\n"))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn keep(file: &std::path::Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(file)?.write_all(text.as_bytes())
}
