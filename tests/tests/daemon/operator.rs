//! An operator's week: an audit with forgotten systems, rows for them, the promotion, and a call that fails.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use pomguard_tests::daemon::{
    Daemon, LISTED, Lab, PEER, SERVER, STRANGER, Settings, UNLISTED, on_terminal, opens,
};

use serde_json::Value;

use super::cli::{done, json, said};

/// A port for which nobody wrote a row.
const WRONG: u16 = UNLISTED + 1;

/// Returns the first word of the first line that contains all words.
fn first_word<'a>(text: &'a str, words: &[&str]) -> &'a str {
    let line = text.lines().find(|line| words.iter().all(|word| line.contains(word)));
    line.and_then(|line| line.split_whitespace().next()).unwrap_or_else(|| panic!("no {words:?} in\n{text}"))
}

#[test]
fn operators_week_from_audit_to_a_call_that_fails() {
    let Some(lab) = Lab::new("operators_week_from_audit_to_a_call_that_fails") else { return };
    // Monday: the audit. Nothing is dropped, and the files forgot a port of a known system, and a machine.
    lab.write_settings(&Settings::AUDIT);
    let _daemon = Daemon::start(&lab);
    assert!(opens(&lab.peer, SERVER, UNLISTED) && opens(&lab.stranger, SERVER, LISTED));
    let peer = PEER.to_string();
    let text = done(&lab, &["drops"]);
    assert!(text.contains(&peer) && text.contains("audit") && text.contains(&STRANGER.to_string()), "{text}");
    // Tuesday: rows for the forgotten ones, accepted one by one. The known system first.
    let mut command = lab.pomguard_command(&["suggest", "--strangers", "--interactive"]);
    let rows = on_terminal(&mut command, "y\nmaybe\ny\ny\ny\ny\ny\ny\ny\n");
    assert!(rows.contains(&format!("from = [\"{peer}\"]")), "{rows}");
    let mut command = lab.pomguard_command(&["suggest", "--strangers", "--interactive"]);
    assert!(on_terminal(&mut command, "q\n").contains("no row was accepted"));
    // Without a terminal nobody can be asked.
    let output = lab.pomguard_command(&["suggest", "--interactive"]).stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success() && said(&output).contains("needs a person"), "{}", said(&output));
    let rows: Vec<&str> = rows.lines().filter(|line| !line.starts_with("row ")).collect();
    let begin = rows.iter().position(|line| line.starts_with("# ") && line.contains(" rows for ")).unwrap();
    lab.write_site(&rows[begin..].join("\n"));
    lab.write_settings(&Settings { inbound: "enforce", ..Settings::AUDIT });
    // Wednesday: the plan, then the promotion under a deadline.
    let output = lab.pomguard(&["plan"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("site/seen-tcp-from-10.77.0.2"), "{}", said(&output));
    done(&lab, &["apply", "--confirm-within", "60s", "--quiet", "--why", "after the audit"]);
    assert!(opens(&lab.peer, SERVER, UNLISTED) && opens(&lab.stranger, SERVER, LISTED));
    done(&lab, &["confirm", "--quiet"]);
    // The daemon keeps the counters of the change within a second.
    let change = || lab.pomguard(&["stats", "--since", "change"]).status.success();
    assert!((0..60).any(|_| change() || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        false
    }));
    done(&lab, &["stats", "--mark", "before-the-call"]);
    // Thursday: a call fails. Two commands find the peer and the reason.
    assert!(!opens(&lab.peer, SERVER, WRONG));
    let service = format!("{WRONG}/tcp");
    let text = done(&lab, &["drops", "--since", "change", "--known"]);
    let output = lab.pomguard(&["explain", "--drop", first_word(&text, &[&service, "port-known", "drop"])]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("port-known") && text.contains("kernel   DROP") && text.contains("near"), "{text}");
    // The counters of the time since the change, and since the mark.
    let dropped = |since: &str| {
        let stats = json(&lab, &["stats", "--since", since]);
        let reasons = stats["reasons"].as_array().unwrap().clone();
        let port = reasons.into_iter().find(|it| it["name"] == "port-known" && it["verdict"] == "drop");
        port.unwrap_or_else(|| panic!("{stats:#}"))
    };
    let (since_change, since_mark) = (dropped("change"), dropped("before-the-call"));
    assert!(since_mark["packets"].as_u64().unwrap() > 0 && since_mark["last"].is_u64(), "{since_mark:#}");
    assert!(since_change["packets"].as_u64() >= since_mark["packets"].as_u64());
    let hit = done(&lab, &["stats", "--hit", "--rows-only"]);
    assert!(hit.contains("site/seen-tcp") && !hit.contains("pom-4.0/17"), "{hit}");
    let text = done(&lab, &["stats"]);
    assert!(text.starts_with("ATTENTION") && text.contains("since the last change of policy"), "{text}");
    let output = lab.pomguard(&["stats", "--since", "nobody-set-this"]);
    assert!(said(&output).contains("marks: before-the-call"), "{}", said(&output));
    // What passes is followed, too.
    let mut command = lab.pomguard_command(&["drops", "--follow", "--all"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let passed =
        std::thread::spawn(move || lines.any(|line| line.contains("pass") && line.contains("pom-4.0/")));
    while !passed.is_finished() {
        assert!(opens(&lab.peer, SERVER, LISTED));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(passed.join().unwrap());
    // Every table fits a terminal that reports no columns.
    for words in [
        &["check"][..],
        &["plan"],
        &["history"],
        &["stats"],
        &["drops"],
        &["drops", "--peer", "10.77.0.3"],
        &["suggest", "--strangers"],
        &["status"],
        &["explain", "10.77.0.0/24", "to", "server:9970/tcp"],
    ] {
        let text = on_terminal(&mut lab.pomguard_command(words), "");
        assert!(text.lines().count() > 2, "{words:?}: {text}");
        for line in text.lines() {
            let plain = without_colour(line);
            assert!(plain.chars().count() <= 80, "{words:?}, {} columns: {plain}", plain.chars().count());
        }
    }
}

/// Errors of commands that were asked for JSON, times that nobody means, and colours of a terminal.
#[test]
fn errors_are_json_times_have_units_and_colours_can_be_off() {
    let Some(lab) = Lab::new("errors_are_json_times_have_units_and_colours_can_be_off") else { return };
    let error = |words: &[&str]| {
        let output = lab.pomguard(&[words, &["--json"]].concat());
        let whole: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{words:?} is no JSON: {}", said(&output)));
        (output.status.code(), whole["error"].as_str().unwrap_or_default().to_owned())
    };
    for words in [&["status"][..], &["stats"], &["apply"], &["confirm"], &["rollback"], &["allow", "--list"]]
    {
        let (code, text) = error(words);
        assert_eq!(code, Some(1), "{words:?}: {text}");
        assert!(text.contains("`systemctl"), "{words:?}: {text}");
        assert!(text.matches("os error").count() <= 1, "{words:?} says the cause twice: {text}");
    }
    let (code, text) = error(&["explain", "nobody", "to", "server:22/tcp"]);
    assert_eq!((code, text.contains("nobody")), (Some(2), true), "{text}");
    lab.write_site("[[row]]\nid = \"pom-4.0/999\"\n");
    assert!(error(&["plan"]).1.contains("site.toml:"), "the line of the fault");
    lab.write_site("");

    let daemon = Daemon::start(&lab);
    for words in [&["bypass", "--yes", "--for"][..], &["apply", "--confirm-within"]] {
        for (time, message) in [("15", "write it as 15s, 15m"), ("25h", "at most 1 d")] {
            let output = lab.pomguard(&[words, &[time]].concat());
            assert_eq!(output.status.code(), Some(2), "{words:?} {time}: {}", said(&output));
            assert!(said(&output).contains(message), "{words:?} {time}: {}", said(&output));
        }
    }
    done(&lab, &["allow", "10.77.0.3", "to", "22/tcp", "--for", "1h", "--why", "test", "--name", "x"]);
    let listed = on_terminal(&mut lab.pomguard_command(&["allow", "--list"]), "");
    assert!(
        listed.contains("exception/x") && listed.lines().all(|line| line.chars().count() <= 80),
        "{listed}"
    );
    let (_, text) = error(&["stats", "--since", "nobody-set-it"]);
    assert!(text.contains("stats --mark nobody-set-it") && !text.contains("os error"), "{text}");
    assert!(done(&lab, &["revoke", "exception/x"]).contains("is over"), "the id that the lists show");
    let before = done(&lab, &["bypass", "--for", "10m", "--yes", "--quiet"]);
    assert!(before.contains("bypass for 10 min, then") && before.contains("bypass --off"), "{before}");
    let status = said(&lab.pomguard(&["status"]));
    let bypass = status.lines().find(|line| line.starts_with("ATTENTION: bypass for ")).unwrap();
    assert!(bypass.contains(" min"), "{bypass}");

    // The site file has warnings and rows without an address, the bypass is an event and a condition.
    for words in [&["check"][..], &["status"], &["history", "--emergency"], &["stats"]] {
        let coloured = on_terminal(lab.pomguard_command(words).env("TERM", "xterm"), "");
        assert!(coloured.contains('\u{1b}'), "{words:?}: {coloured}");
        for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
            let plain = on_terminal(lab.pomguard_command(words).env("TERM", "xterm").env(name, value), "");
            assert!(!plain.contains('\u{1b}'), "{words:?} with {name}: {plain}");
        }
    }
    assert!(daemon.stop().success());
}

/// A name on the command line that the files do not have is wrong usage for every verb, as for `explain`.
#[test]
fn names_that_nobody_has_are_wrong_usage_for_every_verb() {
    let Some(lab) = Lab::new("names_that_nobody_has_are_wrong_usage_for_every_verb") else { return };
    let _daemon = Daemon::start(&lab);
    let code = |words: &[&str]| {
        let output = lab.pomguard(words);
        let text = said(&output);
        (output.status.code(), text)
    };
    let grant = ["--for", "1h", "--why", "x"];
    for words in [
        &["allow", "nobody", "to", "22/tcp", grant[0], grant[1], grant[2], grant[3]][..],
        &["allow", "10.77.0.3", "to", "22/tcp", grant[0], grant[1], grant[2], grant[3], "--name", "nobody's"],
        &["allow", "10.77.0.3", "to", "70000/tcp", grant[0], grant[1], grant[2], grant[3]],
        &["explain", "nobody", "to", "server:22/tcp"],
        &["explain", "10.77.0.3", "to", "server:22/tcp", "--host", "nobody"],
        &["check", "--host", "nobody"],
        &["drops", "--peer", "nobody"],
        &["suggest", "--peer", "nobody"],
        &["stats", "--since", "nobody"],
        &["explain", "--drop", "nobody"],
    ] {
        let (code, text) = code(words);
        assert_eq!(code, Some(2), "{words:?}: {text}");
        assert!(text.contains("nobody") || text.contains("70000"), "{words:?}: {text}");
    }
    let mut matrix = lab.command(pomguard_tests::daemon::binary());
    let output = matrix.args(["matrix", "list", "--matrix", "nobody"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));

    // A file with a fault is no wrong usage.
    lab.write_site("[[row]]\nid = \"pom-4.0/999\"\n");
    for words in [
        &["allow", "nobody", "to", "22/tcp", grant[0], grant[1], grant[2], grant[3]][..],
        &["check", "--host", "nobody"],
        &["drops", "--peer", "nobody"],
    ] {
        let (code, text) = code(words);
        assert_eq!(code, Some(1), "{words:?}: {text}");
        assert!(text.contains("site.toml:"), "{words:?}: {text}");
    }
}

/// Each verb that changes something answers one JSON object, a refusal too.
#[test]
fn verbs_that_change_something_answer_json() {
    let Some(lab) = Lab::new("verbs_that_change_something_answer_json") else { return };
    for words in [
        &["bypass", "--for", "1m", "--yes", "--quiet"][..],
        &["lockdown", "--off", "--yes", "--quiet"],
        &["revoke", "nobody"],
    ] {
        assert!(json(&lab, words)["error"].is_string(), "{words:?} with nothing in force");
    }
    let daemon = Daemon::start(&lab);
    let begun = json(&lab, &["bypass", "--for", "10m", "--yes", "--quiet"]);
    let held = &json(&lab, &["status"])["suspension"];
    assert_eq!(
        (&begun["suspension"]["kind"], &begun["message"]),
        (&held["kind"], &"bypass for 10 min".into())
    );
    let ends = |of: &Value| of["ends"].as_u64().unwrap();
    assert!(ends(&begun["suspension"]).abs_diff(ends(held)) <= 2, "{begun:#} {held:#}");
    let over = json(&lab, &["bypass", "--off", "--yes", "--quiet"]);
    assert!(
        over["suspension"].is_null() && over["message"].as_str().unwrap().contains("is over"),
        "{over:#}"
    );
    let refused = json(&lab, &["bypass", "--off", "--yes", "--quiet"]);
    assert!(refused["error"].as_str().unwrap().contains("neither a bypass nor a lockdown"), "{refused:#}");

    done(&lab, &["allow", "10.77.0.3", "to", "22/tcp", "--for", "1h", "--why", "test", "--name", "x"]);
    let revoked = json(&lab, &["revoke", "exception/x"]);
    assert_eq!((&revoked["name"], &revoked["message"]), (&"x".into(), &"exception/x is over".into()));
    assert!(json(&lab, &["revoke", "x"])["error"].as_str().unwrap().contains("no exception x"));

    assert!(json(&lab, &["detach"])["error"].as_str().unwrap().contains("--yes"), "nobody was asked");
    assert!(daemon.stop().success());
    let detached = json(&lab, &["detach", "--yes"]);
    assert_eq!(detached, serde_json::json!({ "detached": ["eth0"] }));
    assert_eq!(json(&lab, &["detach", "--yes"]), serde_json::json!({ "detached": [] }), "again");
}

/// Returns a line without the codes for colours.
fn without_colour(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or("", |(_, rest)| rest))
}
