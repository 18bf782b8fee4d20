//! `pomguard check`: reads the files and shows their meaning for this host.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use nix::unistd::Group;

use super::{ATTENTION, code_of, output::Output, own_addresses};
use crate::{
    compile::{CompileError, fits},
    input::{At, Diagnostic, Diagnostics, Draft, Files, Settings},
    kernel::{KernelError, machine, pins::Pins, takeover},
    paths,
    policy::{
        Direction, Origin, Policy,
        conflict::{self, Note},
        own::Differences,
        resolve,
    },
    render,
};

/// Options of `check`.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// The daemon's settings
    #[arg(long, value_name = "PATH", default_value = paths::SETTINGS)]
    pub config: PathBuf,
    /// Use this site file instead of the one that the settings name
    #[arg(long, value_name = "PATH")]
    pub site: Option<PathBuf>,
    /// Check for this host of the site, whatever addresses this machine has
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Write JSON
    #[arg(long)]
    pub json: bool,
    /// Print only warnings and errors, no rows and no notes
    #[arg(long, conflicts_with = "json")]
    pub quiet: bool,
    /// Exit with code 3 if there is a warning
    #[arg(long)]
    pub strict: bool,
}

/// The origin of a name from the command line.
const HOST: &str = "--host";

/// Returns exit code 0 if the files are valid, 1 if they are not, 2 if the site has no host of this name, and 3 if they
/// have warnings under `--strict`.
pub fn run(args: &CheckArgs, out: &mut Output) -> anyhow::Result<ExitCode> {
    // A site file that is only checked may lie anywhere, and an ordinary user puts nothing in force.
    let mut files = if args.site.is_some() { Files::reported() } else { Files::of_process() };
    let (draft, policy) = match read(args, &mut files)? {
        Ok(found) => found,
        Err(faults) => {
            if args.json {
                out.json(&serde_json::json!({ "errors": faults }))?;
            } else {
                let count = faults.0.len();
                let noun = if count == 1 { "error" } else { "errors" };
                out.complain(format_args!("{faults}\n{count} {noun}"));
            }
            return Ok(ExitCode::from(code_of(&faults, HOST)));
        }
    };
    let mut notes = conflict::notes(&draft, &policy);
    notes.extend(files.concerns().iter().map(changeable));
    notes.extend(other_layout(&draft));
    // Another site or another host cannot be compared with this machine.
    if args.site.is_none() && args.host.is_none() {
        notes.extend(
            machine::compare(&draft.settings, &policy).context("compare the files with this machine")?,
        );
        notes.extend(addresses(&draft, &policy, &notes));
        notes.extend(missing_group(&draft.settings));
        notes.extend(super::paths::note(&super::paths::in_use(&draft.settings), &draft.settings));
    }
    let report = render::check::CheckReport::new(&draft, &policy, notes);
    if args.json {
        out.json(&report)?;
    } else {
        let mut text = Vec::new();
        if args.quiet {
            report.print_warnings(&mut text, out.colour())?;
        } else {
            report.print(&mut text, out.width(), out.colour())?;
        }
        out.folded(&text);
    }
    let found = args.strict && report.warnings() > 0;
    Ok(if found { ExitCode::from(ATTENTION) } else { ExitCode::SUCCESS })
}

/// Returns a note if the group that may ask the daemon does not exist.
fn missing_group(settings: &Settings) -> Option<Note> {
    let name = &settings.control_group;
    // A look-up that failed says nothing about the group.
    Group::from_name(name).ok()?.is_none().then(|| Note {
        kind: "group-missing",
        message: format!(
            "there is no group {name}: only root may ask the daemon, and the exporter gets no metrics; \
             `groupadd --system {name}`, or write another group into [control]"
        ),
        rows: Vec::new(),
    })
}

/// Returns a note about a file that another user than root could change, and that the service refuses.
fn changeable(concern: &Diagnostic) -> Note {
    let Diagnostic { found, problem, remedy, .. } = concern;
    let message = format!("the service refuses the files: {found} {problem}; {remedy}");
    Note { kind: "file-owner", message, rows: Vec::new() }
}

