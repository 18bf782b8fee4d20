use super::*;
use crate::policy::{Mode, Row, resolve};

const SITE: &str = "matrix = \"pom-4.0\"\nzones = 3\n\
    [[host]]\nname = \"pom1\"\naddresses = [\"10.20.0.11\", \"fd00:20::11\"]\nsystems = [\"Campaign Manager\", \"Agent Manager\"]\n\
    [[host]]\nname = \"pom2\"\naddresses = [\"10.20.0.12\"]\nsystems = [\"Campaign Manager\", \"Agent Manager\"]\n\
    [[floating]]\naddresses = [\"10.20.0.13\"]\nhosts = [\"pom1\", \"pom2\"]\n\
    [[peer]]\nname = \"agents\"\nsystems = [\"Agent Desktop\"]\naddresses = [\"10.50.0.0/16\", \"10.51.4.10-10.51.4.12\"]\n\
    [[peer]]\nsystems = [\"WFO\"]\naddresses = [\"10.60.0.1\"]\n";

fn site() -> (Draft, Policy) {
    let settings = "site = \"site.toml\"\ninterfaces = [\"eth0\"]\nhost = \"pom1\"\n[enforcement]\ninbound = \"enforce\"\n";
    let draft = Draft::from_texts(("pomguard.toml", settings), ("site.toml", SITE));
    let draft = draft.unwrap_or_else(|faults| panic!("{faults}"));
    let policy = resolve(&draft, &[]).unwrap_or_else(|faults| panic!("{faults}"));
    (draft, policy)
}

fn read(draft: &Draft, words: &[&str]) -> Result<Question, Fault> {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    Question::read(draft, &Services::new("jabber 5222/tcp\n"), &words)
}

