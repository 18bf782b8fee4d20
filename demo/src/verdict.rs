//! Judges the outcomes: the rows that are right, and the denied attempts that were not denied.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{
    layout::{Family, Machine, Role},
    matrix::Matrix,
    plan::{Attempt, Plan},
    probe::Outcome,
    stats::{Counters, Direction},
};

/// The number of attempts up to which each is listed.
const SHOWN: usize = 8;

/// One guarded machine's counters before and after a step.
pub(super) struct Counted {
    pub(super) machine: usize,
    pub(super) before: Counters,
    pub(super) after: Counters,
}

/// The result of one row.
#[derive(Debug, Serialize)]
pub(super) struct RowVerdict {
    pub(super) row: u16,
    pub(super) source: String,
    pub(super) destination: String,
    pub(super) printed: String,
    /// Number of pairs of different machines, source → destination.
    pub(super) pairs: usize,
    pub(super) tried: usize,
    pub(super) passed: usize,
    /// True if pomguard runs on at least one of the ends.
    pub(super) guarded: bool,
    /// The increase of the row's own counters on all guarded machines together: at the machines where the
    /// connections came in, and at the machines where they went out.
    pub(super) counted_inbound: u64,
    pub(super) counted_outbound: u64,
    /// Lower rows that list the same machines and ports. The connections between these machines are counted
    /// under them.
    pub(super) counted_under: BTreeSet<u16>,
    /// The errors; empty if the row is right.
    pub(super) wrong: Vec<String>,
}

/// Attempts of one kind that should have failed.
#[derive(Debug, Serialize)]
pub(super) struct DeniedVerdict {
    pub(super) what: String,
    pub(super) tried: usize,
    pub(super) reached: usize,
    /// Packets dropped meanwhile, by direction and reason.
    pub(super) reasons: BTreeMap<String, u64>,
    /// The errors; empty if all attempts were denied and all drops counted.
    pub(super) wrong: Vec<String>,
}

/// Judges every row by the outcomes of its attempts and by the counters.
pub(super) fn judge_rows(
    matrix: &Matrix,
    machines: &[Machine],
    plan: &Plan,
    outcomes: &[Vec<Outcome>],
    counted: &[Counted],
) -> Vec<RowVerdict> {
    // The connections that each counter must have seen, by machine, direction and row.
    let mut due: BTreeMap<(usize, Direction, usize), u64> = BTreeMap::new();
    for (attempt, outcome) in plan.rows.iter().flatten().zip(outcomes.iter().flatten()) {
        let Some(row) = plan.counted_under(attempt) else { continue };
        for (end, direction) in [(attempt.to, Direction::Inbound), (attempt.from, Direction::Outbound)] {
            if machines[end].role == Role::Pom && outcome.reached() {
                *due.entry((end, direction, row)).or_default() += 1;
            }
        }
    }
    let mut verdicts = Vec::new();
    for (index, row) in matrix.rows.iter().enumerate() {
        let (attempts, outcomes) = (&plan.rows[index], &outcomes[index]);
        let failed: Vec<_> = attempts
            .iter()
            .zip(outcomes)
            .filter(|(_, outcome)| **outcome != Outcome::Answered)
            .map(|(attempt, outcome)| format!("{}: {outcome:?}", describe(machines, attempt)))
            .collect();
        let passed = attempts.len() - failed.len();
        let mut wrong = shorten(failed);
        let mut moved: BTreeMap<Direction, u64> = BTreeMap::new();
        for Counted { machine, before, after } in counted {
            for direction in [Direction::Inbound, Direction::Outbound] {
                let id = format!("{}/{}", matrix.id, row.number);
                let seen = after.connections_since(before, direction, &id);
                *moved.entry(direction).or_default() += seen;
                let due = due.get(&(*machine, direction, index)).copied().unwrap_or(0);
                if seen < due {
                    let name = machines[*machine].name;
                    wrong.push(format!("{name} counted {seen} of {due} connections, {direction:?}"));
                }
            }
        }
        let guarded = |attempt: &&Attempt| guard(machines, attempt).is_some();
        verdicts.push(RowVerdict {
            row: row.number,
            source: matrix.names(&row.source),
            destination: matrix.names(&row.destination),
            printed: row.printed.clone(),
            pairs: attempts.iter().map(|attempt| (attempt.from, attempt.to)).collect::<BTreeSet<_>>().len(),
            tried: attempts.len(),
            passed,
            guarded: attempts.iter().any(|attempt| guarded(&attempt)),
            counted_inbound: moved.remove(&Direction::Inbound).unwrap_or(0),
            counted_outbound: moved.remove(&Direction::Outbound).unwrap_or(0),
            counted_under: attempts
                .iter()
                .filter(guarded)
                .filter_map(|attempt| plan.counted_under(attempt))
                .filter(|&lowest| lowest != index)
                .map(|lowest| matrix.rows[lowest].number)
                .collect(),
            wrong,
        });
    }
    verdicts
}

