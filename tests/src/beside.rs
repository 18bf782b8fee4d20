//! What holds beside a policy while packets are judged: panic, grace, pinholes; or no policy at all.

use pomguard_common::{
    control::{Control, Pinhole, Timed, generic, word},
    limits,
};

/// What is to hold from now on.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// A kind of panic, for so many seconds.
    pub panic: Option<(u8, u32)>,
    /// Grace, for so many seconds.
    pub grace: Option<u32>,
    /// Pinholes beside those of the policy's own failsafe rows, each for so many seconds.
    pub pinholes: Vec<(Pinhole, u32)>,
    /// There is no policy.
    pub no_policy: bool,
    /// The interface of the kernel's test runs is in generic mode.
    pub generic: bool,
}

impl Beside {
    /// The words of the control line but the first, and the lines of the table. `own` are the pinholes of
    /// the policy, `now` and `per_1000s` the clock.
    pub(crate) fn laid_out(
        &self,
        own: Vec<Pinhole>,
        now: u32,
        per_1000s: u32,
    ) -> ([u64; Control::WORDS], Vec<Pinhole>) {
        let after = |seconds: u32| {
            let ticks = u64::from(seconds) * u64::from(per_1000s) / 1_000;
            now.wrapping_add(ticks as u32).max(1)
        };
        let mut lines = own;
        lines.extend(
            self.pinholes.iter().map(|(line, seconds)| Pinhole { expires: after(*seconds), ..*line }),
        );
        let mut words = [0; Control::WORDS];
        words[word::PANIC] = self.panic.map_or(0, |(kind, seconds)| Timed::until(kind, after(seconds)).0);
        words[word::GRACE] = self.grace.map_or(0, |seconds| Timed::until(1, after(seconds)).0);
        words[word::PINHOLES] = lines.len() as u64;
        words[word::SHADE] = lines.iter().fold(0, |shade, line| shade | line.shade());
        words[word::GENERIC + 3] = if self.generic { generic(limits::LOOPBACK) } else { 0 };
        lines.resize(limits::PINHOLES, Pinhole::FREE);
        (words, lines)
    }
}
