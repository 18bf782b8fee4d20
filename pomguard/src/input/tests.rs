//! Tests of the reader with complete, invalid and truncated files.

use std::{collections::BTreeSet, fs, net::IpAddr, os::unix::fs::PermissionsExt as _, path::Path};

use proptest::prelude::*;

use super::{Diagnostics, Draft, Settings, settings::TcMode, site};
use crate::policy::{FlowAges, Mode, Policy, Rates, RowId, resolve};

const SITE: &str = include_str!("../../../config/site.example.toml");
const SETTINGS: &str = include_str!("../../../config/pomguard.toml");
const HOST: &str = "[[host]]\nname = \"pom1\"\naddresses = [\"10.20.0.11\"]\nsystems = [\"Agent Manager\"]\n";

fn read(text: &str) -> Result<Draft, Diagnostics> {
    Draft::from_texts(("pomguard.toml", SETTINGS), ("site.toml", text))
}

fn on_pom1(draft: &Draft) -> Option<Policy> {
    resolve(draft, &[IpAddr::from([10, 20, 0, 11])]).ok()
}

/// Returns everything that the policy allows in either direction, tuple by tuple.
fn granted(policy: &Policy) -> BTreeSet<(RowId, u8, String, u8, String)> {
    let mut tuples = BTreeSet::new();
    for row in &policy.rows {
        for peer in &row.peers {
            for service in &row.services {
                tuples.insert((
                    row.id.clone(),
                    row.direction as u8,
                    peer.prefix.to_string(),
                    service.protocol,
                    service.ports.to_string(),
                ));
            }
        }
    }
    tuples
}

fn faults(tables: &str) -> Diagnostics {
    let text = format!("matrix = \"pom-4.0\"\nzones = 3\n{HOST}{tables}");
    read(&text).map(|_| ()).expect_err(tables)
}

#[test]
fn all_faults_of_a_file_are_reported_at_once_each_with_its_line() {
    let text = "matrix = \"pom-4.0\"\nzones = 0\nzone = 3\n\
                [[host]]\nname = \"pom1\"\naddresses = [\"10.20.0.011\", \"::ffff:10.0.0.1\"]\nsystems = [\"Agent Manger\"]\n\
                [[peer]]\nsystems = [\"Database\"]\naddresses = []\n\
                [[row]]\nid = \"pom-4.0/99\"\nports = \"70000\"\n";
    let found = read(text).expect_err("eight faults");
    let lines: Vec<(usize, &str)> =
        found.0.iter().map(|error| (error.origin.line, error.remedy.as_str())).collect();
    let expected = [
        (2, "write a number from 1 to 65535, without quotes"),
        (3, "write `zones`"),
        (6, "write \"10.20.0.11\", if decimal was meant"),
        (6, "write \"10.0.0.1\""),
        (7, "write \"Agent Manager\""),
        (9, "write one of \"Postgres\", \"Oracle\", \"MSSQL\""),
        (10, "list at least one; empty never means any"),
        (12, "write \"pom-4.0/1\" to \"pom-4.0/47\""),
        (13, "write a port from 1 to 65535"),
    ];
    assert_eq!(lines, expected, "{found}");
}

#[test]
fn a_message_names_file_line_text_problem_and_remedy() {
    let found = faults("[[peer]]\nsystems = [\"AES\"]\naddresses = [\"10.0.0.1/8\"]\n");
    assert_eq!(
        found.to_string(),
        "site.toml:9: \"10.0.0.1/8\": bits are set behind the first 8; write \"10.0.0.0/8\" for the network, or \
         \"10.0.0.1\" for the one address"
    );
}

