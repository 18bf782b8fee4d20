use std::net::IpAddr;

use super::*;
use crate::{input::Draft, policy::resolve};

const SITE: &str = r#"
matrix = "pom-4.0"
zones = 1
[[host]]
name = "pom1"
addresses = ["10.20.0.11", "fd00:20:1::/64"]
systems = ["Agent Manager"]
[[host]]
name = "pom2"
addresses = ["10.20.0.12", "fd00:20:1::12"]
systems = ["Agent Manager"]
[[floating]]
addresses = ["10.20.0.100"]
hosts = ["pom1", "pom2"]
[[peer]]
systems = ["Agent Desktop"]
addresses = ["10.20.0.50"]
"#;

fn policy(own_addresses: OwnAddresses) -> Policy {
    let word = if own_addresses == OwnAddresses::Machine { "machine" } else { "listed" };
    let settings = format!("site = \"site.toml\"\ninterfaces = [\"eth0\"]\nown_addresses = \"{word}\"\n");
    let draft = Draft::from_texts(("pomguard.toml", &settings), ("site.toml", SITE));
    let draft = draft.unwrap_or_else(|faults| panic!("{faults}"));
    resolve(&draft, &[ip("10.20.0.11")]).unwrap_or_else(|faults| panic!("{faults}"))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn addresses(guarded: &[&str]) -> Addresses {
    let present = |text: &&str| Present { address: ip(text), interface: "eth0".into() };
    Addresses { guarded: guarded.iter().map(present).collect(), ..Addresses::default() }
}

#[test]
fn narrowest_entry_says_whose_an_address_is() {
    let policy = policy(OwnAddresses::Listed);
    assert_eq!(policy.owner(ip("10.20.0.11")), Owner::Listed);
    assert_eq!(policy.owner(ip("10.20.0.100")), Owner::Shared);
    assert_eq!(policy.owner(ip("fd00:20:1::77")), Owner::Shared);
    assert_eq!(policy.owner(ip("fd00:20:1::12")), Owner::Other("pom2"));
    assert_eq!(policy.owner(ip("10.20.0.77")), Owner::Nobody);
}

#[test]
fn floating_address_is_own_always_and_sent_from_while_held() {
    let policy = policy(OwnAddresses::Listed);
    let floating = ip("10.20.0.100");
    assert!(policy.is_own(floating) && !policy.may_send(floating));
    let holder = policy.on(&addresses(&["10.20.0.11", "10.20.0.100"]));
    assert!(holder.is_own(floating) && holder.may_send(floating));
    assert!(holder.differences(&addresses(&["10.20.0.11", "10.20.0.100"])).is_empty());
}

#[test]
fn address_of_the_machine_is_taken_only_where_the_setting_says_so_and_nobody_has_it() {
    let here = addresses(&["10.20.0.11", "10.20.0.77", "10.20.0.50", "10.20.0.12"]);
    let listed = policy(OwnAddresses::Listed).on(&here);
    assert_eq!(
        listed.machine,
        MachineAddresses { taken: vec![], held: vec![ip("10.20.0.77")], vlans: vec![] }
    );
    assert!(!listed.is_own(ip("10.20.0.77")));
    let machine = policy(OwnAddresses::Machine).on(&here);
    assert_eq!(
        machine.machine,
        MachineAddresses { taken: vec![ip("10.20.0.77")], held: vec![], vlans: vec![] }
    );
    assert!(machine.is_own(ip("10.20.0.77")) && machine.may_send(ip("10.20.0.77")));
    for of_others in ["10.20.0.50", "10.20.0.12"] {
        assert!(!machine.is_own(ip(of_others)), "{of_others}");
    }
    let found = machine.differences(&here);
    assert_eq!((found.missing.len(), found.unlisted.len(), found.conflict.len()), (0, 0, 2), "{found:?}");
    assert!(found.conflict[0].contains("10.20.0.50") && found.conflict[0].contains("Agent Desktop"));
    assert_eq!(listed.differences(&here).unlisted.len(), 1);
}

#[test]
fn missing_address_is_named_with_what_is_there_instead() {
    let policy = policy(OwnAddresses::Listed);
    let found = policy.differences(&addresses(&["10.20.0.77"]));
    assert_eq!(found.missing, ["10.20.0.11 is on no interface of this machine; eth0 has 10.20.0.77"]);
    let elsewhere = Present { address: ip("10.20.0.11"), interface: "eth9".into() };
    let found = policy.differences(&Addresses { others: vec![elsewhere], ..Addresses::default() });
    assert_eq!(found.missing, ["10.20.0.11 is on eth9, which is not guarded"]);
}

#[test]
fn addresses_beyond_the_limit_are_not_taken_and_are_named() {
    let many: Vec<String> = (0..300).map(|at| format!("10.99.{}.{}", at / 200, at % 200 + 1)).collect();
    let here = addresses(&many.iter().map(String::as_str).collect::<Vec<_>>());
    let policy = policy(OwnAddresses::Machine).on(&here);
    // One listed and one floating address leave this much room.
    assert_eq!(policy.machine.taken.len(), limits::OWN_ADDRESSES - 2);
    assert_eq!(policy.differences(&here).unlisted.len(), 300 - (limits::OWN_ADDRESSES - 2));
    assert!(crate::compile::fits(&policy).is_ok());
}

#[test]
fn other_hosts_meet_the_floating_address_of_a_system_under_its_name() {
    let policy = policy(OwnAddresses::Listed);
    let known: Vec<_> =
        policy.known.iter().filter(|known| known.prefix.contains(&ip("10.20.0.100"))).collect();
    assert_eq!(known.len(), 1);
    assert_eq!(&*known[0].name, "pom2");
}

#[test]
fn floating_addresses_that_are_held_need_no_room_and_come_before_unlisted_ones() {
    // 250 floating addresses, all held, and 100 addresses that nobody listed.
    let floating: Vec<String> = (1..=250).map(|at| format!("10.88.0.{at}")).collect();
    let others: Vec<String> = (1..=100).map(|at| format!("10.77.0.{at}")).collect();
    let mut listed = policy(OwnAddresses::Listed);
    listed.shared.extend(floating.iter().map(|address| IpNet::from(ip(address))));
    let here: Vec<&str> = others.iter().chain(&floating).map(String::as_str).collect();
    let here = addresses(&here);
    let listed = listed.on(&here);
    assert!(floating.iter().all(|address| listed.may_send(ip(address))), "a held address can send");
    assert_eq!(listed.machine.held.len(), limits::OWN_ADDRESSES);
    assert!(crate::compile::fits(&listed).is_ok());
    let machine = Policy { own_addresses: OwnAddresses::Machine, ..listed }.on(&here);
    assert!(floating.iter().all(|address| machine.may_send(ip(address))));
    // One listed address, the floating one of the site and these 250 leave 4 places.
    assert_eq!(machine.machine.taken.len(), limits::OWN_ADDRESSES - 252);
    assert!(crate::compile::fits(&machine).is_ok());
}

#[test]
fn floating_address_beyond_the_limit_is_named() {
    let many: Vec<String> = (0..300).map(|at| format!("10.88.{}.{}", at / 200, at % 200 + 1)).collect();
    let mut wide = policy(OwnAddresses::Listed);
    wide.shared.push("10.88.0.0/16".parse().unwrap());
    let here = addresses(&many.iter().map(String::as_str).collect::<Vec<_>>());
    let wide = wide.on(&here);
    assert_eq!(wide.machine.held.len(), limits::OWN_ADDRESSES);
    let found = wide.differences(&here).unlisted;
    assert_eq!(found.len(), 300 - limits::OWN_ADDRESSES);
    assert!(found[0].contains("does not send from there"), "{found:?}");
}
