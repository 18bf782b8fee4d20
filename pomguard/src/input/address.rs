//! Parses addresses, prefixes and ranges strictly: a spelling that two programs could read differently is
//! refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, IpSubnets, Ipv4Subnets, Ipv6Subnets};
use smallvec::{SmallVec, smallvec};

use super::diagnostic::Fault;

/// The prefixes of an address, a prefix or a range. Nearly always one prefix, which needs no heap memory.
pub type Prefixes = SmallVec<[IpNet; 1]>;

/// Parses one address.
pub fn address(written: &str) -> Result<IpAddr, Fault> {
    if let Some((bare, _)) = written.split_once('%') {
        return Err(Fault::new(
            "an address with a zone id",
            format!("write \"{bare}\": zones differ from host to host"),
        ));
    }
    if let Ok(v4) = written.parse::<Ipv4Addr>() {
        return Ok(v4.into());
    }
    if let Ok(v6) = written.parse::<Ipv6Addr>() {
        return match v6.to_ipv4_mapped() {
            None => Ok(v6.into()),
            Some(v4) => Err(Fault::new(
                "an IPv4 address in IPv6 form, which is never on the wire",
                format!("write \"{v4}\""),
            )),
        };
    }
    Err(match without_leading_zeros(written) {
        Some(plain) => Fault::new(
            "leading zeros: some programs read them as octal",
            format!("write \"{plain}\", if decimal was meant"),
        ),
        None => Fault::new("not an IP address", "write one such as \"10.20.0.11\" or \"fd00:20::11\""),
    })
}

/// Returns a dotted quad with leading zeros as plain decimal.
fn without_leading_zeros(written: &str) -> Option<Ipv4Addr> {
    let parts: Vec<&str> = written.split('.').collect();
    let plain =
        |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u8>().ok())?;
    match parts.iter().map(plain).collect::<Option<Vec<u8>>>()?.as_slice() {
        &[a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d)),
        _ => None,
    }
}

/// Shortest prefix lengths of a server's own addresses: IPv4 and IPv6.
const WIDEST: [u8; 2] = [16, 48];

/// Parses an address or a prefix that a server of the site can have as its own.
pub fn host_addresses(written: &str) -> Result<IpNet, Fault> {
    let Some((base, length)) = written.split_once('/') else { return Ok(host_address(written)?.into()) };
    let net = prefix(base, length)?;
    host_address(base)?;
    let widest = WIDEST[usize::from(net.addr().is_ipv6())];
    if net.prefix_len() < widest {
        let problem = format!("wider than the addresses of one server can be: at least /{widest} is needed");
        return Err(Fault::new(problem, "write the prefix that this server takes its addresses from"));
    }
    Ok(net)
}

/// Parses a single address that a server of the site can have.
pub fn host_address(written: &str) -> Result<IpAddr, Fault> {
    if let Some((Ok(single), _)) = written.split_once('/').map(|(base, length)| (address(base), length)) {
        return Err(Fault::new("a prefix, where a single address is needed", format!("write \"{single}\"")));
    }
    let address = address(written)?;
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() || broadcast {
        return Err(Fault::new(
            "no address of a server on the network",
            "write the address of its interface",
        ));
    }
    Ok(address)
}

/// Returns true if the text was meant as an address, a prefix or a range, even a wrong one: no name begins so.
pub fn is_meant(written: &str) -> bool {
    let begins = |with: fn(&char) -> bool| written.starts_with(|letter: char| with(&letter));
    begins(char::is_ascii_digit)
        || (written.contains(':') && (begins(char::is_ascii_hexdigit) || written.starts_with(':')))
}

/// Parses an address, a prefix or a range into the fewest prefixes that cover exactly the same addresses.
pub fn prefixes(written: &str) -> Result<Prefixes, Fault> {
    if let Some((first, last)) = written.split_once('-') {
        range(first, last)
    } else if let Some((base, length)) = written.split_once('/') {
        Ok(smallvec![prefix(base, length)?])
    } else {
        Ok(smallvec![IpNet::from(address(written)?)])
    }
}

fn prefix(base: &str, length: &str) -> Result<IpNet, Fault> {
    let base = address(base)?;
    let longest = if base.is_ipv4() { 32 } else { 128 };
    let plain =
        length == "0" || (!length.starts_with('0') && length.bytes().all(|byte| byte.is_ascii_digit()));
    let net = match length.parse::<u8>() {
        Ok(length) if plain && length <= longest => IpNet::new(base, length).ok(),
        _ => None,
    };
    let Some(net) = net else {
        return Err(Fault::new(
            "no prefix length of this address family",
            format!("write \"{base}/N\" with N from 0 to {longest}"),
        ));
    };
    if net.network() != base {
        let problem = format!("bits are set behind the first {}", net.prefix_len());
        let remedy = format!("write \"{}\" for the network, or \"{base}\" for the one address", net.trunc());
        return Err(Fault::new(problem, remedy));
    }
    Ok(net)
}

