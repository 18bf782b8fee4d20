//! The demo without pomguard: everything gets through, and every probe notices it.

use super::*;

/// Each form of a row, with systems that have a place in the layout.
const MATRIX: &str = r#"
[matrix]
id = "test"
[[system]]
name = "Campaign Manager"
[[system]]
name = "Agent Manager"
aliases = ["AM"]
[[system]]
name = "POMCache"
[[system]]
name = "Agent Desktop"
[[system]]
name = "Application Server"
[[system]]
name = "MPP"
[[row]]
number = 1
source = ["Campaign Manager"]
source_ports = "1024-65535"
destination = ["AM"]
ports = ["9995+zones"]
transport = ["tcp"]
printed = { ports = "9995 – maximum number of zones (C)" }
[[row]]
number = 2
source = ["Agent Desktop"]
source_ports = "1024-65535"
destination = ["Agent Manager"]
ports = ["9970", "9971+zones"]
transport = ["tcp"]
printed = { ports = "9970, 9971- maximum number of zones (C)" }
[[row]]
number = 3
source = ["POMCache"]
source_ports = "1024-65535"
destination = ["POMCache"]
ports = ["6999", "47100-47102"]
transport = ["tcp"]
printed = { ports = "6999, 47100-47102" }
[[row]]
number = 4
source = ["POMCache"]
source_ports = "1024-65535"
destination = ["POMCache"]
ports = ["6999"]
transport = ["tcp"]
printed = { ports = "6999" }
[[row]]
number = 5
source = ["Application Server"]
source_ports = "1024-65535"
destination = ["MPP"]
ports = ["10443"]
transport = ["tcp"]
printed = { ports = "10443" }
"#;

#[test]
fn a_row_becomes_all_its_ports_between_all_its_machines() {
    let matrix = Matrix::parse(MATRIX, 3).unwrap();
    let machines = layout::machines(&matrix).unwrap();
    let plan = Plan::new(&matrix, &machines);
    let tried: Vec<_> = plan.rows.iter().map(Vec::len).collect();
    // Pairs × ports × families, and one attempt from each end of the source-port range.
    assert_eq!(tried, [2 * 3 * 2 + 2, 4 * 4 * 2 + 2, 6 * 4 * 2 + 2, 6 * 2 + 2, 2 + 2]);
    assert!(plan.rows[3].iter().all(|attempt| plan.counted_under(attempt) == Some(2)));
    let listed = plan.rows.concat();
    for attempt in plan.denied.iter().flat_map(|denied| &denied.attempts) {
        assert!(!listed.contains(attempt), "{attempt:?} is listed");
    }
}

#[test]
fn a_system_without_a_place_is_named() {
    let text = MATRIX.replace("\"MPP\"", "\"Time Machine\"");
    let error = layout::machines(&Matrix::parse(&text, 3).unwrap()).unwrap_err();
    assert!(error.to_string().contains("Time Machine"), "{error}");
}

#[test]
fn alone_without_a_firewall_everything_gets_through() {
    if !pomguard_netlab::root_or_skip("alone_without_a_firewall_everything_gets_through") {
        return;
    }
    sandbox::allow_open_files().unwrap();
    let matrix = Matrix::parse(MATRIX, 3).unwrap();
    let machines = layout::machines(&matrix).unwrap();
    let plan = Plan::new(&matrix, &machines);
    let site = Site::build(&machines).unwrap();
    let progress = Progress::start();
    let trial = Trial {
        matrix: &matrix,
        machines: &machines,
        plan: &plan,
        site: &site,
        progress: &progress,
        guarded: &[],
        counters: &|_| Ok(Counters::default()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        site.listen(&plan.listening).await.unwrap();
        for row in trial.rows().await.unwrap() {
            assert!(row.wrong.is_empty() && row.passed == row.tried, "{row:?}");
        }
        let (denied, outsider) = trial.denied().await.unwrap();
        for kind in &denied {
            assert_eq!((kind.tried, kind.reached), (kind.tried, kind.tried), "{kind:?}");
            assert!(!kind.wrong.is_empty(), "it got through and nobody noticed: {kind:?}");
        }
        assert_eq!(outsider.tried, outsider.reached);
    });
}

/// The exhaustive proof of the port space reads the committed copy, which must be the site of the demo.
#[test]
fn committed_site_file_matches_the_matrix_at_three_zones() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let text = std::fs::read_to_string(format!("{root}/config/matrix/pom-4.0.toml")).unwrap();
    let matrix = Matrix::parse(&text, 3).unwrap();
    let site = files::site(&matrix, 3, &layout::machines(&matrix).unwrap()).unwrap();
    let path = format!("{root}/tests/site/demo.toml");
    if std::env::var_os("POMGUARD_BLESS").is_some() {
        std::fs::write(&path, &site).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), site, "POMGUARD_BLESS=1 writes {path}");
}