#[test]
fn cf_08_bom_nul_non_utf8_and_depth_are_refused_crlf_accepted() {
    let refused = |text: &str| read(text).map(|_| ()).expect_err("a broken file").to_string();
    assert!(refused(&format!("\u{feff}{SITE}")).contains("byte-order mark"));
    assert!(refused(&format!("{SITE}# \0\n")).contains("NUL"));
    let deep = format!("matrix = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(!refused(&deep).is_empty());
    let long = format!("# {}\n", "x".repeat(5 << 20));
    assert!(refused(&long).contains("4 MiB"));
    assert!(read(&SITE.replace('\n', "\r\n")).is_ok());
}

#[test]
fn cf_08_a_folder_or_a_missing_file_is_refused_by_name() {
    for path in ["/", "/nonexistent/site.toml"] {
        let found = Settings::load(Path::new(path)).expect_err(path).to_string();
        assert!(found.starts_with(path), "{found}");
    }
}

#[test]
fn cf_14_special_or_world_writable_file_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
    for path in [fifo.as_path(), Path::new("/dev/null")] {
        let refused = Settings::load(path).expect_err("no plain file");
        assert!(refused.to_string().contains("is not a regular file"), "{refused}");
    }
    let file = folder.path().join("pomguard.toml");
    fs::write(&file, SETTINGS).unwrap();
    let link = folder.path().join("link.toml");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert!(Settings::load(&link).is_ok(), "what counts is the file that was opened");
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    for (mode, who, command) in [
        (0o646, "can be written by everybody", "chmod o-w"),
        (0o664, "can be written by the group", "chmod g-w"),
    ] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        for path in [&file, &link] {
            let refused = Settings::load(path).expect_err("written by others").to_string();
            assert!(refused.contains(who) && refused.contains(command), "{refused}");
        }
    }
}

#[test]
fn cf_08_a_hundred_thousand_entries_are_read_in_bounded_time() {
    let start = std::time::Instant::now();
    let many = |range: std::ops::Range<u32>| {
        let list: Vec<String> =
            range.map(|n| format!("\"10.{}.{}.{}\"", n >> 16, n >> 8 & 255, n & 255)).collect();
        list.join(", ")
    };
    let from = many(0..100_000);
    let text = format!(
        "matrix = \"pom-4.0\"\nzones = 3\n{HOST}[[peer]]\nname = \"many\"\naddresses = [{}]\n\
         [[allow]]\nname = \"web\"\nfrom = [{from}]\nto = [\"pom1\"]\nports = \"80\"\nprotocol = \"tcp\"\n",
        many(200_000..300_000)
    );
    let draft = read(&text).expect("a large site");
    let policy = on_pom1(&draft).expect("pom1");
    assert!(policy.rows.iter().any(|row| row.peers.len() == 100_000));
    assert!(read(&text.replace(", ", ",, ")).is_err());
    let seconds = start.elapsed().as_secs();
    assert!(seconds < 60, "{seconds} s");
}

#[test]
fn names_and_addresses_are_one_machines_only() {
    let host = |name: &str, address: &str| {
        format!("[[host]]\nname = \"{name}\"\naddresses = [\"{address}\"]\nsystems = [\"Kafka\"]\n")
    };
    assert!(faults(&host("pom2", "10.20.0.11")).to_string().contains("pom1 has this address already"));
    for taken in ["pom1", "AES", "CMS", "every-host"] {
        assert!(faults(&host(taken, "10.20.0.12")).to_string().contains("taken"), "{taken}");
    }
    assert!(
        faults(&host("pom2", "10.20.0.12/24")).to_string().contains("\"10.20.0.12\" for the one address")
    );
    assert!(faults(&host("pom2", "10.0.0.0/8")).to_string().contains("at least /16"));
    assert!(
        faults("[[peer]]\nname = \"x y\"\naddress = 1\n").0.len() >= 3,
        "one fault does not hide the others"
    );
}

#[test]
fn cf_10_every_address_there_is_must_be_meant() {
    let allow = |from: &str, more: &str| {
        format!(
            "[[allow]]\nname = \"web\"\nfrom = [\"{from}\"]\nto = [\"pom1\"]\nports = \"80\"\nprotocol = \"tcp\"\n{more}"
        )
    };
    for from in ["0.0.0.0/0", "::/0", "0.0.0.0-255.255.255.255"] {
        assert!(faults(&allow(from, "")).to_string().contains("anywhere = true"), "{from}");
    }
    let text = format!("matrix = \"pom-4.0\"\nzones = 3\n{HOST}{}", allow("0.0.0.0/0", "anywhere = true\n"));
    assert!(read(&text).is_ok());
}

