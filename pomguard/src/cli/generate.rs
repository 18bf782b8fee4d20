//! `pomguard completions` and `pomguard man`: the files that a package installs alongside the binary.

use std::{fmt::Write as _, fs, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::{ATTENTION, Cli, FAULT, USAGE, output::Output};
use crate::{input::keys, paths};

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
    /// Write a page for every verb and both files into this folder; without this option, print the main page
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
    page.extend(more("pomguard").into_bytes());
    out.write_bytes(&page);
    Ok(ExitCode::SUCCESS)
}

/// Commands to copy, by verb; `pomguard` for the main page. A test parses each.
const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "pomguard",
        &["pomguard check", "pomguard drops --known", "pomguard explain 10.50.0.7 to pom1:9970/tcp"],
    ),
    ("check", &["pomguard check", "pomguard check --site /tmp/site.toml --host pom2 --strict"]),
    ("run", &["pomguard run --config /etc/pomguard/pomguard.toml"]),
    ("plan", &["pomguard plan", "pomguard plan --json"]),
    ("apply", &["pomguard apply --confirm-within 60s --why \"ticket 4711\""]),
    ("confirm", &["pomguard confirm"]),
    ("rollback", &["pomguard rollback", "pomguard rollback 12 --confirm-within 60s"]),
    ("history", &["pomguard history", "pomguard history --emergency"]),
    ("allow", &["pomguard allow 10.9.0.7 to 22/tcp --for 2h --why \"ticket 4711\"", "pomguard allow --list"]),
    ("revoke", &["pomguard revoke 1"]),
    ("bypass", &["pomguard bypass --for 10m --why \"calls fail\"", "pomguard bypass --off"]),
    ("lockdown", &["pomguard lockdown --for 1h --why intrusion", "pomguard lockdown --off"]),
    ("status", &["pomguard status", "pomguard status --json"]),
    ("doctor", &["pomguard doctor"]),
    (
        "stats",
        &[
            "pomguard stats --since change --hit",
            "pomguard stats --mark before-upgrade",
            "pomguard stats --watch",
        ],
    ),
    ("drops", &["pomguard drops --known --since 7d", "pomguard drops --follow --all"]),
    ("suggest", &["pomguard suggest --since 7d", "pomguard suggest --interactive"]),
    (
        "explain",
        &[
            "pomguard explain 10.50.0.7 to 10.20.0.11:9970/tcp",
            "pomguard explain \"Agent Desktop\" to pom1:9970/tcp",
            "pomguard explain 10.50.0.0/16 pom1:https --host pom1",
            "pomguard explain --drop 3f2a",
        ],
    ),
    ("serve-metrics", &["pomguard serve-metrics"]),
    ("detach", &["pomguard detach --yes"]),
    ("matrix", &["pomguard matrix list", "pomguard matrix lint"]),
    ("completions", &["pomguard completions bash"]),
    ("man", &["pomguard man --folder /usr/share/man/man8"]),
];

/// Files that pomguard reads and writes, with the default folders.
const FILES: &[(&str, &str)] = &[
    (paths::SETTINGS, "The settings of this server, see pomguard.toml(5)."),
    ("/etc/pomguard/site.toml", "The site file that the settings usually name, see site.toml(5)."),
    (paths::STATE, "The state that survives a reboot: history, the confirmed policy, drops, counts."),
    (paths::RUNTIME, "The control socket and locks."),
    (paths::PINS, "Pinned maps, programs and links."),
];

/// The exit codes of all verbs.
const EXIT_CODES: &[(u8, &str)] = &[
    (0, "Success."),
    (FAULT, "Failure; or the files and the kernel disagree."),
    (USAGE, "Wrong command line."),
    (
        ATTENTION,
        "Something needs attention: plan would change something, status found a condition, explain reports a packet \
         that is dropped or would be dropped in enforce, check \\-\\-strict has warnings.",
    ),
];