/// Returns a note about the state that the next start of this version would lose, if a version with another map
/// layout enforces now.
fn other_layout(draft: &Draft) -> Option<Note> {
    let note = |kind, message| Some(Note { kind, message, rows: Vec::new() });
    match takeover::other_layout(&Pins::new(&draft.settings.paths.pins)) {
        Ok(Some(found)) => note("map-layout", takeover::notice(found)),
        Err(denied @ KernelError::Denied { .. }) => note("not-looked-at", denied.to_string()),
        Ok(None) | Err(_) => None,
    }
}

/// Compares the addresses of the site file with this machine. `found` are the notes so far: an interface that
/// one of them names is not named again.
fn addresses(draft: &Draft, policy: &Policy, found: &[Note]) -> Vec<Note> {
    let note = |kind, message| Note { kind, message, rows: Vec::new() };
    let mut notes = Vec::new();
    let failsafe: Vec<String> = policy
        .rows_in(Direction::Inbound)
        .filter(|row| row.failsafe && !row.peers.is_empty())
        .map(|row| row.id.0.clone())
        .collect();
    if !failsafe.is_empty() && own_addresses::forwards() {
        let message = "this machine forwards packets (ip_forward is 1): failsafe rows and exceptions also let in what \
                       is for an address that the site file gives to nobody, and the kernel forwards such packets";
        notes.push(Note { kind: "forwarding", message: message.to_owned(), rows: failsafe });
    }
    let Some((policy, addresses)) = own_addresses::on(&draft.settings, policy.clone()) else {
        return notes;
    };
    let Differences { missing, unlisted, conflict } = policy.differences(&addresses);
    notes.extend(missing.into_iter().map(|about| note("address-missing", about)));
    notes.extend(unlisted.into_iter().map(|about| note("address-unlisted", about)));
    notes.extend(conflict.into_iter().map(|about| note("address-conflict", about)));
    for by_interface in addresses.others.chunk_by(|one, next| one.interface == next.interface) {
        let list: Vec<String> = by_interface.iter().map(|it| it.address.to_string()).collect();
        let Some(first) = by_interface.first() else { continue };
        if found.iter().any(|note| is_about(note, &first.interface)) {
            continue;
        }
        let message = format!(
            "{} ({}) is not in `interfaces`: what comes in there is not judged, whatever address it is for",
            first.interface,
            list.join(", ")
        );
        notes.push(note("unguarded-interface", message));
    }
    notes
}

/// Returns true for a remark about an unguarded interface, which begins with the name of the interface.
fn is_about(note: &Note, interface: &str) -> bool {
    matches!(note.kind, "open-interface" | "unguarded-interface")
        && note.message.split(' ').next() == Some(interface)
}

type Checked = Result<(Draft, Policy), Diagnostics>;

fn read(args: &CheckArgs, files: &mut Files) -> anyhow::Result<Checked> {
    let settings = match &args.site {
        // A site file can be checked on a machine where pomguard is not set up.
        Some(site) if !args.config.exists() => Ok(Settings::without_file(site)),
        _ => Settings::read(files, &args.config),
    };
    let mut settings = match settings {
        Ok(settings) => settings,
        Err(faults) => {
            let site = args.site.clone().or_else(|| Settings::site_named(files, &args.config));
            return Ok(Err(Draft::with_site_faults(files, faults, site.as_deref())));
        }
    };
    if let Some(name) = &args.host {
        let origin = Origin { file: HOST.into(), line: 1 };
        settings.host = Some(At { value: name.clone(), origin });
    }
    let addresses = if settings.host.is_some() { Vec::new() } else { own_addresses()? };
    let site = args.site.clone().unwrap_or_else(|| settings.site.clone());
    Ok(Draft::with_settings(files, settings, &site).and_then(|draft| {
        let policy = resolve(&draft, &addresses)?;
        fits(&policy).map_err(|error| beyond_a_limit(&error, &site))?;
        Ok((draft, policy))
    }))
}

/// Returns the fault of a policy whose lines are all valid, but which exceeds a limit.
fn beyond_a_limit(error: &CompileError, site: &Path) -> Diagnostics {
    Diagnostics(vec![Diagnostic {
        origin: Origin { file: site.display().to_string().into(), line: 1 },
        found: "the policy of this host".to_owned(),
        problem: error.to_string(),
        remedy: "keep below the limit: fewer or wider prefixes, or fewer rows for this host".to_owned(),
    }])
}

