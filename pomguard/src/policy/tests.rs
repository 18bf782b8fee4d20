//! Tests of the whole path from text to policy.

use std::net::IpAddr;

use super::{
    Direction, Mode, Policy, PortRange, Row,
    conflict::{Note, Weight, notes},
    explain::explain,
    oracle::{Opening, judge},
    precedence::Alongside,
    question::Question,
    resolve,
    services::Services,
};
use crate::input::{Diagnostics, Draft};

const SITE: &str = include_str!("../../../config/site.example.toml");
const SETTINGS: &str = include_str!("../../../config/pomguard.toml");

fn draft() -> Draft {
    read(SITE).expect("the example site")
}

/// Returns a site of two servers with every row of the matrix as printed.
pub(crate) fn plain() -> Draft {
    read(&small("")).expect("a small site")
}

fn read(site: &str) -> Result<Draft, Diagnostics> {
    Draft::from_texts(("pomguard.toml", SETTINGS), ("site.toml", site))
}

fn small(tables: &str) -> String {
    format!(
        "matrix = \"pom-4.0\"\nzones = 3\n\
         [[host]]\nname = \"pom1\"\naddresses = [\"10.20.0.11\"]\nsystems = [\"Campaign Manager\", \"Agent Manager\"]\n\
         [[host]]\nname = \"pom2\"\naddresses = [\"10.20.0.12\"]\nsystems = [\"Campaign Manager\", \"Agent Manager\"]\n\
         {tables}"
    )
}

/// Returns the packet that a question is about.
fn question(policy: &Policy, source: &str, destination: &str) -> Opening {
    let words = [source.to_owned(), destination.to_owned()];
    let question = Question::read(&plain(), &Services::default(), &words).expect("a question");
    question.packet(policy).expect("one packet")
}

fn policy(site: &str) -> Policy {
    on_pom1(&read(site).unwrap_or_else(|faults| panic!("{faults}")))
}

fn on_pom1(draft: &Draft) -> Policy {
    resolve(draft, &[IpAddr::from([10, 20, 0, 11])]).unwrap_or_else(|faults| panic!("{faults}"))
}

fn row<'a>(policy: &'a Policy, id: &str, direction: Direction) -> &'a Row {
    policy.rows_in(direction).find(|row| row.id.0 == id).unwrap_or_else(|| panic!("no {direction:?} {id}"))
}

fn prefixes(row: &Row) -> Vec<String> {
    row.peers.iter().map(|peer| peer.prefix.to_string()).collect()
}

fn refused(tables: &str, problem: &str) {
    let faults = read(&small(tables)).expect_err(tables).to_string();
    assert!(faults.contains(problem), "{problem:?} is not in:\n{faults}");
}

fn kinds<'a>(notes: &'a [Note], kind: &str) -> Vec<&'a Note> {
    notes.iter().filter(|note| note.kind == kind).collect()
}

#[test]
fn example_site_places_all_systems_and_resolves_everywhere() {
    let draft = draft();
    for host in &draft.site.hosts {
        let addresses: Vec<IpAddr> = host.addresses.iter().map(|at| at.value.addr()).collect();
        let policy = resolve(&draft, &addresses).expect("a host of the example");
        assert_eq!(policy.host, host.name.value);
        let remarks = notes(&draft, &policy);
        assert!(kinds(&remarks, "unplaced-system").is_empty(), "{remarks:?}");
        assert!(kinds(&remarks, "misplaced-system").is_empty(), "{remarks:?}");
        assert!(kinds(&remarks, "collision").is_empty(), "{remarks:?}");
    }
}

#[test]
fn row_is_inbound_at_its_destination_and_outbound_at_its_source() {
    let policy = policy(&small("[[peer]]\nsystems = [\"Agent Desktop\"]\naddresses = [\"10.50.0.0/16\"]\n"));
    let desktops = row(&policy, "pom-4.0/15", Direction::Inbound);
    assert_eq!(prefixes(desktops), ["10.50.0.0/16"]);
    let ports: Vec<String> = desktops.services.iter().map(|service| service.ports.to_string()).collect();
    assert_eq!(ports, ["9970-9973"], "9970, and 9971 to 9973 for three zones");
    assert_eq!(desktops.client_ports, PortRange { first: 1024, last: 65535 });
    assert!(policy.rows_in(Direction::Outbound).all(|row| row.id.0 != "pom-4.0/15"));
}

