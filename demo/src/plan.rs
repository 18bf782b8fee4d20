//! The attempts: everything that the matrix lists, and much that the matrix does not list.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{
    layout::{Family, Machine, Role, pairs},
    matrix::Matrix,
};

/// Ports of other services. Every machine listens at these ports, so that a packet that gets through is
/// noticed.
const POPULAR: &[u16] = &[22, 23, 80, 111, 443, 2049, 3306, 5060, 6379, 8080, 8443, 9090, 9200];
/// Ports at which nobody listens. A packet that gets through is refused, which is noticed as well. 9843 is
/// pomguard's own metrics page, which serves only the loopback interface.
const QUIET: &[u16] = &[21, 25, 53, 139, 445, 1023, 1024, 3389, 5900, 9843, 9994, 65535];

/// One connection to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Attempt {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) family: Family,
    pub(super) port: u16,
    /// The source port, if not chosen by the kernel.
    pub(super) source_port: Option<u16>,
}

/// A source machine, a destination machine, and the port that the source opens at the destination.
type Tuple = (usize, usize, u16);

/// All attempts.
#[derive(Debug)]
pub(super) struct Plan {
    /// By index into the matrix's rows.
    pub(super) rows: Vec<Vec<Attempt>>,
    /// The lowest row that lists a tuple: the connection is counted under this row.
    lowest: HashMap<Tuple, usize>,
    pub(super) denied: Vec<Denied>,
    /// UDP attempts, none of which may arrive: no row allows UDP.
    pub(super) datagrams: Vec<Attempt>,
    /// The ports at which every machine listens.
    pub(super) listening: BTreeSet<u16>,
}

/// Attempts of one kind that must all fail.
#[derive(Debug)]
pub(super) struct Denied {
    pub(super) what: &'static str,
    pub(super) attempts: Vec<Attempt>,
}

impl Plan {
    pub(super) fn new(matrix: &Matrix, machines: &[Machine]) -> Self {
        let mut plan = Self {
            rows: Vec::new(),
            lowest: HashMap::new(),
            denied: Vec::new(),
            datagrams: Vec::new(),
            listening: matrix.rows.iter().flat_map(|row| row.ports.iter().copied()).collect(),
        };
        plan.listening.extend(POPULAR);
        for (index, row) in matrix.rows.iter().enumerate() {
            for (from, to) in pairs(machines, row) {
                for &port in &row.ports {
                    plan.lowest.entry((from, to, port)).or_insert(index);
                }
            }
        }
        plan.list_rows(matrix, machines);
        plan.list_denied(matrix, machines);
        plan
    }

    /// Returns the row under which a listed attempt is counted.
    pub(super) fn counted_under(&self, attempt: &Attempt) -> Option<usize> {
        self.lowest.get(&(attempt.from, attempt.to, attempt.port)).copied()
    }

    /// Adds every row, at every port, between every two machines, in both families, and once from each end of
    /// its source-port range.
    fn list_rows(&mut self, matrix: &Matrix, machines: &[Machine]) {
        let mut edges = HashSet::new();
        for row in &matrix.rows {
            let mut attempts = Vec::new();
            for (from, to) in pairs(machines, row) {
                for &port in &row.ports {
                    for family in Family::BOTH {
                        attempts.push(Attempt { from, to, family, port, source_port: None });
                    }
                }
            }
            for edge in [*row.source_ports.start(), *row.source_ports.end()] {
                // Two connections cannot share all four numbers, so rows that repeat a tuple take different
                // ones.
                let free = attempts
                    .iter()
                    .filter(|attempt| attempt.source_port.is_none())
                    .map(|attempt| Attempt { source_port: Some(edge), ..*attempt })
                    .find(|attempt| !edges.contains(attempt));
                edges.extend(free);
                attempts.extend(free);
            }
            self.rows.push(attempts);
        }
    }

    fn list_denied(&mut self, matrix: &Matrix, machines: &[Machine]) {
        let ports: BTreeSet<u16> = self.listening.iter().chain(QUIET).copied().collect();
        let [mut strangers, mut known, mut ours] = [Vec::new(), Vec::new(), Vec::new()];
        for (from, source) in machines.iter().enumerate() {
            for (to, target) in machines.iter().enumerate() {
                let guarded = source.role == Role::Pom || target.role == Role::Pom;
                if from == to || !guarded {
                    continue;
                }
                for &port in &ports {
                    for family in Family::BOTH {
                        let attempt = Attempt { from, to, family, port, source_port: None };
                        if self.listening.contains(&port) {
                            self.datagrams.push(attempt);
                        }
                        if self.counted_under(&attempt).is_some() {
                            continue;
                        }
                        match source.role {
                            Role::Stranger => strangers.push(attempt),
                            Role::Peer => known.push(attempt),
                            Role::Pom => ours.push(attempt),
                        }
                    }
                }
            }
        }
        let source_ports = self.outside_source_range(matrix, machines);
        self.denied = vec![
            Denied { what: "strangers, any port", attempts: strangers },
            Denied { what: "known machines, a port not theirs", attempts: known },
            Denied { what: "a listed port, from a source port outside the row's", attempts: source_ports },
            Denied { what: "POM servers themselves, what no row lists", attempts: ours },
        ];
    }

    /// Returns an attempt for each row from just below its source-port range, and another from just above, if
    /// there are such ports.
    fn outside_source_range(&self, matrix: &Matrix, machines: &[Machine]) -> Vec<Attempt> {
        let mut attempts = Vec::new();
        let mut seen = HashSet::new();
        for (row, listed) in matrix.rows.iter().zip(&self.rows) {
            let outside = [row.source_ports.start().checked_sub(1), row.source_ports.end().checked_add(1)];
            for port in outside.into_iter().flatten().filter(|port| *port > 0) {
                let guarded = |attempt: &&Attempt| {
                    [attempt.from, attempt.to].iter().any(|&end| machines[end].role == Role::Pom)
                };
                let fresh = listed
                    .iter()
                    .filter(guarded)
                    .map(|attempt| Attempt { source_port: Some(port), ..*attempt })
                    .find(|attempt| seen.insert(*attempt));
                attempts.extend(fresh);
            }
        }
        attempts
    }
}