fn range(first: &str, last: &str) -> Result<Prefixes, Fault> {
    let (first, last) = (address(first)?, address(last)?);
    if first > last && first.is_ipv4() == last.is_ipv4() {
        return Err(Fault::new("the range runs backwards", format!("write \"{last}-{first}\"")));
    }
    let subnets = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => IpSubnets::from(Ipv4Subnets::new(first, last, 0)),
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            if u128::from(last) - u128::from(first) > u128::from(u32::MAX) {
                return Err(Fault::new("more than 2^32 addresses in one range", "write it as prefixes"));
            }
            IpSubnets::from(Ipv6Subnets::new(first, last, 0))
        }
        _ => return Err(Fault::new("one end is IPv4, the other IPv6", "write one range for each family")),
    };
    Ok(subnets.collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn remedy(written: &str) -> String {
        prefixes(written).expect_err(written).to_string()
    }

    #[test]
    fn cf_03_host_bits_and_bad_lengths_are_refused_with_the_prefix() {
        assert!(remedy("10.0.0.1/8").contains("\"10.0.0.0/8\""), "{}", remedy("10.0.0.1/8"));
        assert!(remedy("fd00::1/64").contains("\"fd00::/64\""));
        for written in
            ["10.0.0.0/33", "fd00::/129", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/08", "fd00::/255.0.0.0"]
        {
            assert!(prefixes(written).is_err(), "{written}");
        }
    }

    #[test]
    fn cf_04_what_parsers_disagree_about_is_refused() {
        assert!(remedy("010.0.0.1").contains("\"10.0.0.1\""));
        assert!(remedy("::ffff:10.0.0.1").contains("\"10.0.0.1\""));
        assert!(remedy("fe80::1%eth0").contains("\"fe80::1\""));
        for written in
            ["10.1", "0x0a000001", "167772161", "１０.0.0.1", "10.0.0.1\u{a0}", " 10.0.0.1", "10.0.0.1,", ""]
        {
            assert!(prefixes(written).is_err(), "{written}");
        }
    }

    #[test]
    fn cf_05_reversed_crossing_and_boundless_ranges_are_refused() {
        assert!(remedy("10.0.0.9-10.0.0.1").contains("\"10.0.0.1-10.0.0.9\""));
        for written in
            ["10.0.0.1-fd00::1", "fd00::1-10.0.0.1", "fd00::-fd01::", "10.0.0.1-", "10.0.0.1-9", "1-2-3"]
        {
            assert!(prefixes(written).is_err(), "{written}");
        }
    }

    #[test]
    fn a_range_includes_both_ends_and_nothing_else() {
        let nets = prefixes("10.51.4.10-10.51.4.99").expect("a range");
        let covered =
            |last: u8| nets.iter().filter(|net| net.contains(&IpAddr::from([10, 51, 4, last]))).count();
        for last in 0..=255 {
            assert_eq!(covered(last), usize::from((10..=99).contains(&last)), "10.51.4.{last}");
        }
    }

    #[test]
    fn a_server_cannot_have_a_loopback_or_group_address() {
        for written in ["127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.18", "ff02::1", "255.255.255.255"] {
            assert!(host_address(written).is_err(), "{written}");
        }
    }

    /// Finds the fewest prefixes by walking down the binary tree of prefixes.
    fn naive(first: u128, last: u128, base: u128, bits: u32, out: &mut Vec<(u128, u32)>) {
        let end = if bits == 128 { u128::MAX } else { base + ((1 << bits) - 1) };
        if last < base || end < first {
        } else if first <= base && end <= last {
            out.push((base, bits));
        } else {
            naive(first, last, base, bits - 1, out);
            naive(first, last, base + (1 << (bits - 1)), bits - 1, out);
        }
    }

    proptest! {
        #[test]
        fn ranges_become_the_fewest_prefixes_that_are_exactly_them(a: u32, b: u32, high: u64) {
            let (first, last) = (a.min(b), a.max(b));
            let mut expected = Vec::new();
            naive(first.into(), last.into(), 0, 32, &mut expected);

            let text = format!("{}-{}", Ipv4Addr::from(first), Ipv4Addr::from(last));
            let v4: Vec<(u128, u32)> = prefixes(&text).expect("a range").iter().map(|net| match net {
                IpNet::V4(net) => (u32::from(net.addr()).into(), u32::from(32 - net.prefix_len())),
                IpNet::V6(_) => panic!("IPv6 from {text}"),
            }).collect();
            prop_assert_eq!(&v4, &expected);

            let top = u128::from(high) << 64 | 0x8000 << 32;
            let text = format!("{}-{}", Ipv6Addr::from(top | u128::from(first)), Ipv6Addr::from(top | u128::from(last)));
            let v6: Vec<(u128, u32)> = prefixes(&text).expect("a range").iter().map(|net| match net {
                IpNet::V6(net) => (u128::from(net.addr()) & 0xffff_ffff, u32::from(128 - net.prefix_len())),
                IpNet::V4(_) => panic!("IPv4 from {text}"),
            }).collect();
            prop_assert_eq!(&v6, &expected);
        }

        #[test]
        fn no_text_makes_the_reader_panic(written in ".{0,80}") {
            let _ = prefixes(&written);
        }

        #[test]
        fn no_text_of_address_letters_makes_the_reader_panic(written in "[0-9a-f:./%-]{0,50}") {
            let _ = prefixes(&written);
        }
    }
}
