use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use super::*;
use crate::observe::{
    exposition::classic,
    golden::{assert_golden, assert_repository_file, repository},
    sample,
};

fn sample_page() -> String {
    page(sample::snapshot(), sample::daemon()).unwrap()
}

/// Returns the metric names that a file mentions.
fn names_in(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("pomguard_"))
        .collect()
}

#[test]
fn the_page_is_the_one_that_was_looked_at() {
    let page = sample_page();
    assert_golden("metrics.openmetrics.txt", &page);
    assert_golden("metrics.classic.txt", &classic(&page));
}

#[test]
fn page_has_every_listed_metric_with_its_labels_and_no_other() {
    let page = sample_page();
    let mut shown = BTreeSet::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let family = family::ALL.iter().find(|family| family.name == name);
        let family = family.unwrap_or_else(|| panic!("{name} is in the list"));
        for label in family.labels {
            assert!(line.contains(&format!("{label}=\"")), "{line} has the label {label}");
        }
        shown.insert(name);
    }
    assert_eq!(shown, family::ALL.iter().map(|family| family.name).collect());
    assert!(page.ends_with("# EOF\n"));
}

#[test]
fn every_reason_is_there_at_zero_before_it_occurs() {
    let page = page(sample::quiet(), sample::daemon()).unwrap();
    for reason in Reason::ALL {
        for direction in Direction::ALL {
            let verdict = reason.verdict().name();
            let (direction, name) = (direction.name(), reason.name());
            let line = format!(
                "pomguard_packets_total{{direction=\"{direction}\",verdict=\"{verdict}\",reason=\"{name}\"}} 0\n"
            );
            assert!(page.contains(&line), "{line}");
        }
    }
    for outcome in ["drop", "audit"] {
        assert!(page.contains(&format!(
            "pomguard_known_system_drops_total{{direction=\"inbound\",outcome=\"{outcome}\"}} 0\n"
        )));
    }
}

#[test]
fn a_reason_that_only_a_newer_kernel_side_names_is_counted_too() {
    let mut snapshot = sample::snapshot();
    snapshot.reasons[0].name = "from-the-future".to_owned();
    let page = page(snapshot, sample::daemon()).unwrap();
    assert!(page.contains("verdict=\"pass\",reason=\"from-the-future\"} 19651515\n"));
}

#[test]
fn drops_of_known_systems_are_summed_over_their_reasons() {
    let page = sample_page();
    assert!(page.contains("pomguard_known_system_drops_total{direction=\"inbound\",outcome=\"drop\"} 12\n"));
    assert!(page.contains("pomguard_known_system_drops_total{direction=\"inbound\",outcome=\"audit\"} 3\n"));
}

#[test]
fn balance_that_is_off_shows_by_how_much_and_which_way() {
    let mut snapshot = sample::snapshot();
    snapshot.totals[0].seen += 5;
    snapshot.totals[1].seen -= 2;
    let page = page(snapshot, sample::daemon()).unwrap();
    assert!(page.contains("pomguard_accounting_mismatch_packets{direction=\"inbound\"} 5\n"));
    assert!(page.contains("pomguard_accounting_mismatch_packets{direction=\"outbound\"} -2\n"));
}

#[test]
fn an_image_that_the_daemon_did_not_install_is_told_apart() {
    let mut snapshot = sample::snapshot();
    assert!(page(snapshot.clone(), sample::daemon()).unwrap().contains("pomguard_policy_in_sync 1\n"));
    snapshot.image.replace_range(..1, "0");
    assert!(page(snapshot.clone(), sample::daemon()).unwrap().contains("pomguard_policy_in_sync 0\n"));
    let before = DaemonState { installed: None, ..sample::daemon() };
    assert!(!page(snapshot, before).unwrap().contains("pomguard_policy_in_sync"));
}

/// CP-06.
#[test]
fn an_odd_row_name_breaks_neither_line_nor_label() {
    let mut snapshot = sample::snapshot();
    snapshot.rows.truncate(1);
    snapshot.rows[0].id.0 = "site/a\n\"b\\c\u{1b}[31m} 9".to_owned();
    snapshot.rows[0].source = "x".repeat(10_000);
    let page = page(snapshot, sample::daemon()).unwrap();
    let line = page.lines().find(|line| line.starts_with("pomguard_row_in_force{")).unwrap();
    assert_eq!(
        line,
        r#"pomguard_row_in_force{row="site/a\\n\"b\\\\c\\u{1b}[31m} 9",direction="inbound"} 1"#
            .replace(r"b\\\\c", r"b\\c")
    );
    assert!(!page.contains('\u{1b}'));
    check_with_promtool(&page);
}

#[test]
fn promtool_finds_nothing_to_say_about_the_page() {
    check_with_promtool(&sample_page());
    check_with_promtool(&page(sample::quiet(), DaemonState::default()).unwrap());
}

