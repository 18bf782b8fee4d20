//! Every key of the two files that an operator writes, with type, default and an example: the source of
//! docs/site-file.md, docs/settings-file.md and the manual pages of section 5. A test compares the tables with the
//! keys that the readers ask for.

use std::fmt::Write as _;

/// A key of a file.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The table, as the file writes it; empty at the top of the file.
    pub table: &'static str,
    /// The name of the key.
    pub name: &'static str,
    /// The form of the value in words.
    pub form: &'static str,
    /// The value that holds without the key; empty if the key is required.
    pub default: &'static str,
    /// A value, as the file writes it.
    pub example: &'static str,
    /// The meaning, in sentences.
    pub about: &'static str,
}

/// A file that an operator writes.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// The name of the file.
    pub name: &'static str,
    /// The place of the file on a server.
    pub path: &'static str,
    /// One line about the file.
    pub title: &'static str,
    /// Sentences about the file as a whole.
    pub about: &'static str,
    /// The tables with a sentence each, in the order of the document.
    pub tables: &'static [(&'static str, &'static str)],
    /// The keys.
    pub keys: &'static [Key],
}

macro_rules! keys {
    ($($table:literal { $($name:literal $form:literal $default:literal $example:literal $about:literal;)+ })+) => {
        &[$($(Key {
            table: $table,
            name: $name,
            form: $form,
            default: $default,
            example: $example,
            about: $about,
        },)+)+]
    };
}

/// The site file.
pub const SITE: File = File {
    name: "site.toml",
    path: "/etc/pomguard/site.toml",
    title: "the addresses of all machines of a site, and the systems that they run",
    about: "Every server of the site has the same file. The names of the systems are those of the matrix: \
            `pomguard matrix list` shows them. `pomguard check` shows the meaning of the file for one server. An \
            unknown key is an error, with file and line.",
    tables: &[
        ("", "The top of the file."),
        ("[[host]]", "A server that runs pomguard."),
        ("[[floating]]", "Addresses that one of several servers holds, as keepalived moves them."),
        ("[[peer]]", "Machines that pomguard does not run on."),
        ("[[row]]", "A change to a row of the matrix."),
        ("[[allow]]", "A row of the site itself."),
        ("[end]", "The last line of the file, without keys, if `end_marker` is true."),
    ],
    keys: keys! {
        "" {
            "matrix" "text" "" "\"pom-4.0\""
                "The port matrix: a shipped one by name, or a path relative to this file.";
            "zones" "number, 1 to 65535" "" "3"
                "The number of zones. Rows printed as \"N plus number of zones\" have this many ports. A matrix without such rows needs no number.";
            "end_marker" "true or false" "false" "true"
                "If true, the last line of the file must be `[end]`: a copy that was cut short is refused.";
        }
        "[[host]]" {
            "name" "plain name" "" "\"pom1\""
                "The name of the server, for `from`, `to` and `hosts`.";
            "addresses" "list of addresses, or of prefixes (at least /16 or /48)" "" "[\"10.20.0.11\"]"
                "The addresses of the server. A prefix means each address in it that the file gives to no other machine.";
            "systems" "list of systems" "" "[\"Agent Manager\"]"
                "The systems that the server runs.";
        }
        "[[floating]]" {
            "addresses" "list of addresses" "" "[\"10.20.0.100\"]"
                "The addresses.";
            "hosts" "list of names" "" "[\"pom1\"]"
                "The servers that may hold the addresses.";
        }
        "[[peer]]" {
            "name" "plain name" "none" "\"agents\""
                "The name of the entry, for `from` and `to`. An entry without a name needs `systems`.";
            "systems" "list of systems" "[], with a name" "[\"WFO\"]"
                "The systems that the machines run.";
            "addresses" "list of addresses, prefixes and ranges" "" "[\"10.50.0.0/16\"]"
                "The addresses of the machines.";
            "anywhere" "true or false" "false" "true"
                "If true, a prefix of length 0, which means every address, is accepted.";
        }
        "[[row]]" {
            "id" "row id" "" "\"pom-4.0/16\""
                "The row.";
            "ports" "text: ports and ranges, separated by commas" "as printed" "\"17999\""
                "Other ports. Only ports marked (C) in print may move, unless `force` is true.";
            "enabled" "true or false" "as printed" "false"
                "If false, the row is off. Only optional rows may be off, unless `force` is true.";
            "mode" "\"enforce\" or \"audit\"" "\"enforce\"" "\"audit\""
                "In audit, packets to the ports of the row that no row allows are counted, and pass.";
            "force" "true or false" "false" "true"
                "If true, the row may be changed although the print fixes it.";
        }
        "[[allow]]" {
            "name" "plain name" "" "\"ssh-ops\""
                "The name of the row. The id of the row is `site/` and the name.";
            "from" "list of addresses, prefixes, ranges, systems, hosts, peers, or \"every-host\"" "" "[\"10.9.0.0/24\"]"
                "The side that opens connections.";
            "to" "the same as `from`" "" "[\"every-host\"]"
                "The side that accepts connections.";
            "protocol" "\"tcp\", \"udp\", both in a list, \"icmp\", \"icmpv6\", or a number" "" "\"tcp\""
                "The protocol. A row for ICMP allows echo requests and their replies.";
            "ports" "text: ports and ranges, separated by commas" "" "\"22\""
                "The ports of the accepting side. Protocols without ports have no such key.";
            "source_ports" "text: one port or range" "any port" "\"1024-65535\""
                "The client ports.";
            "failsafe" "true or false" "false" "true"
                "If true, the row stands before all other rows and holds in lockdown and without a policy: your way in.";
            "mode" "\"enforce\" or \"audit\"" "\"enforce\"" "\"audit\""
                "As in `[[row]]`. A failsafe row cannot be in audit.";
            "anywhere" "true or false" "false" "true"
                "If true, a prefix of length 0, which means every address, is accepted in `from` and `to`.";
            "purpose" "text" "\"The site's own row.\"" "\"Operators log in.\""
                "One sentence for `explain` and `check`.";
        }
    },
};