#[test]
fn cf_12_unknown_misspelt_and_doubled_keys_are_refused() {
    for tables in [
        "[[peers]]\nsystems = [\"AES\"]\naddresses = [\"10.0.0.1\"]\n",
        "[[peer]]\nsystem = [\"AES\"]\naddresses = [\"10.0.0.1\"]\n",
        "[[peer]]\nsystems = [\"AES\"]\nsystems = [\"WFO\"]\naddresses = [\"10.0.0.1\"]\n",
        "[[row]]\nid = \"pom-4.0/44\"\nenable = false\n",
    ] {
        faults(tables);
    }
    let settings = SETTINGS.replace("inbound = \"audit\"", "inbuond = \"enforce\"");
    let found = Settings::parse("pomguard.toml", &settings).expect_err("a misspelt key").to_string();
    assert!(found.contains("write `inbound`"), "{found}");
}

#[test]
fn what_a_site_row_must_not_say_is_refused() {
    let allow = |change: (&str, &str)| {
        let text = "[[allow]]\nname = \"web\"\nfrom = [\"10.9.0.0/24\"]\nto = [\"pom1\"]\nports = \"80\"\n\
                    protocol = \"tcp\"\nfailsafe = true\n";
        assert!(text.contains(change.0), "{}", change.0);
        faults(&text.replace(change.0, change.1)).to_string()
    };
    assert!(allow(("\"pom1\"", "\"pom3\"")).contains("write \"pom1\""));
    assert!(allow(("[\"pom1\"]", "[]")).contains("empty"));
    assert!(allow(("\"tcp\"", "\"any\"")).contains("no protocol"));
    assert!(allow(("\"tcp\"", "\"TCP\"")).contains("no protocol"));
    assert!(allow(("\"tcp\"", "44")).contains("no protocol"));
    assert!(allow(("\"tcp\"", "\"icmp\"")).contains("has no ports"));
    // UD-11
    assert!(allow(("\"tcp\"", "132")).contains("has no ports"));
    assert!(allow(("ports = \"80\"\n", "")).contains("`ports` is missing"));
    assert!(allow(("ports = \"80\"", "ports = 80")).contains("write it in quotes: \"80\""));
    assert!(allow(("failsafe = true", "failsafe = true\nmode = \"audit\"")).contains("failsafe"));
    assert!(allow(("\"web\"", "\"we b\"")).contains("plain name"));
}

#[test]
fn a_number_of_zones_that_runs_past_the_last_port_is_refused() {
    let text = format!("matrix = \"pom-4.0\"\nzones = 60000\n{HOST}");
    let found = read(&text).expect_err("too many zones").to_string();
    assert!(
        found.contains("site.toml:2: zones = 60000: 9995+zones of pom-4.0/1 runs past port 65535"),
        "{found}"
    );
}

#[test]
fn a_matrix_is_found_by_shipped_name_or_by_path() {
    let folder = tempfile::tempdir().expect("a folder");
    let shipped = include_str!("../../../config/matrix/pom-4.0.toml");
    fs::write(folder.path().join("ours.toml"), shipped.replace("\"pom-4.0\"", "\"ours\"")).expect("written");
    let text = |name: &str| format!("matrix = \"{name}\"\nzones = 1\n{HOST}");
    let (_, matrix) = site::parse("site.toml", &text("ours.toml"), folder.path()).expect("a path");
    assert_eq!(matrix.row_id(1).0, "ours/1");
    let found = site::parse("site.toml", &text("pom-9"), folder.path()).map(|_| ()).expect_err("unknown");
    assert!(found.to_string().contains("\"pom-4.0\""), "{found}");
}

#[test]
fn the_shipped_settings_say_what_holds_without_them() {
    let written = Settings::parse("default", SETTINGS).expect("the shipped file");
    let without = Settings::without_file(Path::new("site.toml"));
    let written = Settings { interfaces: Vec::new(), source: without.source.clone(), ..written };
    assert_eq!(written, without);
}

