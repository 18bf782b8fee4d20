//! Writes docs/packets.md.

use std::fmt::Write as _;

use pomguard::policy::Direction;

use super::{BESIDES, Class, Outcome, Section, default_of, sections};

const HEAD: &str = "\
# Packets: what becomes of which

Every packet ends under one reason. This table says which, for every class of packet. What each reason means stands in
[metrics.md](metrics.md); the order of the questions in [policy.md](policy.md). The frame, the header and the addresses
come before the protocol. A *service of the link* is DHCP, neighbour discovery, group membership or VRRP.

Drops are drops in enforce. In inbound audit, and in outbound track and audit, they are counted under the same reason
with verdict `audit`, and pass. What a cell says of *track* holds where the outbound mode is track. *k* marks a reason
that has a second one, ending in `-known`, for addresses that the site file names.

A setting is a key of `[packets]` in `pomguard.toml`; its default is in brackets.

This file is written from a table in the tests, which tries each line on the loaded programs: `cargo xtask docs`.
";

/// Returns the text of the document.
#[must_use]
pub fn document() -> String {
    let mut text = HEAD.to_owned();
    for section in sections() {
        let _ = section.write(&mut text);
    }
    text.push_str(
        "\n## Reasons besides\n\nWhat these need is more than one packet.\n\n| reason | when |\n| --- | --- |\n",
    );
    for (reason, when) in BESIDES {
        let _ = writeln!(text, "| `{}` | {when} |", reason.name());
    }
    text
}

impl Section {
    fn write(&self, text: &mut String) -> std::fmt::Result {
        let [before, after] = self.notes;
        writeln!(text, "\n## {}\n", self.title)?;
        if !before.is_empty() {
            writeln!(text, "{before}\n")?;
        }
        writeln!(text, "| packet | inbound | outbound | setting |\n| --- | --- | --- | --- |")?;
        for class in &self.classes {
            let [inbound, outbound] = Direction::ALL.map(|direction| class.cell(direction));
            let outbound = if outbound == inbound { "likewise" } else { &outbound };
            let row = format!("| {} | {inbound} | {outbound} | {} |", class.packet, class.settings());
            writeln!(text, "{}", row.replace("|  |", "| |").replace("|  |", "| |"))?;
        }
        if !after.is_empty() {
            writeln!(text, "\n{after}")?;
        }
        Ok(())
    }
}

impl Class {
    fn cell(&self, direction: Direction) -> String {
        if let Some(reads) = self.reads[direction.index()] {
            return reads.to_owned();
        }
        let mut message: Vec<String> = Vec::new();
        for outcome in self.outcomes.iter().filter(|outcome| outcome.direction == direction) {
            let cell = outcome.message();
            // Left out: the second one of two reasons that *k* marks, and further examples of one sentence.
            let further = outcome.when.is_empty() && message.iter().any(|it| it.starts_with(&cell));
            if !outcome.reason.name().ends_with("-known") && !further && !message.contains(&cell) {
                message.push(cell);
            }
        }
        message.join("; ")
    }

    fn settings(&self) -> String {
        let mut keys: Vec<&str> = self.outcomes.iter().filter_map(|outcome| outcome.set?.key).collect();
        keys.dedup();
        keys.sort_unstable();
        keys.dedup();
        let message = keys.iter().map(|key| format!("`{key}` [{}]", default_of(key)));
        message.collect::<Vec<_>>().join(", ")
    }
}

impl Outcome {
    fn message(&self) -> String {
        let set = self.set.map_or("", |set| set.message);
        let words = [self.reason.verdict().name(), &format!("`{}`", self.reason.name()), self.when, set];
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }
}
