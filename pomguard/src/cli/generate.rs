//! `pomguard completions` and `pomguard man`: the files that a package installs alongside the binary.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::{Cli, output::Output};

/// Options of `completions`.
#[derive(Clone, Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// Options of `man`.
#[derive(Clone, Debug, clap::Args)]
pub struct ManArgs {
    /// Write a page for every verb into this folder; without this option, print the main page
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
}

/// Writes the completions for a shell.
pub fn completions(args: &CompletionsArgs, out: &mut Output) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pomguard", &mut script);
    out.write_bytes(&script);
    Ok(ExitCode::SUCCESS)
}

/// Writes the manual pages.
pub fn man(args: &ManArgs, out: &mut Output) -> anyhow::Result<ExitCode> {
    // Section 8: commands for system administrators.
    let command = Cli::command();
    if let Some(folder) = &args.folder {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        write(command, folder)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).section("8").render(&mut page)?;
    out.write_bytes(&page);
    Ok(ExitCode::SUCCESS)
}

fn write(mut command: clap::Command, folder: &std::path::Path) -> anyhow::Result<()> {
    command.build();
    let verbs = command.get_subcommands().filter(|verb| verb.get_name() != "help").cloned();
    let pages: Vec<(String, clap::Command)> = std::iter::once(("pomguard".to_owned(), command.clone()))
        .chain(verbs.map(|verb| (format!("pomguard-{}", verb.get_name()), verb)))
        .collect();
    for (name, page) in pages {
        let path = folder.join(format!("{name}.8"));
        let mut text = Vec::new();
        clap_mangen::Man::new(page).title(&name).section("8").render(&mut text)?;
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn every_verb_has_a_page_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        write(Cli::command(), folder.path()).unwrap();
        for verb in Cli::command().get_subcommands() {
            let name = format!("pomguard-{}", verb.get_name());
            let page = fs::read_to_string(folder.path().join(format!("{name}.8"))).unwrap();
            assert!(page.contains(".SH NAME") && page.contains(&name.replace('-', "\\-")), "{name}:\n{page}");
        }
    }

    /// Every command in the documents must be valid, because people copy it.
    #[test]
    fn documented_commands_are_accepted_by_the_command_line() {
        let documents =
            [include_str!("../../../docs/operations.md"), include_str!("../../../README.md")].join("\n");
        let mut block = false;
        let mut taken = 0;
        for line in documents.lines().map(str::trim) {
            if let Some(language) = line.strip_prefix("```") {
                block = language == "sh";
            } else if let Some(command) =
                line.split("&&").next().filter(|it| block && it.starts_with("pomguard "))
            {
                // Quotes hold one word together; no other shell syntax occurs.
                let words = command.split('"').enumerate().flat_map(|(at, part)| {
                    if at % 2 == 1 { vec![part] } else { part.split_whitespace().collect() }
                });
                let result = Cli::try_parse_from(words);
                assert!(
                    result.is_ok(),
                    "{command}: {}",
                    result.err().map(|it| it.to_string()).unwrap_or_default()
                );
                taken += 1;
            }
        }
        assert!(taken >= 20, "only {taken} commands were found");
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
