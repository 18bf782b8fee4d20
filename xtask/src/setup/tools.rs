//! The tools that can be installed: the check for each, and the packages.

use anyhow::Result;
use pomguard_workspace::process;

use super::{cargo_tools, distribution::Distribution};
use crate::{
    ebpf::{Compiler, Toolchain},
    lint,
};

/// A tool that a command of xtask needs and a machine may lack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tool {
    BpfCompiler,
    BpfClippy,
    BpfLinker,
    OtherKernels,
    Container,
    Network,
    Strace,
    Faketime,
    Filters,
    Promtool,
    SystemdAnalyze,
    Ansible,
    Packaging,
    PackageLints,
    CargoDeny,
    CargoFuzz,
}

impl Tool {
    /// All tools, in the order of their installation.
    pub(crate) const ALL: [Self; 16] = [
        Self::BpfCompiler,
        Self::BpfClippy,
        Self::BpfLinker,
        Self::OtherKernels,
        Self::Container,
        Self::Network,
        Self::Strace,
        Self::Faketime,
        Self::Filters,
        Self::Promtool,
        Self::SystemdAnalyze,
        Self::Ansible,
        Self::Packaging,
        Self::PackageLints,
        Self::CargoDeny,
        Self::CargoFuzz,
    ];

    /// Returns the name of the tool.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BpfCompiler => "BPF compiler",
            Self::BpfClippy => "BPF clippy",
            Self::BpfLinker => "BPF linker",
            Self::OtherKernels => "QEMU",
            Self::Container => "container",
            Self::Network => "network tools",
            Self::Strace => "strace",
            Self::Faketime => "faketime",
            Self::Filters => "filters",
            Self::Promtool => "promtool",
            Self::SystemdAnalyze => "systemd",
            Self::Ansible => "ansible",
            Self::Packaging => "packaging",
            Self::PackageLints => "package lints",
            Self::CargoDeny => "cargo-deny",
            Self::CargoFuzz => "cargo-fuzz",
        }
    }

    /// Returns the purpose of the tool.
    pub(crate) fn purpose(self) -> &'static str {
        match self {
            Self::BpfCompiler => "compiles the BPF programs",
            Self::BpfClippy => "checks the BPF programs as they are compiled",
            Self::BpfLinker => "builds the eBPF object from source",
            Self::OtherKernels => "boots other kernels for the in-kernel tests",
            Self::Container => "runs the unit under a real systemd",
            Self::Network => {
                "what an operator does, an independent look, and programs that move addresses: ip, tc, nmap, \
                 keepalived, radvd, dnsmasq"
            }
            Self::Strace => "kills the daemon at, or refuses it, one system call of the tests' choice",
            Self::Faketime => "steps the wall clock of one daemon",
            Self::Filters => "what the bench compares with: nftables, iptables, ipset, xdp-filter",
            Self::Promtool => "checks the metrics page and the alert rules",
            Self::SystemdAnalyze => "scores the unit's hardening",
            Self::Ansible => "runs the playbook in check mode",
            Self::Packaging => "makes the RPM, the deb, the SELinux module and the bill of materials",
            Self::PackageLints => "judges the RPM and the deb",
            Self::CargoDeny => "checks licences and sources of the dependencies",
            Self::CargoFuzz => "runs the coverage-guided fuzz targets",
        }
    }

    /// Returns true if the tool is completely installed.
    pub(crate) fn is_here(self) -> bool {
        match self {
            Self::BpfCompiler => Compiler::find().is_ok(),
            Self::BpfClippy => Compiler::find().is_ok_and(|compiler| lint::has_clippy_bpf(&compiler)),
            Self::BpfLinker => Toolchain::find().is_ok(),
            _ => self.programs().iter().all(|program| process::find(program).is_some()),
        }
    }

    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::BpfCompiler | Self::BpfClippy | Self::BpfLinker => &[],
            Self::OtherKernels => {
                &["qemu-system-x86_64", "qemu-img", "busybox", "cpio", "modprobe", "xz", "zstd"]
            }
            Self::Container => &["systemd-nspawn", "mmdebstrap", "mkfs.ext4"],
            Self::Network => &[
                "ip",
                "tc",
                "ethtool",
                "bpftool",
                "nft",
                "nmap",
                "keepalived",
                "radvd",
                "dnsmasq",
                "busybox",
            ],
            Self::Strace => &["strace"],
            Self::Faketime => &["faketime"],
            Self::Filters => &["nft", "iptables-restore", "ip6tables-restore", "ipset", "xdp-filter"],
            Self::Promtool => &["promtool"],
            Self::SystemdAnalyze => &["systemd-analyze"],
            Self::Ansible => &["ansible-playbook"],
            Self::Packaging => &[
                "cargo-generate-rpm",
                "cargo-deb",
                "cargo-cyclonedx",
                "checkmodule",
                "semodule_package",
                "gzip",
            ],
            Self::PackageLints => &["rpm", "rpmlint", "lintian"],
            Self::CargoDeny => &["cargo-deny"],
            Self::CargoFuzz => &["cargo-fuzz", "g++"],
        }
    }

    /// Returns the packages of the tool, or the packages that compiling it needs.
    pub(crate) fn packages(self, distribution: Distribution) -> &'static [&'static str] {
        match (self, distribution) {
            (Self::BpfCompiler, Distribution::Apt) => &["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"],
            (Self::BpfCompiler | Self::CargoFuzz, Distribution::Dnf) => &["gcc-c++"],
            // The libraries of the compiler's LLVM follow when its version is known.
            (Self::BpfLinker, Distribution::Apt) => &["libzstd-dev", "zlib1g-dev", "g++"],
            (Self::BpfLinker, Distribution::Dnf) => &["gcc-c++", "llvm-devel", "libzstd-devel", "zlib-devel"],
            (Self::BpfClippy, Distribution::Apt) => &["rust-web-clippy"],
            (Self::OtherKernels, Distribution::Apt) => {
                &["qemu-system-x86", "qemu-utils", "busybox-static", "cpio", "kmod", "xz-utils", "zstd"]
            }
            (Self::OtherKernels, Distribution::Dnf) => {
                &["qemu-kvm", "qemu-img", "busybox", "cpio", "kmod", "xz", "zstd"]
            }
            // The container is a Debian, made by Debian's tool, which Fedora has, too.
            (Self::Container, _) => &["systemd-container", "mmdebstrap", "e2fsprogs"],
            (Self::Network, Distribution::Apt) => &[
                "iproute2",
                "ethtool",
                "bpftool",
                "nftables",
                "nmap",
                "keepalived",
                "radvd",
                "dnsmasq-base",
                "busybox-static",
            ],
            (Self::Network, Distribution::Dnf) => &[
                "iproute",
                "iproute-tc",
                "ethtool",
                "bpftool",
                "nftables",
                "nmap",
                "keepalived",
                "radvd",
                "dnsmasq",
                "busybox",
            ],
            (Self::Strace, _) => &["strace"],
            (Self::Faketime, Distribution::Apt) => &["faketime"],
            (Self::Faketime, Distribution::Dnf) => &["libfaketime"],
            (Self::Filters, Distribution::Apt) => &["nftables", "iptables", "ipset", "xdp-tools"],
            (Self::Filters, Distribution::Dnf) => &["nftables", "iptables-nft", "ipset", "xdp-tools"],
            (Self::Promtool, Distribution::Apt) => &["prometheus"],
            (Self::Promtool, Distribution::Dnf) => &["golang-github-prometheus"],
            (Self::SystemdAnalyze, _) => &["systemd"],
            (Self::Ansible, _) => &["ansible-core"],
            (Self::Packaging, Distribution::Apt) => &["checkpolicy", "semodule-utils", "gzip"],
            (Self::Packaging, Distribution::Dnf) => &["checkpolicy", "policycoreutils", "gzip"],
            (Self::PackageLints, Distribution::Apt) => &["rpm", "rpmlint", "lintian"],
            (Self::PackageLints, Distribution::Dnf) => &["rpm", "rpmlint"],
            // These tools come with rustup's nightly, or are compiled.
            (Self::BpfClippy, Distribution::Dnf) | (Self::CargoDeny, _) => &[],
            // libFuzzer is C++.
            (Self::CargoFuzz, Distribution::Apt) => &["g++"],
        }
    }

    /// Compiles a tool that is not in packages.
    pub(crate) fn compile(self, distribution: Distribution) -> Result<()> {
        match (self, distribution) {
            (Self::BpfCompiler, Distribution::Dnf) => cargo_tools::nightly(),
            (Self::BpfLinker, Distribution::Apt) => cargo_tools::linker_for_packaged_compiler(distribution),
            (Self::BpfLinker, Distribution::Dnf) => cargo_tools::linker(),
            (Self::Packaging, _) => cargo_tools::packaging(),
            (Self::CargoDeny, _) => cargo_tools::deny(),
            (Self::CargoFuzz, _) => cargo_tools::fuzz(),
            _ => Ok(()),
        }
    }
}
