//! `pomguard explain`: the verdict on a packet and the reason, from the policy and from the kernel.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use pomguard_common::reason::Reason;
use serde::Serialize;

use super::{ATTENTION, FAULT, Usage, drops::collect, output::Output, own_addresses, way_in};
use crate::{
    control::{client, protocol::Request},
    input::{At, Draft, diagnostic::Fault},
    kernel::{KernelError, clock::unix_now, interface, pins::Pins},
    model::Origin,
    observe::{
        drops::{
            report::{DropsReport, Item, Query, opened},
            store::Store,
        },
        verdict::{AT_ONCE, Verdict, VerdictAsker, Verdicts},
    },
    paths,
    policy::{
        self, Policy,
        explain::{self, Explanation},
        oracle::Opening,
        precedence::{Alongside, Ruling},
        question::{AnswerGroup, Question},
        services::Services,
    },
    render,
    state::exceptions,
};

/// Names of services, if the system has the file.
const SERVICES: &str = "/etc/services";

/// Shows the verdict on a packet that opens a connection, and the reason.
///
/// SRC and DST are addresses, prefixes, ranges, or names of hosts, systems and peers of the site file. The port
/// of DST is a number, the name of a service, or a system of the matrix. The answer comes twice, from the files
/// and from the programs in the kernel; a difference between the two is reported.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "pomguard explain <SRC[:PORT]> [to] <DST[:PORT][/PROTO]> [OPTIONS]\n       pomguard explain --drop <ID> [OPTIONS]"
)]
pub struct ExplainArgs {
    /// Source, then destination: `10.50.0.7 to 10.20.0.11:9970/tcp`, `"Agent Desktop" to pom1:https`,
    /// `[fd00::7]:40000 [fd00::1]:9970/tcp`, `10.0.0.0/8 pom1:ssh`
    #[arg(value_name = "SRC [to] DST", num_args = 1..=3, required_unless_present = "dropped")]
    pub question: Vec<String>,
    /// Ask about a line of `pomguard drops`, by the id in its first column
    #[arg(long = "drop", value_name = "ID", id = "dropped", conflicts_with_all = ["question", "host"])]
    pub dropped: Option<String>,
    /// Ask about another host of the site: only the policy answers
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// The daemon's settings
    #[arg(long, value_name = "PATH", default_value = paths::SETTINGS)]
    pub config: PathBuf,
    /// Use only the files, not the kernel
    #[arg(long)]
    pub offline: bool,
    /// Write JSON
    #[arg(long)]
    pub json: bool,
}

/// The answers of the policy and of the kernel to one packet.
#[derive(Serialize)]
struct Answer<'a> {
    policy: &'a Explanation,
    kernel: Option<&'a Verdict>,
    agree: Option<bool>,
}

/// The same for packets with one answer.
#[derive(Serialize)]
struct GroupAnswer<'a> {
    #[serde(flatten)]
    group: &'a AnswerGroup,
    kernel: Option<&'a Verdict>,
    agree: Option<bool>,
}

/// The end of a run, for the exit code.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    denies: bool,
    disagrees: bool,
}

impl Outcome {
    fn add(&mut self, ruling: &Ruling, kernel: Option<&Verdict>) {
        self.denies |= match kernel {
            Some(kernel) => !kernel.passes || kernel.audited,
            None => ruling.is_denial(),
        };
        self.disagrees |= agree(ruling, kernel) == Some(false);
    }
}

