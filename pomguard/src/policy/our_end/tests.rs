use super::*;
use crate::{
    input::Draft,
    policy::{
        impact::{WayIn, goes_on},
        own::{Addresses, Present},
        resolve,
    },
};

const SITE: &str = r#"
matrix = "pom-4.0"
zones = 1
[[host]]
name = "pom1"
addresses = ["10.20.0.11"]
systems = ["Agent Manager"]
[[host]]
name = "pom2"
addresses = ["10.20.0.12"]
systems = ["Agent Manager"]
[[floating]]
addresses = ["10.20.0.100"]
hosts = ["pom1", "pom2"]
[[allow]]
name = "ssh"
from = ["10.9.0.0/24"]
to = ["pom1"]
protocol = "tcp"
ports = "22"
failsafe = true
[[allow]]
name = "web"
from = ["10.9.0.0/24"]
to = ["pom1"]
protocol = "tcp"
ports = "443"
"#;

fn policy(own_addresses: &str, here: &[&str]) -> Policy {
    let settings = format!(
        "site = \"site.toml\"\ninterfaces = [\"eth0\"]\nown_addresses = \"{own_addresses}\"\n\
         [enforcement]\ninbound = \"enforce\"\noutbound = \"enforce\"\n"
    );
    let draft = Draft::from_texts(("pomguard.toml", &settings), ("site.toml", SITE));
    let draft = draft.unwrap_or_else(|faults| panic!("{faults}"));
    let policy =
        resolve(&draft, &["10.20.0.11".parse().unwrap()]).unwrap_or_else(|faults| panic!("{faults}"));
    let present = |text: &&str| Present { address: text.parse().unwrap(), interface: "eth0".into() };
    policy.on(&Addresses { guarded: here.iter().map(present).collect(), ..Addresses::default() })
}

fn inbound(source: &str, destination: &str, destination_port: u16) -> Opening {
    Opening {
        direction: Direction::Inbound,
        source: source.parse().unwrap(),
        source_port: 50_000,
        destination: destination.parse().unwrap(),
        destination_port,
        protocol: 6,
    }
}

#[test]
fn every_kind_of_address_at_our_end_is_told_apart() {
    let policy = policy("listed", &["10.20.0.11", "10.20.0.77"]);
    let end = |destination| policy.our_end(&inbound("10.9.0.7", destination, 22));
    assert_eq!(end("10.20.0.11"), OurEnd::Own);
    assert_eq!(end("10.20.0.100"), OurEnd::Own, "packets to it are for this host, whoever holds it");
    assert_eq!(end("10.20.0.12"), OurEnd::OfOther("pom2"));
    assert_eq!(end("10.20.0.77"), OurEnd::Nobodys);
    assert_eq!(end("224.0.0.18"), OurEnd::Group);
    assert_eq!(end("255.255.255.255"), OurEnd::Group);
    assert_eq!(policy.our_end(&inbound("10.20.0.11", "10.20.0.11", 22)), OurEnd::SpoofedSource);
    let outbound =
        |source: &str| Opening { direction: Direction::Outbound, ..inbound(source, "10.9.0.7", 22) };
    assert_eq!(policy.our_end(&outbound("10.20.0.100")), OurEnd::NotHeld);
    assert_eq!(policy.our_end(&outbound("10.20.0.11")), OurEnd::Own);
}

#[test]
fn only_failsafe_rows_hold_at_an_address_of_nobody() {
    let at_77 = |port| inbound("10.9.0.7", "10.20.0.77", port);
    let listed = policy("listed", &["10.20.0.11", "10.20.0.77"]);
    assert_eq!(WayIn::under(&listed, &at_77(22)), WayIn::Failsafe);
    assert_eq!(WayIn::under(&listed, &at_77(443)), WayIn::Cut, "the row holds at listed addresses only");
    assert!(!goes_on(&listed, &at_77(443)) && goes_on(&listed, &inbound("10.9.0.7", "10.20.0.11", 443)));
    let machine = policy("machine", &["10.20.0.11", "10.20.0.77"]);
    assert_eq!(WayIn::under(&machine, &at_77(443)), WayIn::NotFailsafe, "the address is taken as own");
    assert_eq!(WayIn::under(&machine, &inbound("10.9.0.7", "10.20.0.12", 22)), WayIn::Cut);
}