#[test]
fn every_switch_of_the_settings_is_read() {
    let text = "site = \"s.toml\"\nhost = \"pom2\"\ninterfaces = [\"eth0\", \"bond0.100\"]\n\
                [enforcement]\ninbound = \"enforce\"\noutbound = \"audit\"\ngrace = \"5m\"\n\
                [attach]\nmode = \"native\"\ntc = \"clsact\"\nrequire_native = true\non_attach_failure = \"continue\"\n\
                [metrics]\nlisten = \"off\"\n[packets]\nvrrp = false\nvlans = [200, 100]\n\
                [paths]\npins = \"/sys/fs/bpf/x\"\n[[row]]\nid = \"pom-4.0/16\"\nmode = \"audit\"\n";
    let settings = Settings::parse("pomguard.toml", text).expect("right settings");
    assert_eq!((settings.inbound, settings.outbound), (Mode::Enforce, Mode::Audit));
    assert_eq!((settings.metrics, settings.packets.vrrp), (None, false));
    assert_eq!(settings.packets.vlans, [100, 200]);
    assert_eq!(settings.packets.rates, Rates::default());
    assert!(settings.attach.require_native && settings.interfaces.len() == 2);
    assert_eq!((settings.attach.tc, settings.grace), (TcMode::Clsact, Some(300)));
    for (written, grace) in
        [("off", Some(None)), ("1s", Some(Some(1))), ("60m", Some(Some(3_600))), ("1h", Some(Some(3_600)))]
            .into_iter()
            .chain(
                ["", "s", "0s", "61m", "60", "2h", "1d", "-1s", "4294967297s", "9999999m", "é"]
                    .map(|wrong| (wrong, None)),
            )
    {
        let text =
            format!("site = \"s.toml\"\ninterfaces = [\"eth0\"]\n[enforcement]\ngrace = \"{written}\"\n");
        let read = Settings::parse("pomguard.toml", &text).ok();
        assert_eq!(read.map(|settings| settings.grace), grace, "{written:?}");
    }
    let flows = |lines: &str| {
        let text = format!("site = \"s.toml\"\ninterfaces = [\"eth0\"]\n[flows]\n{lines}\n");
        Settings::parse("pomguard.toml", &text).map(|settings| settings.flows)
    };
    assert_eq!(flows(""), Ok(FlowAges::default()));
    let set = flows(
        "opening = \"30s\"\nestablished = \"30d\"\nclosed = \"1m\"\nudp = \"1h\"\nudp_unanswered = \"5s\"\nicmp = \"90s\"",
    );
    let ages =
        FlowAges { opening: 30, established: 2_592_000, closed: 60, udp: 3_600, udp_unanswered: 5, icmp: 90 };
    assert_eq!(set, Ok(ages));
    for wrong in [
        "established = \"59m\"",
        "established = \"31d\"",
        "udp = \"0s\"",
        "icmp = \"\"",
        "udp = 300",
        "fragment = \"9s\"",
    ] {
        let error = flows(wrong).unwrap_err().to_string();
        assert!(error.contains("pomguard.toml:4"), "{wrong}: {error}");
    }
    let error = flows("established = \"1m\"").unwrap_err().to_string();
    assert!(error.contains("write a time from \"1h\" to \"30d\""), "{error}");
    for wrong in ["eth*", "a-name-that-is-too-long", "lo", "", "et/h0", "eth0\", \"eth0"] {
        let text = format!("site = \"s.toml\"\ninterfaces = [\"{wrong}\"]\n");
        assert!(Settings::parse("pomguard.toml", &text).is_err(), "{wrong}");
    }
}

#[test]
fn cf_07_example_cut_at_any_byte_is_refused_or_the_same() {
    let whole = granted(&on_pom1(&read(SITE).expect("the example")).expect("pom1"));
    for end in (0..SITE.len()).filter(|&end| SITE.is_char_boundary(end)) {
        let cut = &SITE[..end];
        if let Some(policy) = read(cut).ok().as_ref().and_then(on_pom1) {
            assert_eq!(granted(&policy), whole, "cut at byte {end}");
            assert!(cut.trim_end().ends_with("[end]"), "cut at byte {end}");
        }
    }
}

