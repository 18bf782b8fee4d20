//! Compares random policies with the oracle, at every edge.

use proptest::prelude::*;

use super::*;

/// Lengths close enough to be folded, from every address down to a single address.
const LENGTHS_V6: [u8; 20] =
    [0, 3, 16, 20, 32, 40, 44, 47, 48, 49, 52, 56, 60, 62, 64, 112, 120, 124, 126, 128];

fn prefix_v4() -> impl Strategy<Value = IpNet> {
    let base = prop_oneof![
        3 => Just([10, 50, 0, 0]),
        2 => Just([10, 50, 255, 255]),
        1 => Just([192, 168, 4, 7]),
        1 => any::<[u8; 4]>(),
    ];
    let length = prop_oneof![4 => 24_u8..=32, 2 => 14_u8..24, 1 => 0_u8..=32];
    (base, 0_u32..64, length).prop_map(|(base, more, length)| {
        let address = u32::from(Ipv4Addr::from(base)) ^ more;
        IpNet::new(IpAddr::V4(address.into()), length).expect("a length").trunc()
    })
}

fn prefix_v6() -> impl Strategy<Value = IpNet> {
    let base = prop_oneof![
        3 => Just(0xfd00_0050_0000_0000_0000_0000_0000_0000_u128),
        1 => Just(0xfd00_0050_0000_0001_0000_0000_0000_00ff_u128),
        1 => Just(0x2001_0db8_ffff_ffff_ffff_ffff_ffff_fff0_u128),
    ];
    (base, 0_u128..64, 0_u32..5, prop::sample::select(LENGTHS_V6.to_vec())).prop_map(
        |(base, more, at, length)| {
            let address = base ^ more << (at * 16);
            IpNet::new(IpAddr::V6(address.into()), length).expect("a length").trunc()
        },
    )
}

fn prefix() -> impl Strategy<Value = IpNet> {
    prop_oneof![3 => prefix_v4(), 2 => prefix_v6()]
}

fn range() -> impl Strategy<Value = PortRange> {
    let near = prop_oneof![
        4 => 9_990_u16..10_030,
        1 => Just(0),
        1 => Just(u16::MAX),
        1 => any::<u16>(),
    ];
    let width = prop_oneof![3 => Just(0_u16), 3 => 0_u16..40, 1 => any::<u16>()];
    (near, width).prop_map(|(first, width)| PortRange { first, last: first.saturating_add(width) })
}

fn client() -> impl Strategy<Value = PortRange> {
    prop_oneof![
        5 => Just(PortRange { first: 1_024, last: u16::MAX }),
        2 => Just(PortRange::ANY),
        1 => Just(PortRange { first: 5_060, last: 5_061 }),
        1 => Just(PortRange { first: 1_000, last: 5_060 }),
    ]
}

fn any_row() -> impl Strategy<Value = Row> {
    let ported = (prop::collection::vec((prop_oneof![Just(6_u8), Just(17)], range()), 0..5), client())
        .prop_map(|(services, client)| {
            let services = services.into_iter().map(|(protocol, ports)| Service { protocol, ports });
            (services.collect::<Vec<_>>(), client)
        });
    let portless = prop::collection::vec(prop_oneof![Just(1_u8), Just(58), Just(112), any::<u8>()], 1..3)
        .prop_map(|numbers| {
            let other = numbers.into_iter().map(|number| if matches!(number, 6 | 17) { 1 } else { number });
            let services = other.map(|protocol| Service { protocol, ports: PortRange::ANY });
            (services.collect::<Vec<_>>(), PortRange::ANY)
        });
    (
        prop_oneof![Just(Direction::Inbound), Just(Direction::Outbound)],
        prop::collection::vec(prefix(), 0..6),
        prop_oneof![5 => ported.boxed(), 1 => portless.boxed()],
        prop::sample::select(vec![(true, Mode::Enforce), (false, Mode::Enforce), (false, Mode::Audit)]),
    )
        .prop_map(|(direction, peers, (services, client_ports), (failsafe, mode))| Row {
            client_ports,
            mode,
            failsafe,
            ..row("", direction, &peers, &services)
        })
}