/// Returns each distinct answer: reason, sources, destinations.
fn answers(words: &[&str]) -> Vec<String> {
    let (draft, policy) = site();
    let question = read(&draft, words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
    let groups = question.answers(&policy, &Alongside::default()).unwrap();
    let ranges = |parts: &[Part]| {
        let parts: Vec<String> = parts.iter().map(|(first, last)| format!("{first}-{last}")).collect();
        parts.join(" ")
    };
    groups
        .iter()
        .map(|group| {
            let Opening { destination_port, protocol, .. } = group.opening;
            let (from, to) = (ranges(&group.sources), ranges(&group.destinations));
            format!("{} {from} {to} {destination_port}/{protocol}", group.ruling.reason.name())
        })
        .collect()
}

#[test]
fn one_question_can_be_written_in_many_ways() {
    let (draft, policy) = site();
    let packet = |words: &[&str]| read(&draft, words).unwrap().packet(&policy).unwrap();
    let plain = packet(&["10.60.0.1", "10.20.0.12:443/tcp"]);
    for words in [
        &["10.60.0.1", "to", "10.20.0.12:443/TCP"][..],
        &["10.60.0.1 to 10.20.0.12:443/6"],
        &["10.60.0.1:50000", "TO", "[10.20.0.12]:443/Tcp"],
        &["wfo", "to", "10.20.0.12:https"],
        &["WFO:50000", "10.20.0.12:HTTPS/tcp"],
    ] {
        assert_eq!(packet(words), plain, "{words:?}");
    }
    let v6 = packet(&["fd00:99::1", "[fd00:20::11]:22/tcp"]);
    assert_eq!((v6.direction, v6.destination_port), (Direction::Inbound, 22));
    assert_eq!(packet(&["[fd00:20::11]", "to", "fd00:99::1/icmpv6"]).direction, Direction::Outbound);
    assert_eq!(packet(&["10.9.0.1", "10.20.0.11:jabber"]).destination_port, 5_222);
}

#[test]
fn prefix_and_name_give_one_line_for_each_distinct_answer() {
    assert_eq!(
        answers(&["10.50.0.0/15", "10.20.0.11:9970/tcp"]),
        [
            "row 10.50.0.0-10.50.255.255 10.51.4.10-10.51.4.12 10.20.0.11-10.20.0.11 9970/6",
            "source 10.51.0.0-10.51.4.9 10.51.4.13-10.51.255.255 10.20.0.11-10.20.0.11 9970/6",
        ]
    );
    assert_eq!(
        answers(&["agents", "to", "pom1:9970/tcp"]),
        ["row 10.50.0.0-10.50.255.255 10.51.4.10-10.51.4.12 \
             10.20.0.11-10.20.0.11 10.20.0.13-10.20.0.13 9970/6"],
        "the floating address counts as one of the host's"
    );
    // A system as the port means the ports at which the matrix lets others reach the system.
    let ports = answers(&["agents", "to", "10.20.0.11:agent manager/tcp"]);
    assert!(ports.iter().any(|line| line.starts_with("row ") && line.ends_with(" 9970/6")), "{ports:#?}");
    assert!(
        ports.iter().any(|line| line.starts_with("source-known ") && line.ends_with(" 7999/6")),
        "{ports:#?}"
    );
}

/// Every address of a small prefix, asked one by one, gets the answer of its group.
#[test]
fn groups_hold_each_address_with_its_own_answer() {
    let (draft, mut policy) = site();
    let row = policy.rows.iter().find(|row| row.id.0 == "pom-4.0/15").unwrap().clone();
    let exception = Row { id: crate::policy::RowId("exception/1".to_owned()), ..row };
    policy.outbound = Mode::Enforce;
    let alongside = Alongside { exceptions: vec![exception], ..Alongside::default() };
    for words in [
        ["10.51.4.0/26", "10.20.0.11:9970/tcp"],
        ["10.20.0.0/26", "10.20.0.11:8870/tcp"],
        ["10.20.0.11", "10.20.0.0/26:8870/tcp"],
        ["224.0.0.0/26", "10.20.0.11:53/udp"],
        ["10.20.0.11", "224.0.0.0/26/vrrp"],
    ] {
        let words = words.map(|word| word.replace("vrrp", "112"));
        let question = read(&draft, &[words[0].as_str(), words[1].as_str()]).unwrap();
        let groups = question.answers(&policy, &alongside).unwrap();
        let mut count = 0;
        for group in &groups {
            for &(first, last) in &group.sources {
                for &(to_first, to_last) in &group.destinations {
                    for source in number(first)..=number(last) {
                        for destination in number(to_first)..=number(to_last) {
                            let ends =
                                (numbered(source, first).unwrap(), numbered(destination, first).unwrap());
                            let (port, protocol) = question.services[0];
                            let one = question.opening(&policy, ends, port, protocol);
                            assert_eq!(judge(&policy, &alongside, &one), group.ruling, "{one:?}");
                            count += 1;
                        }
                    }
                }
            }
        }
        assert_eq!(count, 64, "{words:?}: each address is in one group");
    }
}

#[test]
fn wrong_question_is_refused_with_a_remedy() {
    let (draft, _) = site();
    for (words, problem) in [
        (&["10.60.0.1"][..], "destination is missing"),
        (&["a", "b", "c", "d"], "two ends"),
        (&["10.60.0.1", "10.20.0.11:443"], "protocol is missing"),
        (&["10.60.0.1", "10.20.0.11/tcp"], "port is missing"),
        (&["10.60.0.1", "10.20.0.11:443/ipx"], "ipx is no known protocol"),
        (&["10.60.0.1", "10.20.0.11:gopherhole/tcp"], "no service is named gopherhole"),
        (&["10.60.0.1", "fd00::1:443/tcp"], "port is missing"),
        (&["10.60.0.1", "[fd00::1]:443/tcp"], "one address is IPv4"),
        (&["agent desktp", "pom1:443/tcp"], "neither an address nor a name"),
        (&["10.60.0.1/8", "pom1:443/tcp"], "bits are set"),
        (&["10.60.0.1:99999", "pom1:443/tcp"], "no client port"),
        (&["fd00::1", "fd00::2/44"], "extension header"),
    ] {
        let error = read(&draft, words).expect_err(words[0]).to_string();
        assert!(error.contains(problem) || error.contains("one end is IPv4"), "{words:?}: {error}");
    }
    let error = read(&draft, &["agent desktp", "pom1:443/tcp"]).unwrap_err().to_string();
    assert!(error.contains("write \"Agent Desktop\""), "{error}");
}