#[test]
fn a_host_never_is_its_own_peer() {
    let policy = policy(&small(""));
    for direction in Direction::ALL {
        assert_eq!(prefixes(row(&policy, "pom-4.0/1", direction)), ["10.20.0.12/32"]);
    }
}

#[test]
fn an_address_under_several_names_is_one_peer_under_all_of_them() {
    let policy = policy(&small(
        "[[allow]]\nname = \"ssh\"\nfrom = [\"10.9.0.0/24\", \"10.20.0.12\", \"Agent Manager\", \"pom2\"]\n\
         to = [\"pom1\"]\nports = \"22\"\nprotocol = \"tcp\"\n",
    ));
    let row = row(&policy, "site/ssh", Direction::Inbound);
    let names: Vec<&str> = row.peers.iter().map(|peer| &*peer.name).collect();
    assert_eq!(prefixes(row), ["10.9.0.0/24", "10.20.0.12/32"], "in the order of addresses");
    assert_eq!(names, ["10.9.0.0/24", "10.20.0.12, pom2"], "each name once");
    assert_eq!(row.peers[1].origin.line, row.peers[0].origin.line, "where it was met first");
}

#[test]
fn failsafe_rows_come_first_then_print_order_then_the_sites_own() {
    let rows = "[[allow]]\nname = \"last\"\nfrom = [\"10.9.0.0/24\"]\nto = [\"every-host\"]\nports = \"80\"\n\
                protocol = \"tcp\"\n\
                [[allow]]\nname = \"ssh\"\nfrom = [\"10.9.0.0/24\"]\nto = [\"pom1\"]\nports = \"22\"\n\
                protocol = \"tcp\"\nfailsafe = true\n";
    let policy = policy(&small(rows));
    let ids: Vec<&str> = policy.rows_in(Direction::Inbound).map(|row| row.id.0.as_str()).collect();
    assert_eq!((ids.first(), ids.last()), (Some(&"site/ssh"), Some(&"site/last")));
    let numbers: Vec<u32> = ids
        .iter()
        .filter_map(|id| id.strip_prefix("pom-4.0/"))
        .map(|number| number.parse().expect("a number"))
        .collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
}

#[test]
fn an_override_moves_only_what_print_marks_as_configurable() {
    let site = small("[[row]]\nid = \"pom-4.0/15\"\nports = \"19971+zones\"\n");
    let policy = policy(&site);
    let ports: Vec<String> = row(&policy, "pom-4.0/15", Direction::Inbound)
        .services
        .iter()
        .map(|it| it.ports.to_string())
        .collect();
    assert_eq!(ports, ["9970", "19971-19973"]);
    refused("[[row]]\nid = \"pom-4.0/19\"\nports = \"10020\"\n", "no (C) in print");
    refused("[[row]]\nid = \"pom-4.0/1\"\nenabled = false\n", "is not optional");
    refused("[[row]]\nid = \"pom-4.0/48\"\nenabled = false\n", "\"pom-4.0/47\"");
    let forced = small("[[row]]\nid = \"pom-4.0/1\"\nenabled = false\nforce = true\n");
    assert!(read(&forced).is_ok());
}

#[test]
fn a_switched_off_row_is_in_no_policy_and_is_mentioned() {
    let draft = read(&small("[[row]]\nid = \"pom-4.0/46\"\nenabled = false\n")).expect("an optional row");
    let policy = on_pom1(&draft);
    assert!(policy.rows.iter().all(|row| row.id.0 != "pom-4.0/46"));
    assert_eq!(kinds(&notes(&draft, &policy), "switched-off").len(), 1);
}

#[test]
fn a_system_without_address_grants_nothing_and_is_listed() {
    let draft = read(&small("")).expect("a small site");
    let policy = on_pom1(&draft);
    assert_eq!(row(&policy, "pom-4.0/16", Direction::Inbound).peers, []);
    let remarks = notes(&draft, &policy);
    let about = |kind, row: &str| {
        kinds(&remarks, kind).iter().filter(|it| it.rows.iter().any(|id| id == row)).count()
    };
    assert_eq!(about("unplaced-system", "pom-4.0/16"), 1);
    assert_eq!(about("grants-nothing", "pom-4.0/16"), 0, "it is said once");
    let unplaced = kinds(&remarks, "unplaced-system");
    assert_eq!(
        unplaced.iter().filter(|note| note.message.contains("WFO")).count(),
        1,
        "a line for each system"
    );
}