/// The settings of a server.
pub const SETTINGS: File = File {
    name: "pomguard.toml",
    path: "/etc/pomguard/pomguard.toml",
    title: "settings of pomguard on this server",
    about: "The rules are in the site file; this file says how this server enforces them. It must belong to root. An \
            unknown key is an error, with file and line. `pomguard plan` shows the effect of a change, `pomguard \
            apply` puts it in force.",
    tables: &[
        ("", "The top of the file."),
        ("[enforcement]", "The modes of the two directions."),
        ("[attach]", "The attachment to the interfaces."),
        ("[metrics]", "The metrics page."),
        ("[drops]", "The history of denied peers."),
        (
            "[flows]",
            "Times after which a silent flow is forgotten. A flow is a connection that this server opened, or a UDP or ICMP exchange that it began.",
        ),
        ("[packets]", "Packet classes that no row of a matrix can name."),
        ("[packets.rates]", "Inbound packets per second, for each receiving processor."),
        ("[paths]", "Folders."),
        ("[control]", "The control socket."),
        ("[files]", "The owner of the site and matrix files."),
        ("[[row]]", "The mode of one row on this server, which takes precedence over the site file."),
    ],
    keys: keys! {
        "" {
            "site" "path" "" "\"site.toml\""
                "The site file, relative to this file.";
            "host" "name" "found by the addresses" "\"pom1\""
                "The name of this server in the site file.";
            "interfaces" "list of names" "" "[\"eth0\"]"
                "The interfaces to enforce on, by the names that `ip link` shows first.";
            "own_addresses" "\"listed\" or \"machine\"" "\"listed\"" "\"machine\""
                "The addresses that count as this server's own: those of the site file, or also those of the interfaces that the site file gives to no machine.";
        }
        "[enforcement]" {
            "inbound" "\"audit\" or \"enforce\"" "\"audit\"" "\"enforce\""
                "Audit: packets that enforce would drop pass and are counted.";
            "outbound" "\"track\", \"audit\" or \"enforce\"" "\"track\"" "\"audit\""
                "Track: every packet may leave, rows are counted.";
            "grace" "text: seconds or minutes up to an hour, or \"off\"" "\"60s\"" "\"5m\""
                "The time after a first attachment in which TCP packets of unknown flows pass.";
        }
        "[attach]" {
            "mode" "\"auto\", \"native\" or \"generic\"" "\"auto\"" "\"native\""
                "Auto: native XDP if the driver supports it, else generic.";
            "tc" "\"auto\" or \"clsact\"" "\"auto\"" "\"clsact\""
                "Auto: TCX if the kernel has it, else a clsact filter.";
            "require_native" "true or false" "false" "true"
                "If true, generic mode counts as a failure.";
            "on_attach_failure" "\"stop\" or \"continue\"" "\"stop\"" "\"continue\""
                "Stop: the daemon exits. Continue: the other interfaces are enforced.";
            "on_load_failure" "\"closed\" or \"open\"" "closed if the inbound mode confirmed last is enforce, else open" "\"closed\""
                "If the kernel refuses the programs at a start and nothing is attached: closed passes only failsafe rows, neighbours and leases.";
        }
        "[metrics]" {
            "listen" "text: an address with a port, or \"off\"" "\"off\"" "\"127.0.0.1:9843\""
                "The address at which the daemon serves the page.";
        }
        "[drops]" {
            "days" "number, 1 to 90" "7" "14"
                "Days that the history on disk keeps.";
            "megabytes" "number, 1 to 1024" "32" "64"
                "The largest size on disk. The oldest hours are deleted first.";
            "journal_known" "number, 10 to 86400" "60" "300"
                "Seconds between two journal lines about one port of one known system.";
            "journal_strangers" "number, 0 to 1000" "10" "0"
                "Journal lines per minute about all strangers together; 0 means none.";
        }
        "[flows]" {
            "established" "text: a time from \"1h\" to \"30d\"" "\"5d\"" "\"36h\""
                "TCP, established or half-closed. A connection whose socket is gone is forgotten within minutes.";
            "opening" "text: a time from \"30s\" to \"10m\"" "\"2m\"" "\"1m\""
                "TCP without an answer.";
            "closed" "text: a time from \"10s\" to \"10m\"" "\"4m\"" "\"1m\""
                "TCP after both ends have closed.";
            "udp" "text: a time from \"30s\" to \"1h\"" "\"5m\"" "\"10m\""
                "UDP with an answer.";
            "udp_unanswered" "text: a time from \"5s\" to \"5m\"" "\"30s\"" "\"10s\""
                "UDP without an answer.";
            "icmp" "text: a time from \"5s\" to \"5m\"" "\"1m\"" "\"30s\""
                "ICMP echo.";
        }
        "[packets]" {
            "vrrp" "true or false" "true" "false"
                "VRRP heartbeats pass.";
            "link_control" "true or false" "true" "false"
                "LLDP, LACP, spanning tree and EAPOL pass.";
            "group_membership" "true or false" "true" "false"
                "IGMP and MLD pass.";
            "dhcp" "true or false" "true" "false"
                "Address leases pass.";
            "echo_v6" "true or false" "true" "false"
                "ICMPv6 echo requests pass without a row.";
            "redirects" "true or false" "false" "true"
                "ICMP redirects pass.";
            "vlans" "list of numbers, 1 to 4094" "[]" "[20]"
                "VLAN ids whose frames are judged like untagged frames. A guarded VLAN device on a guarded card adds its id.";
        }
        "[packets.rates]" {
            "neighbours" "number, 4 to 100000000" "10000" "20000"
                "ARP and IPv6 neighbour discovery.";
            "echo_v6" "number, 4 to 100000000" "1000" "100"
                "ICMPv6 echo requests without a row.";
            "icmp_errors" "number, 4 to 100000000" "1000" "100"
                "ICMP errors about flows, except errors that report the MTU of a path.";
            "path_mtu" "number, 4 to 100000000" "1000" "100"
                "ICMP errors that report the MTU of a path.";
        }
        "[paths]" {
            "pins" "absolute path" "\"/sys/fs/bpf/pomguard\"" "\"/sys/fs/bpf/pomguard\""
                "Pinned maps, programs and links.";
            "state" "absolute path" "\"/var/lib/pomguard\"" "\"/var/lib/pomguard\""
                "Files that survive a reboot: history, the confirmed policy, drops, counts.";
            "runtime" "absolute path" "\"/run/pomguard\"" "\"/run/pomguard\""
                "Files that do not survive a reboot: the control socket, locks.";
        }
        "[control]" {
            "group" "name of a group" "\"pomguard\"" "\"netops\""
                "Members may query the daemon. Only root may change anything.";
        }
        "[files]" {
            "owner" "\"user\", \"user:group\" or \":group\"" "root alone" "\"netops\""
                "Another owner that the site and matrix files may have.";
        }
        "[[row]]" {
            "id" "row id" "" "\"pom-4.0/16\""
                "The row.";
            "mode" "\"audit\" or \"enforce\"" "" "\"audit\""
                "The mode of the row on this server.";
        }
    },
};