#[test]
fn cf_07_cut_value_without_end_mark_is_no_other_value() {
    let marked = [
        "end_marker = true       # the last line is [end]: a copy that was cut short is refused\n",
        "[end]\n",
    ];
    let text = marked.iter().fold(SITE.to_owned(), |text, line| text.replace(line, ""));
    let start = text.find("[[allow]]").expect("site rows");
    let whole = granted(&on_pom1(&read(&text).expect("the example")).expect("pom1"));
    for end in (start..text.len()).filter(|&end| text.is_char_boundary(end)) {
        if let Some(policy) = read(&text[..end]).ok().as_ref().and_then(on_pom1) {
            assert!(granted(&policy).is_subset(&whole), "cut at byte {end}");
        }
    }
}

/// A change to a text: a part cut out, doubled, or replaced by a significant token.
fn mutated(text: &str, changes: &[(usize, u8, usize)]) -> String {
    let pieces =
        ["\"", "[[", "]]", "=", "\n", "{", "é", "-", "0", "/", "0x", "1e9", "true", "''", "\\u0000", "[end]"];
    let mut letters: Vec<char> = text.chars().collect();
    for &(place, kind, length) in changes {
        let at = place % letters.len().max(1);
        let end = (at + length % 40).min(letters.len());
        match kind % 3 {
            0 => drop(letters.drain(at..end)),
            1 => {
                let copy: Vec<char> = letters[at..end].to_vec();
                letters.splice(at..at, copy);
            }
            _ => {
                letters.splice(at..at.min(end), pieces[length % pieces.len()].chars());
            }
        }
    }
    letters.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_change_to_a_file_makes_the_reader_panic(
        changes in prop::collection::vec((any::<usize>(), any::<u8>(), any::<usize>()), 1..6),
    ) {
        if let Ok(draft) = read(&mutated(SITE, &changes)) {
            let _ = on_pom1(&draft);
        }
        let _ = Settings::parse("pomguard.toml", &mutated(SETTINGS, &changes));
    }

    #[test]
    fn no_text_at_all_makes_the_reader_panic(text in "\\PC{0,200}") {
        let _ = read(&text);
        let _ = Settings::parse("pomguard.toml", &text);
    }
}

#[test]
fn the_texts_of_a_draft_mean_the_same_again_without_the_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let matrix = crate::input::matrix::Matrix::load("pom-4.0").expect("shipped").source.text;
    fs::write(folder.path().join("ours.toml"), matrix).expect("written");
    let site = "matrix = \"ours.toml\"\nzones = 1\n[[host]]\nname = \"a\"\naddresses = [\"10.0.0.1\"]\nsystems = [\"Kafka\"]\n";
    fs::write(folder.path().join("site.toml"), site).expect("written");
    fs::write(folder.path().join("pomguard.toml"), "site = \"site.toml\"\ninterfaces = [\"eth0\"]\n")
        .expect("written");
    let draft = Draft::load(&folder.path().join("pomguard.toml")).expect("right");
    let sources = draft.sources();
    drop(folder);
    let again = Draft::from_sources(&sources).expect("still right");
    assert_eq!(again.sources(), sources);
    let policy = |draft| resolve(draft, &["10.0.0.1".parse().expect("an address")]).expect("host a");
    assert_eq!(policy(&again), policy(&draft));
    let mut changed = sources.clone();
    changed.site.text.push('#');
    assert_ne!(changed.digest(), sources.digest());
}

#[test]
fn rates_are_read_within_their_bounds_and_none_is_not_one() {
    let head = "site = \"s.toml\"\ninterfaces = [\"eth0\"]\n[packets.rates]\n";
    let read = |line: &str| Settings::parse("pomguard.toml", &format!("{head}{line}\n"));
    let rates = read("path_mtu = 4\nneighbours = 100000000").expect("both bounds").packets.rates;
    assert_eq!(rates, Rates { path_mtu: 4, neighbours: 100_000_000, ..Rates::default() });
    for wrong in [
        "echo_v6 = 0",
        "echo_v6 = 3",
        "icmp_errors = 100000001",
        "neighbours = -1",
        "neighbours = \"\"",
        "pmtu = 9",
    ] {
        let error = read(wrong).expect_err(wrong).to_string();
        assert!(error.contains("pomguard.toml:4"), "{wrong}: {error}");
    }
}