#[test]
fn collisions_name_both_rows_and_where_they_begin() {
    let site = small("").replace("zones = 3", "zones = 6");
    let draft = read(&site).expect("six zones");
    let remarks = notes(&draft, &on_pom1(&draft));
    let found = kinds(&remarks, "collision");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].rows, ["pom-4.0/4", "pom-4.0/19"]);
    assert!(found[0].message.contains("from 6 zones on"));
}

#[test]
fn our_own_metrics_port_must_not_be_a_matrix_port() {
    let settings = SETTINGS.replace("listen = \"off\"", "listen = \"127.0.0.1:9970\"");
    let draft = Draft::from_texts(("pomguard.toml", &settings), ("site.toml", &small(""))).expect("settings");
    let remarks = notes(&draft, &on_pom1(&draft));
    assert_eq!(kinds(&remarks, "metrics-port")[0].rows, ["pom-4.0/15"]);
}

#[test]
fn repeated_rows_are_named_with_the_row_that_is_counted() {
    let site = small("").replace("\"Campaign Manager\", \"Agent Manager\"", "\"POMCache\"");
    let draft = read(&site).expect("two cache nodes");
    let remarks = notes(&draft, &on_pom1(&draft));
    for number in 41..=45 {
        let id = format!("pom-4.0/{number}");
        let note = kinds(&remarks, "shadowed")[0];
        assert!(note.message.contains(&format!("{id} inbound by pom-4.0/40")), "{note:?}");
        assert!(note.rows.contains(&id), "{note:?}");
    }
    assert_eq!(kinds(&remarks, "shadowed").len(), 1, "one line for each kind");
}

#[test]
fn cf_02_a_narrow_prefix_never_cancels_a_wide_one() {
    let rows = "[[allow]]\nname = \"wide\"\nfrom = [\"10.9.0.0/16\"]\nto = [\"pom1\"]\nports = \"80\"\nprotocol = \"tcp\"\n\
                [[allow]]\nname = \"narrow\"\nfrom = [\"10.9.1.0/24\"]\nto = [\"pom1\"]\nports = \"81\"\nprotocol = \"tcp\"\n";
    let policy = policy(&small(rows));
    let asks = |port| {
        let to = format!("10.20.0.11:{port}/tcp");
        judge(&policy, &question(&policy, "10.9.1.7", &to)).first.map(|id| id.0)
    };
    assert_eq!(asks(80).as_deref(), Some("site/wide"));
    assert_eq!(asks(81).as_deref(), Some("site/narrow"));
    assert_eq!(asks(82), None);
}

#[test]
fn explain_names_the_row_or_what_differs() {
    let peers = "[[peer]]\nsystems = [\"Agent Desktop\"]\naddresses = [\"10.50.0.0/16\"]\n\
                 [[peer]]\nsystems = [\"WFO\"]\naddresses = [\"10.60.0.1\"]\n";
    let mut policy = policy(&small(peers));
    policy.inbound = Mode::Enforce;
    let ask = |from, to| explain(&policy, &Alongside::default(), &question(&policy, from, to));
    let hit = ask("10.50.3.7", "10.20.0.11:9971/tcp");
    let matched = hit.row.expect("row 15");
    assert_eq!((matched.id.0.as_str(), matched.peer.as_str()), ("pom-4.0/15", "Agent Desktop"));
    let miss = ask("10.60.0.1", "10.20.0.11:9971/tcp");
    assert!(!miss.passes);
    assert_eq!(miss.nearest[0].differs, "port 9971 is allowed from Agent Desktop; 10.60.0.1 is WFO");
    let low = ask("10.50.3.7:22", "10.20.0.11:9971/tcp");
    assert_eq!(low.nearest[0].differs, "client ports are 1024-65535, not 22");
    let past = ask("10.60.0.1", "10.2.2.2:9970/tcp");
    assert!(!past.passes && past.row.is_none(), "{past:?}");
    assert!(past.end.expect("a word about the address").contains("gives 10.2.2.2 to nobody"));
    let other = ask("10.60.0.1", "10.20.0.12:9970/tcp");
    assert!(other.end.expect("a word about the address").contains("belongs to pom2"));
    let group = ask("10.20.0.12", "228.1.2.4:47400/udp");
    assert!(!group.passes && group.end.expect("a word about the address").contains("no address of one host"));
    let spoofed = ask("10.20.0.11", "10.20.0.11:9970/tcp");
    assert!(!spoofed.passes && spoofed.end.expect("a word about the address").contains("spoofed"));
}