impl File {
    fn keys_of(&self, table: &str) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(move |key| key.table == table)
    }

    /// Returns the document about the file.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "# {}: {}\n\n<!-- `cargo xtask docs` writes this page from pomguard/src/input/keys.rs. -->\n\nPlace: \
             `{}`. {}\n\nA key without a default is required. `man 5 {}` shows the same.\n",
            self.name, self.title, self.path, self.about, self.name
        );
        for (table, about) in self.tables {
            let title = if table.is_empty() { "Top of the file".to_owned() } else { format!("`{table}`") };
            // Writing to a String cannot fail.
            let _ = write!(text, "\n## {title}\n\n{about}\n");
            let mut keys = self.keys_of(table).peekable();
            if keys.peek().is_some() {
                text.push_str(
                    "\n| key | value | default | example | meaning |\n| --- | --- | --- | --- | --- |\n",
                );
            }
            for key in keys {
                let default = if key.default.is_empty() { "required" } else { key.default };
                let _ = writeln!(
                    text,
                    "| `{}` | {} | {default} | `{} = {}` | {} |",
                    key.name, key.form, key.name, key.example, key.about
                );
            }
        }
        text
    }

    /// Returns the manual page about the file, in section 5.
    #[must_use]
    pub fn page(&self, version: &str) -> String {
        let mut page = format!(
            ".TH {} 5 \"\" \"pomguard {version}\" \"pomguard\"\n.SH NAME\n{} \\- {}\n.SH SYNOPSIS\n.I {}\n.SH \
             DESCRIPTION\n{}\nThe form is TOML. A key without a default is required.\n",
            escaped(self.name),
            escaped(self.name),
            escaped(self.title),
            escaped(self.path),
            escaped(&self.about.replace('`', ""))
        );
        for (table, about) in self.tables {
            let title = if table.is_empty() { "TOP OF THE FILE" } else { table };
            let _ = write!(page, ".SH \"{}\"\n{}\n", escaped(title), escaped(about));
            for key in self.keys_of(table) {
                let default = match key.default {
                    "" => "Required.".to_owned(),
                    default => format!("Default: {default}."),
                };
                let _ = write!(
                    page,
                    ".TP\n.B {} = {}\n{}\nValue: {}. {}\n",
                    escaped(key.name),
                    escaped(key.example),
                    escaped(&key.about.replace('`', "")),
                    escaped(&key.form.replace('`', "")),
                    escaped(&default)
                );
            }
        }
        let _ = write!(
            page,
            ".SH FILES\n.I {}\n.SH SEE ALSO\n.BR pomguard (8),\n.BR pomguard\\-check (8)\n",
            escaped(self.path)
        );
        page
    }
}

