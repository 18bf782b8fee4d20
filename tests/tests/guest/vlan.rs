//! A guarded VLAN device on a guarded card: the card lets the VLAN through to the guard above.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Result, ensure};
use ipnet::IpNet;
use pomguard_netlab::{
    Namespace, Offload,
    outside::{ALLOWED, DENIED},
};
use pomguard_tests::daemon::Daemon;

use crate::{ALL, OTHER_WAY, machine::Machine, settings};

/// The card, and the VLAN device on it.
const CARD: &str = "veth-native";
const DEVICE: &str = "veth-native.100";
/// The same interfaces and the VLAN device.
const WITH_DEVICE: &[&str] = &["veth-native", "vmxnet3", "virtio_net", "bond-main", "veth-generic", DEVICE];
const ID: u16 = 100;
/// The time within which a connection opens. Emulation is slow.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time after which no answer counts as none.
const SILENCE: Duration = Duration::from_secs(1);
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 100, 1));
const KNOWN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 100, 2));

/// Names a VLAN device in the settings, which do not list the VLAN, and connects through it.
pub(crate) fn check(machine: &Machine, daemon: &Daemon) -> Result<String> {
    let (server, far) = (&machine.lab.server, machine.far_end());
    // A veth leaves tags outside of the frame, where no program sees them.
    far.link("far0").set_offload(Offload::TxVlan, false)?;
    device(server, CARD, DEVICE, SERVER)?;
    device(far, "far0", "far0.100", KNOWN)?;
    machine.write_site(&[SERVER], &[KNOWN]);
    settings(machine, ALL, OTHER_WAY);
    let message = daemon.reload();
    ensure!(
        !connects(far, ALLOWED, SILENCE)?,
        "the guard of the card serves a VLAN that nobody named: {message}"
    );
    settings(machine, WITH_DEVICE, OTHER_WAY);
    let message = daemon.reload();
    ensure!(!message.contains("FAILED") && !message.contains("refused"), "{message}");
    ensure!(connects(far, ALLOWED, PATIENCE)?, "the VLAN is cut: {}", daemon.log());
    ensure!(!connects(far, DENIED, SILENCE)?, "OPEN");
    server.link(DEVICE).delete()?;
    machine.write_site(&[], &[]);
    settings(machine, ALL, OTHER_WAY);
    let message = daemon.reload();
    ensure!(!message.contains("FAILED") && !message.contains("refused"), "{message}");
    Ok(String::new())
}

/// Returns true if the known host reaches a port of the server through the VLAN. Without an answer to ARP the kernel
/// reports an error at once.
fn connects(far: &Namespace, port: u16, within: Duration) -> Result<bool> {
    far.run(|| TcpStream::connect_timeout(&SocketAddr::new(SERVER, port), within).is_ok())
}

/// Makes a VLAN device with an address.
fn device(of: &Namespace, card: &str, name: &str, address: IpAddr) -> Result<()> {
    let link = of.add_vlan(name, &of.link(card), ID)?;
    link.add_address(IpNet::new(address, 24)?)?;
    link.up()
}
