//! `pomguard matrix`: shows the published matrix and its errata.

use std::{io, process::ExitCode};

use clap::Subcommand;

use super::{FAULT, output::Output};
use crate::{input::Matrix, render};

/// Options of `matrix`.
#[derive(Debug, clap::Args)]
pub struct MatrixArgs {
    /// The part to show.
    #[command(subcommand)]
    pub what: What,
}

/// The part to show.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Every row as printed and as read
    List(Choice),
    /// Places where the reading differs from the print, and numbers of zones from which ports overlap
    Lint(Choice),
}

/// The matrix to show.
#[derive(Debug, clap::Args)]
pub struct Choice {
    /// A shipped matrix by name, or a path
    #[arg(long, value_name = "NAME|PATH", default_value = "pom-4.0")]
    pub matrix: String,
    /// Write JSON
    #[arg(long)]
    pub json: bool,
}

/// Returns exit code 0 if the matrix file is valid, 1 otherwise.
pub fn run(args: &MatrixArgs, out: &mut Output) -> anyhow::Result<ExitCode> {
    let (What::List(choice) | What::Lint(choice)) = &args.what;
    let matrix = match Matrix::load(&choice.matrix) {
        Ok(matrix) => matrix,
        Err(faults) => {
            out.complain(faults);
            return Ok(ExitCode::from(FAULT));
        }
    };
    let (json, print): (serde_json::Value, Printer) = match &args.what {
        What::List(_) => {
            (serde_json::to_value(render::matrix::Listing::new(&matrix))?, render::matrix::print_list)
        }
        What::Lint(_) => {
            (serde_json::to_value(render::matrix::Lint::new(&matrix))?, render::matrix::print_lint)
        }
    };
    if choice.json {
        out.line(format_args!("{json:#}"));
    } else {
        let width = out.width();
        print(&matrix, out, width)?;
    }
    Ok(ExitCode::SUCCESS)
}

type Printer = fn(&Matrix, &mut Output, Option<u16>) -> io::Result<()>;
