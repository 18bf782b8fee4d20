//! Every path that pomguard uses. The systemd unit and tmpfiles.d contain the same paths.

/// The daemon's settings.
pub const SETTINGS: &str = "/etc/pomguard/pomguard.toml";
/// Pinned maps, programs and links: a separate folder, mode 0700, on the bpffs.
pub const PINS: &str = "/sys/fs/bpf/pomguard";
/// Files that survive a reboot: the confirmed image, the history.
pub const STATE: &str = "/var/lib/pomguard";
/// Files that do not survive a reboot: control socket, locks.
pub const RUNTIME: &str = "/run/pomguard";
