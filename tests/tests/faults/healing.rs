//! Objects that someone removes while packets come in: restored as soon as on a quiet machine.

use std::{fs, process::Command};

use aya::maps::{Array, Map, MapData};
use pomguard::kernel::interface;
use pomguard_common::{
    control::{Control, word},
    counter::RowLabel,
    names::{MAP_CONTROL, MAP_LABELS},
    text::FixedText,
};
use pomguard_tests::{
    daemon::{Daemon, INTERFACE, LISTED, Lab, MENDED, Settings, TABLES_MENDED},
    faults::{Flows, PacketCounter, THE_SERVER, THE_STRANGER, TrafficGenerator, frames, report, times},
    packet::{eth, flag},
};

/// Packets a second.
const RATE: u32 = 40_000;
/// Handle of the daemon's clsact filter.
const HANDLE: u32 = 0x706f_6d67;
/// Priority of the daemon's clsact filter.
const PRIORITY: u16 = 50;

fn opened<T: TryFrom<Map, Error = aya::maps::MapError>>(lab: &Lab, map: &str) -> T {
    let data = MapData::from_pin(lab.pins().join("maps").join(map)).unwrap();
    T::try_from(Map::from_map_data(data).unwrap()).unwrap()
}

#[test]
fn cp_05_lc_13_damage_under_a_flood_is_repaired_in_time() {
    let name = "cp_05_lc_13_damage_under_a_flood_is_repaired_in_time";
    let Some(lab) = Lab::new(name) else { return };
    lab.write_settings(&Settings { tc: "clsact", ..Settings::default() });
    let daemon = Daemon::start(&lab);
    let flows = Flows::open(&lab, 32);
    let mut counter = PacketCounter::new(&lab.server, THE_STRANGER, None);
    let flood = frames(&lab.stranger, &lab.server, |from, to| {
        vec![
            eth().ip(from, to).tcp(40_000, LISTED).flags(flag::SYN),
            eth().ip(from, to).udp(40_000, LISTED).payload(b"?"),
        ]
    })(THE_STRANGER, THE_SERVER);
    let generator = TrafficGenerator::start(&lab.stranger, flood, RATE);

    let index = lab.server.link(INTERFACE).index().unwrap();
    let filter =
        || lab.server.run(|| interface::clsact_filter(index, HANDLE, PRIORITY)).unwrap().ok().flatten();
    let (ours, pins) = (filter(), lab.pinned());
    assert!(ours.is_some());
    let mut control: Array<MapData, [u64; Control::WORDS]> = opened(&lab, MAP_CONTROL);
    let mut labels: Array<MapData, RowLabel> = opened(&lab, MAP_LABELS);
    let slot = (0..64).find(|slot| labels.get(slot, 0).unwrap().id[0] != 0).unwrap();
    let good = (control.get(&0, 0).unwrap(), labels.get(&slot, 0).unwrap());
    let (mut at_once, mut tables) = (Vec::new(), Vec::new());
    for _ in 0..times("POMGUARD_FAULT_FLOOD", 10).div_ceil(3) {
        fs::remove_file(&pins[0]).unwrap();
        at_once.push(daemon.keeps(MENDED, "the pin is back", || pins[0].exists()));
        let mut command: Command = lab.command("tc");
        let deleted = command.args(["qdisc", "del", "dev", INTERFACE, "clsact"]).status().unwrap();
        assert!(deleted.success());
        at_once.push(daemon.keeps(MENDED, "clsact and filter are back", || filter() == ours));
        let mut word = good.0;
        // There are no overrides, so the bloom filter of their ports has no effect.
        word[word::PORT_BLOOM] ^= 1;
        control.set(0, word, 0).unwrap();
        // The daemon renews other words of the map on its own.
        let bloom = || control.get(&0, 0).unwrap()[word::PORT_BLOOM];
        at_once.push(daemon.keeps(MENDED, "the word is back", || bloom() == good.0[word::PORT_BLOOM]));
        labels.set(slot, RowLabel { id: FixedText::from_bytes([b'x'; 64]), live: 0, ..good.1 }, 0).unwrap();
        tables.push(
            daemon.keeps(TABLES_MENDED, "the label is back", || labels.get(&slot, 0).unwrap() == good.1),
        );
    }
    let offered = generator.stop();
    assert_eq!(counter.heard(), 0, "denied packets got through, of {offered}");
    let fared = flows.close();
    assert!(fared.lost.is_empty(), "{:?}", fared.lost);
    let slowest = |took: &[std::time::Duration]| took.iter().max().map_or(0, std::time::Duration::as_millis);
    report(&format!(
        "{} things taken away under {offered} denied packets: back after {} ms at most, tables after {} ms, 0 of {} flows \
         lost",
        at_once.len() + tables.len(),
        slowest(&at_once),
        slowest(&tables),
        fared.flows
    ));
}
