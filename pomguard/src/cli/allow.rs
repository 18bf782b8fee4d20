//! `pomguard allow` and `revoke`: timed exceptions.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use ipnet::IpNet;

use super::{Usage, duration, emergency::Verb, output::Output, status};
use crate::{
    control::protocol::{Allowed, Request},
    daemon::overrides::{emergency::Asker, exceptions::NewException},
    input::{
        Draft, address, ports,
        site::{WrittenPlace, plain_name},
    },
    kernel::{clock::unix_now, interface},
    observe::status::Status,
    paths,
    policy::{self, Direction, Origin, PortRange, Service},
    render::{quantity, status::described},
};

/// Options of `allow`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    override_usage = "pomguard allow <FROM> to <PORT/PROTO> --for <TIME> --why <TEXT> [OPTIONS]\n       \
                      pomguard allow --list [OPTIONS]"
)]
pub struct AllowArgs {
    /// The peer and the service: `10.9.0.7 to 22/tcp`, `10.9.0.0/24,fd00:9::/64 9970-9973/tcp`, `10.9.0.7 to
    /// icmp`; a host, peer or system of the site file stands for its addresses: `"Agent Desktop" to 443/tcp`
    #[arg(value_name = "FROM [to] PORT/PROTO", num_args = 0..=3, required_unless_present = "list", conflicts_with = "list")]
    pub what: Vec<String>,
    /// Duration (10m, 2h, 1d), at most 30 days; the exception ends by itself, also without the daemon
    #[arg(long = "for", value_name = "TIME", value_parser = duration::up_to::<{ 30 * duration::DAY }>, required_unless_present = "list")]
    pub time: Option<u32>,
    /// Reason, kept with the exception and in the journal
    #[arg(long, value_name = "TEXT", required_unless_present = "list")]
    pub why: Option<String>,
    /// Outbound: this server initiates the connection
    #[arg(long)]
    pub out: bool,
    /// Name of the exception, the second part of the row id `exception/NAME`
    #[arg(long, value_name = "NAME", value_parser = exception_name)]
    pub name: Option<String>,
    /// List the active exceptions
    #[arg(long)]
    pub list: bool,
    /// Write JSON
    #[arg(long)]
    pub json: bool,
    /// The daemon's settings
    #[arg(long, value_name = "PATH", default_value = paths::SETTINGS)]
    pub config: PathBuf,
}

/// Options of `revoke`.
#[derive(Clone, Debug, clap::Args)]
pub struct RevokeArgs {
    /// Name of the exception, as `pomguard allow --list` shows it, with or without `exception/`
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Reason, kept in the journal
    #[arg(long, value_name = "TEXT")]
    pub why: Option<String>,
    /// Write JSON
    #[arg(long)]
    pub json: bool,
    /// The daemon's settings
    #[arg(long, value_name = "PATH", default_value = paths::SETTINGS)]
    pub config: PathBuf,
}

fn exception_name(written: &str) -> Result<String, String> {
    plain_name(written).map_err(|error| error.to_string())
}

