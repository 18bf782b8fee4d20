//! `pomguard matrix`: shows the published matrix and its errata.

use std::{io, process::ExitCode};

use clap::Subcommand;

use super::{code_of, output::Output};
use crate::{
    input::{Matrix, matrix::COMMAND_LINE},
    render,
};

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

/// Returns exit code 0 if the matrix file is valid, 1 if it is not, 2 if there is no such matrix.
pub fn run(args: &MatrixArgs, out: &mut Output) -> anyhow::Result<ExitCode> {
    let (What::List(choice) | What::Lint(choice)) = &args.what;
    let matrix = match Matrix::load(&choice.matrix) {
        Ok(matrix) => matrix,
        Err(faults) => {
            let code = code_of(&faults, COMMAND_LINE);
            out.complain(faults);
            return Ok(ExitCode::from(code));
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