#[test]
fn opening_is_judged_in_its_own_direction_family_and_protocol() {
    let policy = policy(&small("[[peer]]\nsystems = [\"AES\"]\naddresses = [\"10.70.0.1\"]\n"));
    let mut opening = Opening {
        direction: Direction::Outbound,
        source: IpAddr::from([10, 20, 0, 11]),
        source_port: 40_000,
        destination: IpAddr::from([10, 70, 0, 1]),
        destination_port: 443,
        protocol: 6,
    };
    assert_eq!(judge(&policy, &opening).first.map(|id| id.0).as_deref(), Some("pom-4.0/6"));
    opening.protocol = 17;
    assert_eq!(judge(&policy, &opening).first, None);
    opening.protocol = 6;
    opening.direction = Direction::Inbound;
    assert_eq!(judge(&policy, &opening).first, None);
}

#[test]
fn a_server_that_is_listed_as_a_peer_too_is_pointed_out() {
    let draft =
        read(&small("[[peer]]\nsystems = [\"WFO\"]\naddresses = [\"10.20.0.11\"]\n")).expect("a site");
    let policy = on_pom1(&draft);
    assert_eq!(row(&policy, "pom-4.0/16", Direction::Inbound).peers, [], "a host never is its own peer");
    assert_eq!(kinds(&notes(&draft, &policy), "peer-is-host").len(), 1);
}

#[test]
fn peers_and_rows_that_can_never_match_are_warnings() {
    let allow = |name: &str, from: &str, to: &str| {
        format!(
            "[[allow]]\nname = \"{name}\"\nfrom = [{from}]\nto = [{to}]\nports = \"47400\"\nprotocol = \"udp\"\n"
        )
    };
    let tables = [
        "[[peer]]\nsystems = [\"WFO\"]\naddresses = [\"127.0.0.9\", \"224.1.0.0/16\", \"255.255.255.255\", \"10.60.0.1\"]\n",
        "[[peer]]\nname = \"lan\"\nsystems = [\"AES\"]\naddresses = [\"10.20.0.0/24\"]\n",
        &allow("group", "\"10.20.0.50\"", "\"228.1.2.4\", \"pom1\""),
        &allow("dead", "\"10.20.0.50\"", "\"228.1.2.4\", \"ff02::5\""),
        &allow("elsewhere", "\"10.20.0.50\"", "\"10.30.0.1\""),
        &allow("good", "\"10.20.0.50\"", "\"pom2\""),
    ]
    .concat();
    let draft = read(&small(&tables)).unwrap_or_else(|faults| panic!("{faults}"));
    let remarks = notes(&draft, &on_pom1(&draft));
    let said =
        |kind| kinds(&remarks, kind).iter().map(|note| note.message.as_str()).collect::<Vec<_>>().join("\n");
    let strange = said("peer-not-unicast");
    for address in ["127.0.0.9/32", "224.1.0.0/16", "255.255.255.255/32"] {
        assert!(strange.contains(address), "{address}: {strange}");
    }
    assert!(!strange.contains("10.60.0.1"), "{strange}");
    assert!(said("peer-covers-host").contains("10.20.0.0/24") && said("peer-covers-host").contains("pom2"));
    let never = said("never-matches");
    assert!(
        never.contains("site/group") && never.contains("site/dead") && never.contains("ff02::5"),
        "{never}"
    );
    assert!(!never.contains("site/good"), "{never}");
    let nowhere = said("allow-nowhere");
    assert!(nowhere.contains("site/elsewhere") && nowhere.contains("site/dead"), "{nowhere}");
    assert!(!nowhere.contains("site/good") && !nowhere.contains("site/group"), "{nowhere}");
    for kind in ["peer-not-unicast", "peer-covers-host", "never-matches", "allow-nowhere", "no-failsafe"] {
        assert!(kinds(&remarks, kind).iter().all(|note| note.weight() == Weight::Warning), "{kind}");
        assert!(!kinds(&remarks, kind).is_empty(), "{kind}");
    }
}