fn own_addresses() -> anyhow::Result<Vec<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs().context("cannot list this machine's addresses")?;
    let address = |storage: nix::sys::socket::SockaddrStorage| {
        let v4 = storage.as_sockaddr_in().map(|it| IpAddr::from(it.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|it| IpAddr::from(it.ip())))
    };
    Ok(interfaces.filter_map(|interface| interface.address.and_then(address)).collect())
}

#[cfg(test)]
mod tests {
    use std::{fmt::Write as _, fs};

    use pomguard_common::limits;

    use super::*;
    use crate::policy::conflict::Weight;

    fn checked(failsafe_peers: usize) -> Checked {
        let folder = tempfile::tempdir().unwrap();
        let site = folder.path().join("site.toml");
        let mut peers = String::new();
        for peer in 0..failsafe_peers {
            // Steps of two, so that no two addresses form one prefix.
            write!(peers, "\"10.1.0.{}\", ", 2 * peer).unwrap();
        }
        let text = format!(
            "matrix = \"pom-4.0\"\nzones = 1\n\n[[host]]\nname = \"one\"\naddresses = [\"10.9.0.2\"]\n\
             systems = [\"Kafka\"]\n\n[[allow]]\nname = \"ssh\"\nfrom = [{peers}]\nto = [\"one\"]\n\
             ports = \"22\"\nprotocol = \"tcp\"\nfailsafe = true\n"
        );
        fs::write(&site, text).unwrap();
        let config = folder.path().join("pomguard.toml");
        let args = CheckArgs {
            config,
            site: Some(site),
            host: Some("one".to_owned()),
            json: false,
            quiet: true,
            strict: false,
        };
        read(&args, &mut Files::reported()).unwrap()
    }

    #[test]
    fn remark_about_eth10_is_none_about_eth1() {
        let note = |kind, message: &str| Note { kind, message: message.to_owned(), rows: Vec::new() };
        let open = note("open-interface", "eth10 is up and is not guarded");
        assert!(is_about(&open, "eth10") && !is_about(&open, "eth1") && !is_about(&open, "eth"));
        assert!(!is_about(&note("address-missing", "eth10 has no address"), "eth10"), "another kind");
    }

    #[test]
    fn faults_of_both_files_are_shown_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("pomguard.toml");
        fs::write(
            &config,
            "site = \"other.toml\"\ninterfaces = [\"eth0\"]\n[enforcement]\ninbound = \"on\"\n",
        )
        .unwrap();
        fs::write(folder.path().join("other.toml"), "matrix = \"pom-4.0\"\nzonas = 1\n").unwrap();
        let args = CheckArgs {
            config: config.clone(),
            site: None,
            host: None,
            json: false,
            quiet: true,
            strict: false,
        };
        let Diagnostics(checked) = read(&args, &mut Files::reported()).unwrap().unwrap_err();
        let Diagnostics(planned) = Draft::read(&mut Files::reported(), &config).unwrap_err();
        for faults in [checked, planned] {
            let names = |file: &str| faults.iter().any(|error| error.origin.file.ends_with(file));
            assert!(names("pomguard.toml") && names("other.toml"), "{faults:?}");
        }
    }

    #[test]
    fn missing_group_is_named_with_the_command_that_makes_it() {
        let mut settings = Settings::without_file(Path::new("site.toml"));
        settings.control_group = "root".to_owned();
        assert!(missing_group(&settings).is_none());
        settings.control_group = "no-such-group".to_owned();
        let note = missing_group(&settings).unwrap();
        assert!(note.message.contains("groupadd --system no-such-group"), "{note:?}");
        assert_eq!(note.weight(), Weight::Note);
    }

    #[test]
    fn policy_beyond_a_limit_is_refused_with_the_limit() {
        assert!(checked(limits::OVERRIDES).is_ok());
        let Diagnostics(faults) = checked(limits::OVERRIDES + 1).unwrap_err();
        let [error] = &*faults else { panic!("{faults:?}") };
        assert!(error.origin.file.ends_with("site.toml"), "{error}");
        let limit = format!("have {} tuples", limits::OVERRIDES + 1);
        assert!(error.problem.contains(&limit), "{error}");
    }
}