/// Returns exit code 0 if every packet passes, 3 if one is dropped or would be dropped in enforce, and 1 if
/// policy and kernel disagree.
pub fn run(args: &ExplainArgs, out: &mut Output) -> anyhow::Result<ExitCode> {
    let (mut draft, interfaces) = (Draft::load(&args.config)?, interface::addresses()?);
    super::paths::go_by_those_in_use(&mut draft.settings, out);
    let here = policy::resolve(&draft, &interfaces)?;
    let elsewhere = args.host.as_ref().filter(|name| !name.eq_ignore_ascii_case(&here.host));
    let policy = match elsewhere {
        Some(name) => {
            let hosts = draft.site.hosts.iter();
            let named = hosts.map(|host| &host.name).find(|host| host.value.eq_ignore_ascii_case(name));
            let named = named.ok_or_else(|| Usage(format!("--host: the site file has no host {name}")))?;
            let origin = Origin { file: "--host".into(), line: 1 };
            draft.settings.host = Some(At { value: named.value.clone(), origin });
            policy::resolve(&draft, &[])?
        }
        None => own_addresses::on(&draft.settings, here.clone()).map_or(here, |(on, _)| on),
    };
    if elsewhere.is_some() {
        out.complain(format_args!(
            "pomguard: only the policy of {} answers, with the modes of this server's {}; ask there for the kernel",
            policy.host,
            args.config.display()
        ));
    }
    let mut asking = Asking {
        pins: Pins::new(&draft.settings.paths.pins),
        draft: &draft,
        policy: &policy,
        offline: args.offline || elsewhere.is_some(),
        // The daemon of this host knows which floating addresses the host holds. Nobody here knows that of another.
        unasked: Alongside { holders_known: elsewhere.is_none(), ..Alongside::default() },
        copy: None,
        outcome: Outcome::default(),
    };
    match &args.dropped {
        Some(id) => asking.drop_line(id, args.json, out)?,
        None => asking.question(&args.question, args.json, out)?,
    }
    let outcome = asking.outcome;
    if outcome.disagrees {
        let changed = way_in::in_force(&draft.settings).is_some_and(|in_force| !in_force.is_same(&policy));
        let cause = if changed {
            "the files are not the policy in force: `pomguard plan` shows the changes, `pomguard apply` puts them \
             in force"
        } else {
            "the files are in force, so this is a fault in pomguard: report it, with `pomguard status --json`"
        };
        out.complain(format_args!(
            "pomguard: DISAGREEMENT: the files say one thing, the kernel does another; {cause}"
        ));
        return Ok(ExitCode::from(FAULT));
    }
    Ok(if outcome.denies { ExitCode::from(ATTENTION) } else { ExitCode::SUCCESS })
}

/// Returns true if both halves give the same answer. Two overrides that allow the same packet are counted in the
/// order of the kernel's table, which the files do not tell.
fn agree(ruling: &Ruling, kernel: Option<&Verdict>) -> Option<bool> {
    let kernel = kernel?;
    let both = (kernel.passes, kernel.audited) == (ruling.passes(), ruling.audited);
    let overrides = [Reason::Failsafe.name(), Reason::Exception.name()];
    let same = kernel.reason == ruling.reason.name() && kernel.row == ruling.row;
    let overridden = overrides.contains(&kernel.reason.as_str()) && overrides.contains(&ruling.reason.name());
    Some(both && (same || overridden))
}

fn usage(error: &Fault) -> Usage {
    Usage(format!("{}: {}", error.problem, error.remedy))
}

/// The sentence for the person who waits.
const ASKING: &str = "asking the kernel: the first answer takes some seconds";

struct Asking<'a> {
    pins: Pins,
    draft: &'a Draft,
    policy: &'a Policy,
    offline: bool,
    /// The state alongside the policy that counts if the kernel is not asked.
    unasked: Alongside,
    /// The copy of the programs that this process loaded, because no daemon answered.
    copy: Option<VerdictAsker>,
    outcome: Outcome,
}