fn any_policy() -> impl Strategy<Value = Policy> {
    (prop::collection::vec(any_row(), 0..20), prop::collection::vec(prefix(), 0..10)).prop_map(
        |(mut rows, known)| {
            for (row, number) in rows.iter_mut().zip(1..) {
                row.id = RowId(format!("test-1/{number}"));
            }
            let known = known.into_iter().map(|prefix| Known { prefix, name: prefix.to_string().into() });
            Policy { known: known.collect(), ..policy(rows) }
        },
    )
}

/// Returns the numbers around the edges of a range.
fn around(range: PortRange) -> [u16; 4] {
    [range.first.wrapping_sub(1), range.first, range.last, range.last.wrapping_add(1)]
}

/// All edges of a policy: addresses, (protocol, port), client ports.
struct Edges {
    addresses: Vec<IpAddr>,
    services: Vec<(u8, u16)>,
    clients: Vec<u16>,
}

impl Edges {
    fn of(policy: &Policy) -> Self {
        let peers = policy.rows.iter().flat_map(|row| row.peers.iter().map(|peer| peer.prefix));
        let prefixes = peers.chain(policy.known.iter().map(|known| known.prefix));
        let mut addresses: Vec<IpAddr> = prefixes.flat_map(edges).collect();
        addresses.push(IpAddr::from([203, 0, 113, 9]));
        let mut services = vec![(6, 443), (1, 0), (47, 0)];
        let mut clients = vec![0, 1_023, 1_024, 40_000];
        for row in &policy.rows {
            clients.extend(around(row.client_ports));
            for service in &row.services {
                match service.protocol {
                    protocol @ (6 | 17) => {
                        services.extend(around(service.ports).map(|port| (protocol, port)));
                        services.push((6 + 17 - protocol, service.ports.first));
                    }
                    other => services.extend([(other, 0), (other.wrapping_add(1), 0)]),
                }
            }
        }
        Self { addresses, services, clients }
    }

    fn opening(&self, (direction, address, service, client): (bool, usize, usize, usize)) -> Opening {
        let direction = if direction { Direction::Inbound } else { Direction::Outbound };
        let (protocol, port) = self.services[service % self.services.len()];
        let client = if matches!(protocol, 6 | 17) { self.clients[client % self.clients.len()] } else { 0 };
        opening(direction, self.addresses[address % self.addresses.len()], protocol, port, client)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_image_answers_as_the_policy_does(
        policy in any_policy(),
        picks in prop::collection::vec(any::<(bool, usize, usize, usize)>(), 600),
    ) {
        let slots = slots(&policy);
        let image = match compile(&policy, &slots, CLOCK, 1) {
            Ok(image) => image,
            // Five or more client-port ranges for one pair cannot occur here: there are four.
            // Many failsafe rows of many peers can be too many tuples.
            Err(CompileError::PrefixLengths { .. } | CompileError::Overrides { .. }) => return Ok(()),
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        let edges = Edges::of(&policy);
        for address in &edges.addresses {
            prop_assert_eq!(class(&image, *address).known(), is_known(&policy, *address), "{}", address);
        }
        for pick in picks {
            let opening = edges.opening(pick);
            let difference = difference(&policy, &image, &slots, &opening);
            prop_assert!(difference.is_none(), "{}", difference.unwrap_or_default());
        }
    }

    #[test]
    fn equal_policies_compile_to_equal_bytes(policy in any_policy()) {
        let slots = slots(&policy);
        let one = compile(&policy, &slots, CLOCK, 7);
        let other = compile(&policy.clone(), &slots.clone(), CLOCK, 7);
        prop_assert_eq!(one, other);
    }
}