/// Returns exit code 0 if the exception is active.
pub fn run(args: &AllowArgs, out: &mut Output) -> anyhow::Result<ExitCode> {
    if args.list {
        return list(args, out);
    }
    let Some((from, to)) = ends(&args.what) else {
        return Err(Usage("write it as FROM to PORT/PROTO, such as 10.9.0.7 to 22/tcp".to_owned()).into());
    };
    let Some(seconds) = args.time else { return Err(Usage("say for how long: --for 2h".to_owned()).into()) };
    let peers = peers(from, &args.config)?;
    let meant = listed(&peers);
    let services = services(to)?;
    let direction = if args.out { Direction::Outbound } else { Direction::Inbound };
    let request = Request::Allow {
        name: args.name.clone(),
        direction,
        peers: peers.clone(),
        services: services.clone(),
        seconds,
    };
    let settings = super::paths::settings_in_use(&args.config, out);
    let verb = Verb { request, why: args.why.clone(), at_any_rate: false };
    let grant = |asker: &Asker| NewException {
        name: args.name.clone(),
        direction,
        peers: peers.clone(),
        services: services.clone(),
        seconds,
        asker: asker.clone(),
    };
    let allowed: Allowed =
        verb.run(&settings, out, |scene, asker| scene.allow(&mut scene.exceptions()?, grant(asker)))?;
    if args.json {
        out.json(&allowed)?;
    } else {
        let left = quantity::duration(allowed.ends.saturating_sub(unix_now()));
        let name = &allowed.name;
        let line = format!(
            "exception/{name} holds for {left}, for {meant}: `pomguard revoke {name}` ends it before\n"
        );
        out.folded(line.as_bytes());
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns exit code 0 if the exception is no longer active.
pub fn revoke(args: &RevokeArgs, out: &mut Output) -> anyhow::Result<ExitCode> {
    // Every list shows the id of the row.
    let name = args.name.strip_prefix("exception/").unwrap_or(&args.name);
    let request = Request::Revoke { name: name.to_owned() };
    let settings = super::paths::settings_in_use(&args.config, out);
    let verb = Verb { request, why: args.why.clone(), at_any_rate: false };
    let message: String =
        verb.run(&settings, out, |scene, asker| scene.revoke(&mut scene.exceptions()?, name, asker))?;
    if args.json {
        out.json(&serde_json::json!({ "name": name, "message": message }))?;
    } else {
        out.folded(format!("{message}\n").as_bytes());
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns both ends of an exception, for every quoting by the shell: `FROM to PORT/PROTO` in three arguments,
/// in two without `to`, or all in one pair of quotes. Returns `None` if an end is missing.
fn ends(what: &[String]) -> Option<(&str, &str)> {
    let (from, to) = match what {
        [from, to] => (from.as_str(), to.as_str()),
        [from, word, to] if word == "to" => (from.as_str(), to.as_str()),
        // A name may have blanks, but a service has none: the last word is the service.
        [all] => all.rsplit_once(" to ").or_else(|| all.trim_end().rsplit_once(char::is_whitespace))?,
        _ => return None,
    };
    let (from, to) = (from.trim(), to.trim());
    let whole = !from.is_empty() && !to.is_empty() && from != "to" && to != "to";
    whole.then_some((from, to))
}

/// Lists the active exceptions as the kernel has them, also if the daemon does not run.
fn list(args: &AllowArgs, out: &mut Output) -> anyhow::Result<ExitCode> {
    let settings = super::paths::settings_in_use(&args.config, out);
    let Status { exceptions, .. } = status::read(&settings, out)?;
    if args.json {
        out.json(&exceptions)?;
        return Ok(ExitCode::SUCCESS);
    }
    if exceptions.is_empty() {
        out.line("no exception holds");
    }
    let now = unix_now();
    for exception in &exceptions {
        out.folded(format!("{}  {}\n", exception.id, described(exception, now)).as_bytes());
    }
    Ok(ExitCode::SUCCESS)
}

/// Parses addresses, prefixes, ranges and names of the site file, separated by commas. Only a name needs the
/// files: in an emergency they may be broken, and addresses must still work.
fn peers(written: &str, config: &Path) -> anyhow::Result<Vec<IpNet>> {
    let mut found = Vec::new();
    for part in written.split(',').map(str::trim) {
        if address::is_meant(part) || part.is_empty() {
            found.extend(address::prefixes(part).map_err(|error| Usage(format!("{part}: {error}")))?);
        } else {
            found.extend(
                named(part, config).with_context(|| format!("{part}: not an address, and as a name"))?,
            );
        }
    }
    Ok(found)
}

/// Returns the addresses of a name of the site file.
///
/// # Errors
/// [`Usage`] if the site file has no such name; the faults of the files if they cannot be read.
pub(super) fn named(name: &str, config: &Path) -> anyhow::Result<Vec<IpNet>> {
    let draft = Draft::load(config)?;
    let found = draft.site.place(&draft.matrix, name);
    let place = WrittenPlace {
        written: name.into(),
        place: found.map_err(|error| Usage(error.to_string()))?,
        origin: Origin { file: "the command line".into(), line: 1 },
    };
    let addresses = policy::addresses_of(&draft, &interface::addresses()?, &place)?;
    if addresses.is_empty() {
        return Err(Usage(format!("{}: no address of another machine has this name", draft.site.file)).into());
    }
    Ok(addresses)
}

/// Returns the first few prefixes, and the number of the others.
fn listed(peers: &[IpNet]) -> String {
    const SHOWN: usize = 4;
    let shown = peers.iter().take(SHOWN).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match peers.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Parses ports with a protocol that has ports, or the name of a protocol without ports.
fn services(written: &str) -> anyhow::Result<Vec<Service>> {
    let form = "write it as 22/tcp, 9970-9973/tcp, 53/udp, icmp or icmpv6";
    let Some((numbers, protocol)) = written.split_once('/') else {
        let protocol = match written {
            "icmp" => 1,
            "icmpv6" => 58,
            _ => return Err(Usage(format!("{written}: {form}")).into()),
        };
        return Ok(vec![Service { protocol, ports: PortRange::ANY }]);
    };
    let protocol = match protocol {
        "tcp" => 6,
        "udp" => 17,
        _ => return Err(Usage(format!("{written}: {form}")).into()),
    };
    let ranges = ports::ranges(numbers).map_err(|error| Usage(format!("{numbers}: {error}")))?;
    Ok(ranges.into_iter().map(|ports| Service { protocol, ports }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exception_is_read_however_the_shell_cut_it() {
        let read = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            ends(&words).map(|(from, to)| (from.to_owned(), to.to_owned()))
        };
        let meant = Some(("Agent Desktop".to_owned(), "443/tcp".to_owned()));
        for words in [
            &["Agent Desktop to 443/tcp"][..],
            &["Agent Desktop 443/tcp"],
            &["  Agent Desktop  to  443/tcp "],
            &["Agent Desktop", "443/tcp"],
            &["Agent Desktop", "to", "443/tcp"],
        ] {
            assert_eq!(read(words), meant, "{words:?}");
        }
        assert_eq!(read(&["Road to Rome to icmp"]), Some(("Road to Rome".to_owned(), "icmp".to_owned())));
        for words in [&["443/tcp"][..], &["to 443/tcp"], &["a to"], &["", "22/tcp"], &["a", "at", "b"], &[]] {
            assert_eq!(read(words), None, "{words:?}");
        }
    }

    #[test]
    fn what_is_let_through_is_read_strictly() {
        let peers = |written| peers(written, Path::new("/nowhere/pomguard.toml"));
        assert_eq!(peers("10.9.0.7,fd00:9::/64").unwrap().len(), 2, "it takes no file");
        assert!(peers("10.9.0.7,").is_err() && peers("10.9.0.1/24").is_err() && peers("somewhere").is_err());
        assert_eq!(services("22,80/tcp").unwrap().len(), 2);
        assert_eq!(services("icmp").unwrap()[0].protocol, 1);
        for wrong in ["22", "22/TCP", "0/tcp", "22-20/tcp", "/tcp", "tcp", "22/tcp/udp", "any/any"] {
            assert!(services(wrong).is_err(), "{wrong}");
        }
    }
}