impl Asking<'_> {
    /// Asks the kernel, if it is to be asked and anything is in force.
    fn kernel(&mut self, openings: &[Opening]) -> anyhow::Result<Option<Verdicts>> {
        if self.offline {
            return Ok(None);
        }
        if self.copy.is_none() {
            let request = Request::Explain { openings: openings.to_vec() };
            let answered = client::ask::<Verdicts>(&self.draft.settings.paths.runtime, request, None);
            if let Ok(verdicts) = answered
                && verdicts.verdicts.len() == openings.len()
            {
                return Ok(Some(verdicts));
            }
        }
        let copy = self.copy.get_or_insert_with(|| VerdictAsker::new(self.pins.clone()));
        let exceptions = exceptions::load(&self.draft.settings.paths.state).unwrap_or_default();
        match copy.ask(openings, exceptions) {
            Ok(verdicts) => Ok(Some(verdicts)),
            Err(KernelError::NotInstalled { .. }) => Ok(None),
            Err(error) => Err(error).context("ask the kernel (`--offline` does without)"),
        }
    }

    /// Answers a question in words.
    fn question(&mut self, words: &[String], json: bool, out: &mut Output) -> anyhow::Result<()> {
        let services = Services::new(&fs::read_to_string(SERVICES).unwrap_or_default());
        let question = Question::read(self.draft, &services, words).map_err(|error| usage(&error))?;
        if let Some(opening) = question.packet(self.policy) {
            return self.packet(&opening, json, out);
        }
        // The state alongside the policy decides where the answers differ, so the kernel is asked for it first.
        let state = out.busy(ASKING, || self.kernel(&[]))?;
        let alongside = state.as_ref().map_or_else(|| self.unasked.clone(), Verdicts::alongside);
        let groups = question.answers(self.policy, &alongside).map_err(|error| usage(&error))?;
        let mut verdicts: Vec<Option<Verdict>> = Vec::with_capacity(groups.len());
        let openings: Vec<Opening> = groups.iter().map(|group| group.opening).collect();
        for some in openings.chunks(AT_ONCE) {
            match out.busy(ASKING, || self.kernel(some))? {
                Some(found) => verdicts.extend(found.verdicts.into_iter().map(Some)),
                None => verdicts.extend(some.iter().map(|_| None)),
            }
        }
        let mut answers = Vec::with_capacity(groups.len());
        for (group, kernel) in groups.iter().zip(&verdicts) {
            let kernel = kernel.as_ref();
            self.outcome.add(&group.ruling, kernel);
            answers.push(GroupAnswer { group, kernel, agree: agree(&group.ruling, kernel) });
        }
        if json {
            return out.json(&answers);
        }
        for answer in &answers {
            let GroupAnswer { group, kernel, agree } = answer;
            render::explain::group(group, self.policy, out)?;
            if *agree == Some(false)
                && let Some(kernel) = kernel
            {
                tell(kernel, out);
            }
        }
        if state.is_none() {
            out.folded(b"kernel not asked: nothing is in force here, or --offline or --host was given\n");
        }
        Ok(())
    }

    /// Answers a question about one packet.
    fn packet(&mut self, opening: &Opening, json: bool, out: &mut Output) -> anyhow::Result<()> {
        let found = out.busy(ASKING, || self.kernel(&[*opening]))?;
        let alongside = found.as_ref().map_or_else(|| self.unasked.clone(), Verdicts::alongside);
        let explanation = explain::explain(self.policy, &alongside, opening);
        let kernel = found.as_ref().and_then(|found| found.verdicts.first());
        self.outcome.add(&explanation.ruling, kernel);
        if json {
            let agree = agree(&explanation.ruling, kernel);
            return out.json(&Answer { policy: &explanation, kernel, agree });
        }
        render::explain::print(&explanation, out)?;
        match kernel {
            Some(kernel) => tell(kernel, out),
            None => out.line("  kernel   not asked: nothing is in force, or --offline or --host was given"),
        }
        Ok(())
    }

    /// Answers the question about the lines of `drops` with this id.
    fn drop_line(&mut self, id: &str, json: bool, out: &mut Output) -> anyhow::Result<()> {
        let mut warnings = Vec::new();
        let (store, now) = (Store::new(&self.draft.settings.paths.state), unix_now());
        let (all, _) = collect(&self.pins, &store, None, now, &mut warnings)?;
        for warning in warnings {
            out.complain(format_args!("pomguard: warning: {warning}"));
        }
        let report = DropsReport::new(&all, &Query::default(), Some(self.policy), now);
        let items: Vec<&Item> = report.drops.iter().filter(|item| item.id.eq_ignore_ascii_case(id)).collect();
        if items.is_empty() {
            return Err(Usage(format!(
                "no line of `pomguard drops` has the id {id}: `pomguard drops --all` shows every line that is kept"
            )).into());
        }
        for item in items {
            if !json {
                render::explain::recorded(item, now, out)?;
            }
            if let Some(opening) = opened(item, self.policy) {
                self.packet(&opening, json, out)?;
                continue;
            }
            self.outcome.denies = true;
            if json {
                out.json(item)?;
            } else {
                render::explain::no_opening(item, out)?;
            }
        }
        Ok(())
    }
}

fn tell(kernel: &Verdict, out: &mut Output) {
    let verdict = match (kernel.passes, kernel.audited) {
        (true, true) => "PASS in audit, would be dropped",
        (true, false) => "PASS",
        (false, _) => "DROP",
    };
    let row = kernel.row.as_ref().map_or_else(String::new, |row| format!(", row {row}"));
    out.line(format_args!("  kernel   {verdict}: {}{row}", kernel.reason));
}
