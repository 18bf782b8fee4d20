//! The part of `plan` about traffic that the kernel counted.

use std::time::{SystemTime, UNIX_EPOCH};

use pomguard_tests::daemon::{Daemon, LISTED, Lab, PEER, REMOVABLE, SERVER, Settings, UNLISTED, opens};

use super::cli::{json, said};

/// Disables rows 15 and 16; nobody uses row 15.
const WITHOUT_TWO: &str = "[[row]]\nid = \"pom-4.0/15\"\nenabled = false\nforce = true\n\n\
                           [[row]]\nid = \"pom-4.0/16\"\nenabled = false\nforce = true\n";

#[test]
fn a_plan_names_the_rows_that_carried_traffic_and_go() {
    let Some(lab) = Lab::new("a_plan_names_the_rows_that_carried_traffic_and_go") else { return };
    let before = now();
    let daemon = Daemon::start(&lab);
    for _ in 0..3 {
        assert!(opens(&lab.peer, SERVER, REMOVABLE));
    }
    assert!(daemon.stop().success(), "it needs no daemon");
    let stats = lab.stats();
    let packets = stats.row("pom-4.0/16", "inbound", "packets");
    assert_eq!(stats.row("pom-4.0/16", "inbound", "connections"), 3, "{stats}");
    assert_eq!(stats.row("pom-4.0/15", "inbound", "packets"), 0, "{stats}");

    let unchanged = said(&lab.pomguard(&["plan"]));
    assert!(!unchanged.contains("were hit in the last"), "nothing would be taken away: {unchanged}");

    lab.write_site(WITHOUT_TWO);
    let plan = json(&lab, &["plan"]);
    let recent = &plan["recent"];
    assert_eq!(
        (&recent["looked_at"], recent["rows"].as_array().map(Vec::len)),
        (&2.into(), Some(1)),
        "{plan:#}"
    );
    let row = &recent["rows"][0];
    assert_eq!((&row["id"], &row["direction"]), (&"pom-4.0/16".into(), &"inbound".into()), "{plan:#}");
    assert_eq!((&row["packets"], &row["connections"]), (&packets.into(), &3.into()), "{plan:#}");
    assert_eq!((&row["kind"], &row["newly_denied"]), (&"removed".into(), &true.into()), "{plan:#}");
    for moment in [&recent["counting_since"], &row["first_hit"], &row["last_hit"]] {
        // Ticks are rounded to seconds.
        let moment = moment.as_u64().unwrap();
        assert!((before - 2..=now() + 2).contains(&moment), "{moment} of {plan:#}");
    }

    let text = said(&lab.pomguard(&["plan"]));
    assert!(text.contains("1 of 2 rows that would go"), "{text}");
    let line = text.lines().find(|line| line.contains("pom-4.0/16 inbound, ")).unwrap();
    let (ports, hits) =
        (format!("-> Agent Manager, {REMOVABLE} tcp: "), format!("{packets} packets, 3 connections"));
    assert!(line.contains("WFO") && line.contains(&ports) && line.contains(&hits), "{line}");
    assert!(line.ends_with("ago; removed"), "{line}");
    assert!(!text.contains("pom-4.0/15 inbound, "), "nobody used it: {text}");
}

#[test]
fn a_plan_tells_what_passed_in_audit_before_it_is_promoted() {
    let Some(lab) = Lab::new("a_plan_tells_what_passed_in_audit_before_it_is_promoted") else { return };
    lab.write_settings(&Settings { inbound: "audit", outbound: "track", ..Settings::default() });
    let _daemon = Daemon::start(&lab);
    assert!(opens(&lab.peer, SERVER, UNLISTED) && opens(&lab.stranger, SERVER, LISTED));
    assert!(opens(&lab.server, PEER, UNLISTED));
    let stats = lab.stats();
    let audited = stats.total("inbound", "audited");
    assert!(audited > 0, "{stats}");
    let unlisted = stats.reason("leaves-unlisted", "outbound", "pass");
    assert!(unlisted > 0, "{stats}");
    assert!(!said(&lab.pomguard(&["plan"])).contains("enforce would have dropped"), "nothing is promoted");

    lab.write_settings(&Settings::default());
    let plan = json(&lab, &["plan"]);
    let unenforced = &plan["recent"]["unenforced"];
    assert_eq!(
        (&unenforced[0]["direction"], &unenforced[0]["packets"]),
        (&"inbound".into(), &audited.into())
    );
    assert_eq!(unenforced[1]["direction"], "outbound", "{plan:#}");
    let named = |name: &str| {
        let both = unenforced.as_array().unwrap().iter().flat_map(|of| of["reasons"].as_array().unwrap());
        both.filter(|reason| reason["name"] == name)
            .map(|reason| reason["packets"].as_u64().unwrap())
            .sum::<u64>()
    };
    for reason in ["port-known", "source"] {
        assert_eq!(named(reason), stats.reason(reason, "inbound", "audit"), "{reason} of {plan:#}");
    }
    assert_eq!(named("leaves-unlisted"), unlisted, "{plan:#}");
    let text = said(&lab.pomguard(&["plan"]));
    assert!(
        text.contains(&format!("{audited} packets passed inbound so far that enforce would have dropped: ")),
        "{text}"
    );
    assert!(text.contains("not by address"), "{text}");
}

#[test]
fn a_plan_says_nothing_of_counters_where_nothing_is_in_force() {
    let Some(lab) = Lab::new("a_plan_says_nothing_of_counters_where_nothing_is_in_force") else { return };
    let plan = json(&lab, &["plan"]);
    assert!(plan["recent"].is_null() && plan["in_force"] == "nothing", "{plan:#}");
    assert!(!said(&lab.pomguard(&["plan"])).contains("were hit"));
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
