//! Carries out the plan on a site and judges the results.

use anyhow::Result;

use super::{
    layout::{Machine, Role},
    matrix::Matrix,
    plan::{Attempt, Plan},
    probe::{self, Outcome, Pace},
    progress::Progress,
    report::Outsider,
    site::Site,
    stats::Counters,
    verdict::{Counted, DeniedVerdict, RowVerdict, judge_denied, judge_rows, not_denied},
};

/// The inputs of a trial.
pub(super) struct Trial<'a> {
    pub(super) matrix: &'a Matrix,
    pub(super) machines: &'a [Machine],
    pub(super) plan: &'a Plan,
    pub(super) site: &'a Site,
    pub(super) progress: &'a Progress,
    /// The machines that pomguard guards, and the function that reads their counters.
    pub(super) guarded: &'a [usize],
    pub(super) counters: &'a dyn Fn(usize) -> Result<Counters>,
}

impl Trial<'_> {
    /// Tries everything that the matrix lists.
    pub(super) async fn rows(&self) -> Result<Vec<RowVerdict>> {
        let Self { matrix, machines, plan, .. } = *self;
        let attempts = plan.rows.concat();
        self.progress.say(&format!("opening {} connections that the matrix lists", attempts.len()));
        let before = self.read_counters()?;
        let mut outcomes = self.connect(&attempts, Pace::LISTED).await?.into_iter();
        let by_row: Vec<Vec<_>> =
            plan.rows.iter().map(|row| outcomes.by_ref().take(row.len()).collect()).collect();
        let counted = self.counted_since(before)?;
        Ok(judge_rows(matrix, machines, plan, &by_row, &counted))
    }

    /// Tries everything that the matrix does not list.
    pub(super) async fn denied(&self) -> Result<(Vec<DeniedVerdict>, Outsider)> {
        let Self { machines, plan, .. } = *self;
        let mut verdicts = Vec::new();
        let mut outsider = Outsider::default();
        let mut before = self.read_counters()?;
        for denied in &plan.denied {
            let attempts = &denied.attempts;
            self.progress.say(&format!("trying {} times: {}", attempts.len(), denied.what));
            let outcomes = self.connect(attempts, Pace::DENIED).await?;
            outsider.tried += self.by_strangers(attempts).count();
            outsider.reached += attempts
                .iter()
                .zip(&outcomes)
                .filter(|(attempt, outcome)| self.is_stranger(attempt.from) && outcome.reached())
                .count();
            let reached = not_denied(machines, attempts, &outcomes);
            let counted = self.counted_since(std::mem::take(&mut before))?;
            verdicts.push(judge_denied(denied.what, machines, attempts, reached, &counted));
            before = counted.into_iter().map(|counted| counted.after).collect();
        }
        let (verdict, strangers) = self.datagrams(before).await?;
        verdicts.push(verdict);
        outsider.tried += strangers.tried;
        outsider.reached += strangers.reached;
        Ok((verdicts, outsider))
    }

    async fn datagrams(&self, before: Vec<Counters>) -> Result<(DeniedVerdict, Outsider)> {
        let attempts = &self.plan.datagrams;
        let what = "UDP, from everyone";
        self.progress.say(&format!("trying {} times: {what}", attempts.len()));
        self.site.take_heard();
        probe::send_all(self.site, self.machines, attempts).await?;
        let heard = self.site.take_heard();
        let from_stranger = |text: &&String| {
            let strangers = self.machines.iter().filter(|machine| machine.role == Role::Stranger);
            strangers.into_iter().any(|stranger| text.starts_with(stranger.name))
        };
        let outsider = Outsider {
            tried: self.by_strangers(attempts).count(),
            reached: heard.iter().filter(from_stranger).count(),
        };
        let counted = self.counted_since(before)?;
        Ok((judge_denied(what, self.machines, attempts, heard, &counted), outsider))
    }

    async fn connect(&self, attempts: &[Attempt], pace: Pace) -> Result<Vec<Outcome>> {
        probe::connect_all(self.site, self.machines, attempts, pace, self.progress).await
    }

    fn is_stranger(&self, machine: usize) -> bool {
        self.machines[machine].role == Role::Stranger
    }

    fn by_strangers<'a>(&'a self, attempts: &'a [Attempt]) -> impl Iterator<Item = &'a Attempt> {
        attempts.iter().filter(|attempt| self.is_stranger(attempt.from))
    }

    fn read_counters(&self) -> Result<Vec<Counters>> {
        self.guarded.iter().map(|&machine| (self.counters)(machine)).collect()
    }

    fn counted_since(&self, before: Vec<Counters>) -> Result<Vec<Counted>> {
        let pairs = self.guarded.iter().zip(before);
        pairs
            .map(|(&machine, before)| Ok(Counted { machine, before, after: (self.counters)(machine)? }))
            .collect()
    }
}