#[test]
fn rows_follow_site_and_settings_audit_but_failsafe_rows_never() {
    let site = small(
        "[[row]]\nid = \"pom-4.0/1\"\nmode = \"audit\"\n[[allow]]\nname = \"ssh\"\nfrom = [\"10.9.0.0/24\"]\n\
         to = [\"pom1\"]\nports = \"22\"\nprotocol = \"tcp\"\nfailsafe = true\n",
    );
    let with = |id: &str, mode: &str| {
        let settings = format!("{SETTINGS}\n[[row]]\nid = \"{id}\"\nmode = \"{mode}\"\n");
        let draft = Draft::from_texts(("pomguard.toml", &settings), ("site.toml", &site))?;
        resolve(&draft, &[IpAddr::from([10, 20, 0, 11])])
    };
    let mode = |policy: &Policy, id| row(policy, id, Direction::Inbound).mode;
    let policy = with("pom-4.0/4", "audit").expect("a row in audit");
    assert_eq!(mode(&policy, "pom-4.0/1"), Mode::Audit);
    assert_eq!(mode(&policy, "pom-4.0/4"), Mode::Audit);
    assert_eq!(mode(&policy, "pom-4.0/7"), Mode::Enforce);
    assert_eq!(mode(&with("pom-4.0/1", "enforce").expect("the last word"), "pom-4.0/1"), Mode::Enforce);
    assert!(with("site/ssh", "audit").is_err());
    assert!(with("site/nothing", "audit").is_err());
    assert!(with("pom-4.0/99", "audit").is_err());
}

#[test]
fn sixty_thousand_peers_are_resolved_without_delay() {
    let addresses: Vec<String> = (0..30_000_u32)
        .map(|n| format!("\"10.{}.{}.{}\"", 64 + n / 65_536, n / 256 % 256, n % 256))
        .collect();
    let list = addresses.join(", ");
    let site = small(&format!("[[peer]]\nsystems = [\"Agent Desktop\", \"WFO\"]\naddresses = [{list}]\n"));
    let draft = read(&site).expect("a large site");
    let policy = on_pom1(&draft);
    assert_eq!(row(&policy, "pom-4.0/15", Direction::Inbound).peers.len(), 30_000);
    assert!(kinds(&notes(&draft, &policy), "shadowed").is_empty());
}

#[test]
fn the_host_is_found_by_its_addresses_or_by_name_or_not_at_all() {
    let draft = read(&small("")).expect("a small site");
    let addresses =
        |last: &[u8]| last.iter().map(|&last| IpAddr::from([10, 20, 0, last])).collect::<Vec<_>>();
    assert_eq!(resolve(&draft, &addresses(&[12])).expect("pom2").host, "pom2");
    assert!(resolve(&draft, &addresses(&[99])).is_err());
    assert!(resolve(&draft, &addresses(&[11, 12])).is_err());
}

proptest::proptest! {
    #[test]
    fn cf_17_the_oracle_agrees_with_a_look_at_every_tuple(
        last in 0_u8..=99, third in 0_u8..=3, port in 9960_u16..10020, sport in 0_u16.., udp: bool,
    ) {
        let policy = policy(&small(
            "[[peer]]\nsystems = [\"Agent Desktop\"]\naddresses = [\"10.50.0.10-10.50.2.77\"]\n\
             [[peer]]\nsystems = [\"JMX Console\"]\naddresses = [\"10.50.1.0/24\"]\n",
        ));
        let source = IpAddr::from([10, 50, third, last]);
        let opening = Opening {
            direction: Direction::Inbound,
            source,
            source_port: sport,
            destination: IpAddr::from([10, 20, 0, 11]),
            destination_port: port,
            protocol: if udp { 17 } else { 6 },
        };
        let low = u32::from_be_bytes([10, 50, third, last]);
        let desktop = (u32::from_be_bytes([10, 50, 0, 10])..=u32::from_be_bytes([10, 50, 2, 77])).contains(&low);
        let mut expected = Vec::new();
        if sport >= 1024 && !udp {
            if desktop && (9970..=9973).contains(&port) {
                expected.push("pom-4.0/15");
            }
            if third == 1 && port == 10010 {
                expected.push("pom-4.0/19");
            }
            if third == 1 && port == 10011 {
                expected.push("pom-4.0/20");
            }
        }
        let answer = judge(&policy, &opening);
        let found: Vec<&str> = answer.all.iter().map(|id| id.0.as_str()).collect();
        proptest::prop_assert_eq!(found, expected);
    }
}