/// Returns the sections EXIT STATUS, FILES and EXAMPLES of a page.
fn more(verb: &str) -> String {
    let mut page = String::from(".SH \"EXIT STATUS\"\n");
    let dashed = |text: &str| text.replace('-', "\\-");
    for (code, meaning) in EXIT_CODES {
        // Writing to a String cannot fail.
        let _ = write!(page, ".TP\n.B {code}\n{meaning}\n");
    }
    page.push_str(".SH FILES\n");
    for (path, meaning) in FILES {
        let _ = write!(page, ".TP\n.I {}\n{meaning}\n", dashed(path));
    }
    let examples = EXAMPLES.iter().find(|(name, _)| *name == verb).map_or(&[][..], |(_, examples)| examples);
    if !examples.is_empty() {
        page.push_str(".SH EXAMPLES\n");
        for example in examples {
            let _ = write!(page, ".nf\n{}\n.fi\n.PP\n", dashed(example));
        }
    }
    page
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
        text.extend(more(name.strip_prefix("pomguard-").unwrap_or(&name)).into_bytes());
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    for file in [&keys::SITE, &keys::SETTINGS] {
        let path = folder.join(format!("{}.5", file.name));
        let text = file.page(env!("CARGO_PKG_VERSION"));
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::observe::golden::assert_repository_file;

    #[test]
    fn every_verb_has_a_page_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        write(Cli::command(), folder.path()).unwrap();
        for verb in Cli::command().get_subcommands() {
            let name = format!("pomguard-{}", verb.get_name());
            let page = fs::read_to_string(folder.path().join(format!("{name}.8"))).unwrap();
            assert!(page.contains(".SH NAME") && page.contains(&name.replace('-', "\\-")), "{name}:\n{page}");
            if !verb.is_hide_set() {
                for section in [".SH \"EXIT STATUS\"", ".SH FILES", ".SH EXAMPLES"] {
                    assert!(page.contains(section), "{name} lacks {section}");
                }
            }
        }
        for file in ["site.toml.5", "pomguard.toml.5"] {
            assert!(folder.path().join(file).exists(), "{file}");
        }
    }

    /// Splits a command into words. Quotes hold one word together.
    fn words(command: &str) -> Vec<&str> {
        let parts = command.split('"').enumerate();
        parts
            .flat_map(|(at, part)| if at % 2 == 1 { vec![part] } else { part.split_whitespace().collect() })
            .collect()
    }

    #[test]
    fn examples_of_the_pages_are_accepted_and_name_their_verb() {
        for (verb, examples) in EXAMPLES {
            for example in *examples {
                Cli::try_parse_from(words(example)).unwrap_or_else(|error| panic!("{example}: {error}"));
                assert!(*verb == "pomguard" || words(example)[1] == *verb, "{example}");
            }
        }
    }

    /// `cargo xtask docs` writes the documents.
    #[test]
    fn documents_about_the_files_are_those_of_the_code() {
        assert_repository_file("docs/site-file.md", &keys::SITE.markdown());
        assert_repository_file("docs/settings-file.md", &keys::SETTINGS.markdown());
    }

    /// Every command in the documents must be valid, because people copy it.
    #[test]
    fn documented_commands_are_accepted_by_the_command_line() {
        let documents = [
            include_str!("../../../docs/operations.md"),
            include_str!("../../../docs/troubleshooting.md"),
            include_str!("../../../docs/rollout.md"),
            include_str!("../../../README.md"),
        ]
        .join("\n");
        let mut block = false;
        let mut taken = 0;
        for line in documents.lines().map(str::trim) {
            if let Some(language) = line.strip_prefix("```") {
                block = language == "sh";
            } else if let Some(command) =
                line.split("&&").next().filter(|it| block && it.starts_with("pomguard "))
            {
                // No other shell syntax than quotes occurs.
                let result = Cli::try_parse_from(words(command));
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
