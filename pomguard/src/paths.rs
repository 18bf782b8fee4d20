//! Every path that pomguard uses. The systemd unit and tmpfiles.d name the same ones.

/// The daemon's settings.
pub const SETTINGS: &str = "/etc/pomguard/pomguard.toml";
/// Pinned maps, programs and links: a folder of its own, mode 0700, below the bpffs.
pub const PINS: &str = "/sys/fs/bpf/pomguard";
/// What survives a reboot: the confirmed image, history.
pub const STATE: &str = "/var/lib/pomguard";
/// What does not: control socket, lock.
pub const RUNTIME: &str = "/run/pomguard";