#[test]
fn host_without_a_failsafe_row_is_remarked_on() {
    let settings = SETTINGS.replace("inbound = \"audit\"", "inbound = \"enforce\"");
    let remarks = |settings: &str, site: &str| {
        let draft = Draft::from_texts(("pomguard.toml", settings), ("site.toml", site)).expect("files");
        kinds(&notes(&draft, &on_pom1(&draft)), "no-failsafe").len()
    };
    let way_in = small(
        "[[allow]]\nname = \"ssh\"\nfrom = [\"10.9.0.0/24\"]\nto = [\"every-host\"]\nprotocol = \"tcp\"\n\
         ports = \"22\"\nfailsafe = true\n",
    );
    assert_eq!(remarks(&settings, &small("")), 1);
    assert_eq!(remarks(&settings, &way_in), 0);
    assert_eq!(remarks(SETTINGS, &small("")), 1, "in audit, too: a lockdown would leave no way in");
}

#[test]
fn row_in_audit_is_remarked_on_with_rows_that_share_its_ports() {
    let site = small(
        "[[row]]\nid = \"pom-4.0/15\"\nmode = \"audit\"\n[[allow]]\nname = \"near\"\n\
         from = [\"10.9.0.0/24\"]\nto = [\"pom1\"]\nports = \"9971-9999\"\nprotocol = \"tcp\"\n\
         [[allow]]\nname = \"far\"\nfrom = [\"10.9.0.0/24\"]\nto = [\"pom1\"]\nports = \"9971\"\n\
         protocol = \"udp\"\n",
    );
    let draft = read(&site).expect("a site");
    let all = notes(&draft, &on_pom1(&draft));
    let found: Vec<&Note> = all.iter().filter(|note| note.kind == "in-audit").collect();
    let [note] = found.as_slice() else { panic!("one remark, not {found:?}") };
    assert_eq!(note.rows, ["pom-4.0/15", "site/near"], "another protocol's port is another port");
    assert!(note.message.starts_with("pom-4.0/15 is in audit inbound"), "{}", note.message);
    assert!(note.message.ends_with("site/near (9971-9973/tcp)"), "{}", note.message);
    let quiet = read(&small("")).expect("a site");
    assert!(kinds(&notes(&quiet, &on_pom1(&quiet)), "in-audit").is_empty());
}

#[test]
fn explain_passes_strangers_only_at_ports_of_rows_in_audit() {
    let site = small(
        "[[peer]]\nsystems = [\"Agent Desktop\"]\naddresses = [\"10.50.0.0/16\"]\n\
         [[row]]\nid = \"pom-4.0/15\"\nmode = \"audit\"\n",
    );
    let mut policy = policy(&site);
    policy.inbound = Mode::Enforce;
    let ask = |from, to| explain(&policy, &Alongside::default(), &question(&policy, from, to));
    let says = |explanation: &_| {
        let mut text = Vec::new();
        crate::render::explain::print(explanation, &mut text).expect("written to memory");
        String::from_utf8(text).expect("text")
    };
    let stranger = ask("10.99.0.1", "10.20.0.11:9971/tcp");
    assert!(stranger.passes && stranger.row.is_none());
    assert!(
        says(&stranger).contains("passes in audit because row pom-4.0/15 is in audit"),
        "{}",
        says(&stranger)
    );
    let low = ask("10.50.3.7:22", "10.20.0.11:9971/tcp");
    assert!(low.passes && low.row.is_none(), "the client port is not enforced yet either");
    let hit = ask("10.50.3.7", "10.20.0.11:9971/tcp");
    assert!(hit.passes && hit.in_audit.is_empty(), "what the row allows passes under it");
    let elsewhere = ask("10.99.0.1", "10.20.0.11:9975/tcp");
    assert!(!elsewhere.passes && elsewhere.in_audit.is_empty());
}
