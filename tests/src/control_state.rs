//! State alongside the policy while packets are judged: suspension, grace period, overrides, or no policy at all.

use pomguard_common::{
    control::{Control, Override, Timed, generic, word},
    limits,
};

/// The state to put in force.
#[derive(Clone, Debug, Default)]
pub struct ControlState {
    /// The kind of suspension and the duration in seconds.
    pub suspension: Option<(u8, u32)>,
    /// The duration of the grace period in seconds.
    pub grace: Option<u32>,
    /// The duration in seconds for which the image is up to date about who holds floating addresses.
    pub holders: Option<u32>,
    /// Overrides in addition to the policy's own failsafe rows, each with a duration in seconds.
    pub overrides: Vec<(Override, u32)>,
    /// True if there is no policy.
    pub no_policy: bool,
    /// True if the interface of the kernel's test runs is in generic mode.
    pub generic: bool,
}

impl ControlState {
    /// Returns the words of the control line except the first, and the lines of the table of overrides. `own`
    /// holds the overrides of the policy; `now` and `per_1000s` are the clock.
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
        words[word::SUSPENSION] =
            self.suspension.map_or(0, |(kind, seconds)| Timed::until(kind, after(seconds)).0);
        words[word::GRACE] = self.grace.map_or(0, |seconds| Timed::until(1, after(seconds)).0);
        words[word::HOLDERS] = self.holders.map_or(0, |seconds| Timed::until(1, after(seconds)).0);
        words[word::OVERRIDES] = lines.len() as u64;
        words[word::PORT_BLOOM] = lines.iter().fold(0, |port_bloom, line| port_bloom | line.port_bloom());
        words[word::GENERIC + 3] = if self.generic { generic(limits::LOOPBACK) } else { 0 };
        lines.resize(limits::OVERRIDES, Override::FREE);
        (words, lines)
    }
}
