//! `pomguard matrix`: shows the published table and its errata.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Subcommand;

use super::FAULT;
use crate::{input::Matrix, render};

/// Options of `matrix`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to show.
    #[command(subcommand)]
    pub what: What,
}

/// What to show.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Every row as printed and as read
    List(Choice),
    /// Where the reading differs from print and why, and from how many zones on ports run into each other
    Lint(Choice),
}

/// Which matrix.
#[derive(Debug, clap::Args)]
pub struct Choice {
    /// A shipped matrix by name, or a path
    #[arg(long, value_name = "NAME|PATH", default_value = "pom-4.0")]
    pub matrix: String,
    /// Write JSON
    #[arg(long)]
    pub json: bool,
}

/// Exit code 0 when the matrix file is right, 1 when it is not.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (What::List(choice) | What::Lint(choice)) = &args.what;
    let matrix = match Matrix::load(&choice.matrix) {
        Ok(matrix) => matrix,
        Err(faults) => {
            eprintln!("{faults}");
            return Ok(ExitCode::from(FAULT));
        }
    };
    let mut out = io::stdout().lock();
    let (json, print): (serde_json::Value, Printer) = match &args.what {
        What::List(_) => {
            (serde_json::to_value(render::matrix::Listing::new(&matrix))?, render::matrix::print_list)
        }
        What::Lint(_) => {
            (serde_json::to_value(render::matrix::Lint::new(&matrix))?, render::matrix::print_lint)
        }
    };
    if choice.json {
        writeln!(out, "{json:#}")?;
    } else {
        print(&matrix, &mut out)?;
    }
    Ok(ExitCode::SUCCESS)
}

type Printer = fn(&Matrix, &mut io::StdoutLock<'static>) -> io::Result<()>;
