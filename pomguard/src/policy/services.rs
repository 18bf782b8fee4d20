//! Names of services for ports: a small table, and the lines of `/etc/services`.

use pomguard_common::protocol::{TCP, UDP};

/// The services that an operator names at a site of this kind. `/etc/services` may be missing on a small
/// system, and does not have all of them.
const KNOWN: &[(&str, u16, &[u8])] = &[
    ("ssh", 22, &[TCP]),
    ("smtp", 25, &[TCP]),
    ("dns", 53, &[TCP, UDP]),
    ("domain", 53, &[TCP, UDP]),
    ("http", 80, &[TCP]),
    ("ntp", 123, &[UDP]),
    ("snmp", 161, &[UDP]),
    ("snmptrap", 162, &[UDP]),
    ("ldap", 389, &[TCP]),
    ("https", 443, &[TCP]),
    ("syslog", 514, &[UDP]),
    ("ldaps", 636, &[TCP]),
    ("ms-sql-s", 1_433, &[TCP]),
    ("oracle", 1_521, &[TCP]),
    ("rdp", 3_389, &[TCP]),
    ("sip", 5_060, &[TCP, UDP]),
    ("sips", 5_061, &[TCP]),
    ("postgresql", 5_432, &[TCP]),
];

/// Names of services, with ports and protocols.
#[derive(Clone, Debug, Default)]
pub struct Services {
    more: Vec<(String, u16, u8)>,
}

impl Services {
    /// Reads the lines of `/etc/services`. A line that is no service is left out.
    #[must_use]
    pub fn new(lines: &str) -> Self {
        let mut more = Vec::new();
        for line in lines.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let (Some(name), Some(port)) = (words.next(), words.next()) else { continue };
            let Some((port, protocol)) = port.split_once('/') else { continue };
            let protocol = match protocol {
                "tcp" => TCP,
                "udp" => UDP,
                _ => continue,
            };
            let Ok(port) = port.parse() else { continue };
            more.extend([name].into_iter().chain(words).map(|name| (name.to_owned(), port, protocol)));
        }
        Self { more }
    }

    /// Returns ports and protocols of a name, in any case. The table comes first: `/etc/services` gives some
    /// names a protocol that nobody uses.
    #[must_use]
    pub fn named(&self, name: &str) -> Vec<(u16, u8)> {
        let known = KNOWN.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name));
        if let Some((_, port, protocols)) = known {
            return protocols.iter().map(|protocol| (*port, *protocol)).collect();
        }
        let same = self.more.iter().filter(|(known, ..)| known.eq_ignore_ascii_case(name));
        same.map(|(_, port, protocol)| (*port, *protocol)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_table_and_from_lines_of_etc_services() {
        let services = Services::new(
            "# a comment\nhttps\t443/tcp\nhttps 443/udp # QUIC\nhttps 443/sctp\nxmpp-client 5222/tcp jabber-client\n\
             broken\nbroken2 x/tcp\nbroken3 99999/tcp\n",
        );
        assert_eq!(services.named("HTTPS"), [(443, TCP)], "the table comes first");
        assert_eq!(services.named("Jabber-Client"), [(5_222, TCP)], "an alias");
        assert_eq!(Services::default().named("dns"), [(53, TCP), (53, UDP)]);
        for name in ["broken", "broken2", "broken3", "#", ""] {
            assert_eq!(services.named(name), [], "{name}");
        }
    }
}
