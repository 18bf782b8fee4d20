//! What holds alongside a policy while packets are judged: panic, grace, overrides; or no policy at all.

use pomguard_common::{
    control::{Control, Override, Timed, generic, word},
    limits,
};

/// What is to hold from now on.
#[derive(Clone, Debug, Default)]
pub struct ControlState {
    /// A kind of panic, for so many seconds.
    pub panic: Option<(u8, u32)>,
    /// Grace, for so many seconds.
    pub grace: Option<u32>,
    /// Overrides alongside those of the policy's own failsafe rows, each for so many seconds.
    pub overrides: Vec<(Override, u32)>,
    /// There is no policy.
    pub no_policy: bool,
    /// The interface of the kernel's test runs is in generic mode.
    pub generic: bool,
}

impl ControlState {
    /// The words of the control line but the first, and the lines of the table. `own` are the overrides of
    /// the policy, `now` and `per_1000s` the clock.
    pub(crate) fn laid_out(
        &self,
        own: Vec<Override>,
        now: u32,
        per_1000s: u32,
    ) -> ([u64; Control::WORDS], Vec<Override>) {
        let after = |seconds: u32| {
            let ticks = u64::from(seconds) * u64::from(per_1000s) / 1_000;
            now.wrapping_add(ticks as u32).max(1)
        };
        let mut lines = own;
        lines.extend(
            self.overrides.iter().map(|(line, seconds)| Override { expires: after(*seconds), ..*line }),
        );
        let mut words = [0; Control::WORDS];
        words[word::PANIC] = self.panic.map_or(0, |(kind, seconds)| Timed::until(kind, after(seconds)).0);
        words[word::GRACE] = self.grace.map_or(0, |seconds| Timed::until(1, after(seconds)).0);
        words[word::OVERRIDES] = lines.len() as u64;
        words[word::PORT_BLOOM] = lines.iter().fold(0, |port_bloom, line| port_bloom | line.port_bloom());
        words[word::GENERIC + 3] = if self.generic { generic(limits::LOOPBACK) } else { 0 };
        lines.resize(limits::OVERRIDES, Override::FREE);
        (words, lines)
    }
}
