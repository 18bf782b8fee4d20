//! Tests of addresses in the site file, and of sites of every shape.

use crate::{
    compile,
    input::{Diagnostics, Draft},
    policy::{Policy, resolve},
};

const SETTINGS: &str = include_str!("../../../../config/pomguard.toml");
const HOST: &str = "[[host]]\nname = \"pom1\"\naddresses = [\"10.20.0.11\"]\nsystems = [\"Agent Manager\"]\n";

fn read(text: &str) -> Result<Draft, Diagnostics> {
    Draft::from_texts(("pomguard.toml", SETTINGS), ("site.toml", text))
}

fn whole(tables: &str) -> String {
    format!("matrix = \"pom-4.0\"\nzones = 3\n{HOST}{tables}")
}

fn faults(tables: &str) -> Diagnostics {
    read(&whole(tables)).map(|_| ()).expect_err(tables)
}

fn on(address: &str, text: &str) -> Policy {
    let draft = read(text).unwrap_or_else(|faults| panic!("{faults}"));
    resolve(&draft, &[address.parse().expect("an address")]).unwrap_or_else(|faults| panic!("{faults}"))
}

const TWO: &str =
    "[[host]]\nname = \"both\"\naddresses = [\"10.20.0.21\", \"fd00:20::21\"]\nsystems = [\"Kafka\"]\n";

fn allow_to(to: &str) -> String {
    format!(
        "[[allow]]\nname = \"one\"\nfrom = [\"10.9.0.7\"]\nto = [\"{to}\"]\nports = \"22\"\nprotocol = \"tcp\"\n"
    )
}

#[test]
fn one_address_of_a_host_that_has_others_is_refused_with_the_form() {
    let said = faults(&format!("{TWO}{}", allow_to("10.20.0.21"))).to_string();
    assert!(
        said.contains("one address of both, which has 1 more") && said.contains("write \"both\""),
        "{said}"
    );
    let floating = "[[floating]]\naddresses = [\"10.20.0.100\"]\nhosts = [\"pom1\", \"both\"]\n";
    let said = faults(&format!("{TWO}{floating}{}", allow_to("10.20.0.100"))).to_string();
    assert!(said.contains("a floating address") && said.contains("write \"pom1\", \"both\""), "{said}");
    let said = faults(&format!("{TWO}{floating}{}", allow_to("10.20.0.11"))).to_string();
    assert!(said.contains("one address of pom1"), "a floating address is one more: {said}");
    assert!(read(&whole(&format!("{TWO}{}", allow_to("both")))).is_ok());
    assert!(read(&whole(&allow_to("10.20.0.11"))).is_ok(), "its only address is all of it");
}

#[test]
fn floating_addresses_have_hosts_and_belong_to_nobody_else() {
    let floating = |addresses: &str, hosts: &str| {
        faults(&format!("[[floating]]\naddresses = [{addresses}]\nhosts = [{hosts}]\n")).to_string()
    };
    assert!(floating("\"10.20.0.100\"", "\"nobody\"").contains("no [[host]] has this name"));
    assert!(floating("\"10.20.0.11\"", "\"pom1\"").contains("pom1 has this address already"));
    assert!(floating("\"10.20.0.0/24\"", "\"pom1\"").contains("a single address is needed"));
    assert!(floating("\"10.20.0.100\"", "\"pom1\", \"pom1\"").contains("listed twice"));
    let twice =
        faults("[[host]]\nname = \"x\"\naddresses = [\"10.20.0.11\"]\nsystems = [\"Kafka\"]\n").to_string();
    assert!(twice.contains("[[floating]]"), "who wants to share an address is told how: {twice}");
}

#[test]
fn missing_matrix_file_is_blamed_on_the_line_that_names_it() {
    let said = read("zones = 1\nmatrix = \"./not-there.toml\"\n").unwrap_err().to_string();
    assert!(said.contains("site.toml:2") && said.contains("there is no file"), "{said}");
}

#[test]
fn address_that_means_this_host_is_shown_as_the_host() {
    let prefix = |to: &str| {
        let policy = on("10.20.0.21", &whole(&format!("{TWO}{}", allow_to(to))));
        policy.rows.iter().find(|row| row.id.0 == "site/one").map(|row| row.destination.join(", "))
    };
    assert_eq!(prefix("10.20.0.0/24").as_deref(), Some("both (10.20.0.0/24)"), "fd00:20::21 is open as well");
    assert_eq!(prefix("both").as_deref(), Some("both"));
    let alone = on("10.20.0.11", &whole(&allow_to("10.20.0.0/24")));
    let row = alone.rows.iter().find(|row| row.id.0 == "site/one").expect("the row");
    assert_eq!(row.destination.join(", "), "10.20.0.0/24", "it has no other address");
}

#[test]
fn sites_of_every_shape_become_images() {
    let smallest = "matrix = \"pom-4.0\"\nzones = 1\n[[host]]\nname = \"a\"\naddresses = [\"10.0.0.1\"]\n\
                    systems = [\"Kafka\"]\n";
    let v6 = "matrix = \"pom-4.0\"\nzones = 1\n[[host]]\nname = \"a\"\naddresses = [\"fd00::1\"]\n\
              systems = [\"Agent Manager\"]\n[[peer]]\nsystems = [\"Agent Desktop\"]\naddresses = [\"fd00:50::/64\"]\n";
    let prefix = "matrix = \"pom-4.0\"\nzones = 1\n[[host]]\nname = \"a\"\naddresses = [\"fd00::/64\"]\n\
                  systems = [\"Agent Manager\"]\n";
    for (address, text) in [("10.0.0.1", smallest), ("fd00::1", v6), ("fd00::77", prefix)] {
        let policy = on(address, text);
        assert_eq!(policy.host, "a");
        compile::fits(&policy).unwrap_or_else(|error| panic!("{error}: {text}"));
    }
    assert!(on("fd00::1", v6).rows.iter().any(|row| !row.peers.is_empty()));
    let many: Vec<String> = (0..256).map(|at| format!("\"10.0.{}.{}\"", at / 250, at % 250 + 1)).collect();
    let largest = smallest.replace("\"10.0.0.1\"", &many.join(", "));
    compile::fits(&on("10.0.0.1", &largest)).expect("as many addresses as there may be");
}