#[test]
fn values_beyond_the_format_are_cut_and_the_page_stays() {
    let mut snapshot = sample::snapshot();
    snapshot.counting_since = u64::MAX;
    snapshot.totals[0].seen = u64::MAX;
    let page = page(snapshot, sample::daemon()).unwrap();
    assert!(page.contains(&format!("pomguard_counting_since_timestamp_seconds {}\n", i64::MAX)));
    assert!(page.contains(&format!("pomguard_seen_packets_total{{direction=\"inbound\"}} {}\n", u64::MAX)));
}

#[test]
fn the_documentation_lists_every_metric() {
    let mut table = String::from("| metric | kind | labels | meaning |\n| --- | --- | --- | --- |\n");
    for MetricFamily { name, kind, labels, help } in family::ALL {
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(table, "| `{name}` | {} | {} | {help} |", kind.name(), labels.join(", ")).unwrap();
    }
    let mut reasons = String::from("| reason | verdict | meaning |\n| --- | --- | --- |\n");
    for reason in Reason::ALL {
        let alarm = if reason.concerns_known_system() { " **Known system.**" } else { "" };
        let (name, verdict) = (reason.name(), reason.verdict().name());
        writeln!(reasons, "| `{name}` | {verdict} | {}{alarm} |", reason.help()).unwrap();
    }
    let kept = fs::read_to_string(repository("docs/metrics.md")).unwrap();
    let text = between(&kept, "metrics", &table);
    let text = between(&text, "reasons", &reasons);
    assert_repository_file("docs/metrics.md", &text);
}

/// Returns `text` with the part between the two marks of that name replaced.
fn between(text: &str, mark: &str, new: &str) -> String {
    let (begin, end) = (format!("<!-- {mark}: begin -->\n"), format!("<!-- {mark}: end -->"));
    let (head, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{begin}"));
    let (_, tail) = rest.split_once(&end).unwrap_or_else(|| panic!("{end}"));
    format!("{head}{begin}{new}{end}{tail}")
}

#[test]
fn alert_rules_and_dashboard_use_only_existing_metrics() {
    let names: BTreeSet<_> = family::ALL.iter().map(|family| family.name).collect();
    for file in [
        "config/prometheus/pomguard.rules.yml",
        "config/prometheus/pomguard.test.yml",
        "config/grafana/pomguard.json",
    ] {
        let text = fs::read_to_string(repository(file)).unwrap();
        let asked = names_in(&text);
        assert!(!asked.is_empty(), "{file} asks for something");
        let unknown: Vec<_> = asked.difference(&names).collect();
        assert!(unknown.is_empty(), "{file} asks for {unknown:?}");
    }
}

#[test]
fn the_documentation_lists_every_alert() {
    let rules = fs::read_to_string(repository("config/prometheus/pomguard.rules.yml")).unwrap();
    let docs = fs::read_to_string(repository("docs/metrics.md")).unwrap();
    let alerts: BTreeSet<_> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let described: BTreeSet<_> =
        docs.lines().filter_map(|line| line.strip_prefix("| `Pomguard")?.split('`').next()).collect();
    let described: BTreeSet<_> = described.iter().map(|name| format!("Pomguard{name}")).collect();
    assert_eq!(alerts, described.iter().map(String::as_str).collect());
}

#[test]
fn the_dashboard_is_one_that_grafana_can_read() {
    let text = fs::read_to_string(repository("config/grafana/pomguard.json")).unwrap();
    let board: serde_json::Value = serde_json::from_str(&text).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut rules = String::from("groups:\n  - name: panels\n    rules:\n");
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "panel ids are distinct");
        assert!(panel["gridPos"]["w"].as_u64().unwrap() + panel["gridPos"]["x"].as_u64().unwrap() <= 24);
        if panel["type"] != "row" {
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{} shows something", panel["title"]);
            for (number, target) in targets.iter().enumerate() {
                let query = target["expr"].as_str().unwrap();
                let query = query.replace("$__rate_interval", "5m").replace("$__range", "1h");
                let query = serde_json::to_string(&query).unwrap();
                writeln!(rules, "      - record: panel:{}:{number}\n        expr: {query}", panel["id"])
                    .unwrap();
            }
        }
    }
    // Prometheus can parse every query, once Grafana has filled in the intervals.
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("panels.yml"), rules).unwrap();
    promtool(&["check", "rules", "panels.yml"], "", Some(folder.path()));
}

#[test]
fn promtool_accepts_the_alert_rules_and_their_tests() {
    let folder = repository("config/prometheus");
    promtool(&["check", "rules", "pomguard.rules.yml"], "", Some(&folder));
    promtool(&["test", "rules", "pomguard.test.yml"], "", Some(&folder));
}

fn check_with_promtool(page: &str) {
    promtool(&["check", "metrics"], &classic(page), None);
}

/// Runs promtool, which Debian's package `prometheus` contains; prints a note and continues if promtool is
/// missing.
fn promtool(arguments: &[&str], input: &str, folder: Option<&std::path::Path>) {
    let child = Command::new("promtool")
        .args(arguments)
        .current_dir(folder.unwrap_or(std::path::Path::new(".")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("not run: promtool is not installed");
            return;
        }
        child => child.unwrap(),
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    if arguments == ["check", "metrics"] {
        assert!(said.trim().is_empty(), "promtool {arguments:?}: {said}");
    }
}