/// Judges attempts that should have failed. `reached` describes the attempts that succeeded.
pub(super) fn judge_denied(
    what: &str,
    machines: &[Machine],
    attempts: &[Attempt],
    reached: Vec<String>,
    counted: &[Counted],
) -> DeniedVerdict {
    let mut due: BTreeMap<(usize, Direction), u64> = BTreeMap::new();
    for end in attempts.iter().filter_map(|attempt| guard(machines, attempt)) {
        *due.entry(end).or_default() += 1;
    }
    let mut verdict = DeniedVerdict {
        what: what.to_owned(),
        tried: attempts.len(),
        reached: reached.len(),
        reasons: BTreeMap::new(),
        wrong: shorten(reached),
    };
    for Counted { machine, before, after } in counted {
        let dropped = after.dropped_since(before);
        for direction in [Direction::Inbound, Direction::Outbound] {
            let all: u64 =
                dropped.iter().filter(|((way, _), _)| *way == direction).map(|(_, more)| more).sum();
            let due = due.get(&(*machine, direction)).copied().unwrap_or(0);
            if all < due {
                let name = machines[*machine].name;
                verdict.wrong.push(format!("{name} counted {all} of {due} drops, {direction:?}"));
            }
        }
        for ((direction, reason), packets) in dropped {
            *verdict.reasons.entry(format!("{direction:?} {reason}").to_lowercase()).or_default() += packets;
        }
    }
    verdict
}

/// Describes the attempts that got through, or failed in a way that proves nothing.
pub(super) fn not_denied(machines: &[Machine], attempts: &[Attempt], outcomes: &[Outcome]) -> Vec<String> {
    attempts
        .iter()
        .zip(outcomes)
        .filter(|(_, outcome)| **outcome != Outcome::Silent)
        .map(|(attempt, outcome)| format!("{}: {outcome:?}", describe(machines, attempt)))
        .collect()
}

/// Returns the machine and the direction at which a packet that no row lists is dropped: on its way out of a
/// guarded machine, or else on its way in.
fn guard(machines: &[Machine], attempt: &Attempt) -> Option<(usize, Direction)> {
    let guarded = |machine: usize| machines[machine].role == Role::Pom;
    if guarded(attempt.from) {
        Some((attempt.from, Direction::Outbound))
    } else {
        guarded(attempt.to).then_some((attempt.to, Direction::Inbound))
    }
}

fn describe(machines: &[Machine], attempt: &Attempt) -> String {
    let Attempt { from, to, family, port, source_port } = attempt;
    let family = match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    };
    let source_port = source_port.map(|port| format!(" from port {port}")).unwrap_or_default();
    format!("{} → {} at {port} over {family}{source_port}", machines[*from].name, machines[*to].name)
}

fn shorten(mut all: Vec<String>) -> Vec<String> {
    let more = all.len().saturating_sub(SHOWN);
    if more > 0 {
        all.truncate(SHOWN);
        all.push(format!("and {more} more"));
    }
    all
}