/// Escapes a text for roff: backslashes, dashes, and a dot or quote at the beginning of a line.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::input::{Draft, Settings, walk};

    /// Returns a file with every key, one table of each kind.
    fn written(file: &File) -> String {
        let mut text = String::new();
        for (table, _) in file.tables {
            let keys: Vec<String> =
                file.keys_of(table).map(|key| format!("{} = {}", key.name, example(key))).collect();
            let _ = write!(text, "{table}\n{}\n", keys.join("\n"));
        }
        text
    }

    fn example(key: &Key) -> &'static str {
        // A failsafe row cannot be in audit, which the example of another key says.
        if (key.table, key.name) == ("[[allow]]", "failsafe") { "false" } else { key.example }
    }

    /// Returns the keys that the reader of a file asks for.
    fn asked(file: &File, read: impl Fn(&str)) -> BTreeSet<(String, String)> {
        walk::ASKED.take();
        read(&written(file));
        let asked = walk::ASKED.take().into_iter().filter(|(name, ..)| name == file.name);
        asked.map(|(_, table, key)| (table.to_owned(), key.to_owned())).collect()
    }

    fn documented(file: &File) -> BTreeSet<(String, String)> {
        // Tables are keys of the table that they stand in.
        let tables = file.tables.iter().filter(|(table, _)| !table.is_empty()).map(|(table, _)| {
            let name = table.trim_matches(['[', ']']);
            match name.split_once('.') {
                Some((outer, inner)) => (format!("[{outer}]"), inner.to_owned()),
                None => ("the file".to_owned(), name.to_owned()),
            }
        });
        let keys = file.keys.iter().map(|key| {
            let table = if key.table.is_empty() { "the file" } else { key.table };
            (table.to_owned(), key.name.to_owned())
        });
        keys.chain(tables).collect()
    }

    fn site(text: &str) -> Result<Draft, crate::input::Diagnostics> {
        Draft::from_texts(("pomguard.toml", "site = \"s\"\ninterfaces = [\"eth0\"]\n"), ("site.toml", text))
    }

    #[test]
    fn documented_keys_are_the_keys_that_the_readers_ask_for() {
        let found = asked(&SETTINGS, |text| {
            Settings::parse("pomguard.toml", text).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
        });
        assert_eq!(found, documented(&SETTINGS));
        let found = asked(&SITE, |text| {
            site(text).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
        });
        assert_eq!(found, documented(&SITE));
    }

    #[test]
    fn documented_default_of_each_setting_is_the_one_of_the_code() {
        let plain = "site = \"site.toml\"\ninterfaces = [\"eth0\"]\n";
        let source = |settings: Settings| Settings {
            source: crate::input::sources::Source { name: String::new(), text: String::new() },
            ..settings
        };
        let defaults = source(Settings::parse("x", plain).unwrap());
        let literal = |key: &&Key| {
            key.default.starts_with(['"', '['])
                || key.default.parse::<u32>().is_ok()
                || ["true", "false"].contains(&key.default)
        };
        let mut checked = 0;
        for key in SETTINGS.keys.iter().filter(literal) {
            let (top, table) = if key.table.is_empty() {
                (format!("{} = {}\n", key.name, key.default), String::new())
            } else {
                (String::new(), format!("{}\n{} = {}\n", key.table, key.name, key.default))
            };
            let text = format!("{top}{plain}{table}");
            let settings =
                source(Settings::parse("x", &text).unwrap_or_else(|faults| panic!("{faults}\n{text}")));
            let same = Settings { interfaces: defaults.interfaces.clone(), ..settings };
            assert_eq!(same, defaults, "{} {}", key.table, key.name);
            checked += 1;
        }
        assert!(checked >= 25, "{checked}");
    }

    #[test]
    fn pages_name_every_key_with_a_sentence() {
        for file in [&SITE, &SETTINGS] {
            let page = file.page("1.0");
            for key in file.keys {
                assert!(page.contains(&format!(".B {} =", escaped(key.name))), "{}", key.name);
                assert!(!key.about.is_empty() && key.about.ends_with('.'), "{}", key.name);
            }
        }
    }
}
