# The life of a package, under a real systemd: install, enforce, upgrade under traffic, downgrade, remove, purge.
# $1: deb or rpm. /packages has three versions: 0.0.8 (knows an older map layout), 0.0.9 and the current one.
set -eu
kind=$1
current=$2

say() { echo "packages: $kind: $*"; }
fail() { echo "packages: $kind: FAILED: $*" >&2; exit 1; }
file_of() {
	case $kind in
	deb) echo "/packages/pomguard_$1-1_amd64.deb" ;;
	rpm) echo "/packages/pomguard-$1-1.x86_64.rpm" ;;
	esac
}
# The Debian root has none of the packages that an RPM asks for, by these names.
put() {
	case $kind in
	deb) dpkg --force-confold -i "$(file_of "$1")" ;;
	rpm) rpm -U --oldpackage --nodeps "$(file_of "$1")" ;;
	esac >/tmp/put.log 2>&1
}
put_or_fail() { put "$1" || { cat /tmp/put.log >&2; fail "$1 was not installed"; }; }
version() {
	case $kind in
	deb) dpkg-query -W -f '${Version}' pomguard | sed 's/-1$//' ;;
	rpm) rpm -q --qf '%{VERSION}' pomguard ;;
	esac
}
remove() {
	case $kind in
	deb) dpkg --remove pomguard ;;
	rpm) rpm -e pomguard ;;
	esac >/tmp/remove.log 2>&1 || { cat /tmp/remove.log >&2; fail 'the removal ended in an error'; }
}
# RPM has no purge: the commands are those of docs/packaging.md.
purge() {
	case $kind in
	deb) dpkg --purge pomguard ;;
	rpm) rm -rf /etc/pomguard /var/lib/pomguard && groupdel pomguard ;;
	esac >/tmp/purge.log 2>&1 || { cat /tmp/purge.log >&2; fail 'the purge ended in an error'; }
}
# Everything but what the package managers, the log and this script write.
files() {
	find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /vm -o -path /var/log \
		-o -path /var/lib/dpkg -o -path /var/lib/rpm -o -path /var/lib/systemd -o -path /var/cache -o -path /root \
		-o -path '/etc/group*' -o -path '/etc/gshadow*' -o -path /var/tmp \) -prune -o -print | sort
}
pid() { systemctl show --property MainPID --value pomguard; }
is() { [ "$(systemctl "$1" pomguard 2>/dev/null)" = "$2" ] || fail "$1 is not $2 $3"; }
is_pinned() { [ -n "$(ls -A /sys/fs/bpf/pomguard/links 2>/dev/null)" ]; }

# Waits for the guard; exit code 3 is attention, not a fault.
guarded() {
	tries=0
	until pomguard status >/tmp/status 2>&1 || [ $? -eq 3 ]; do
		tries=$((tries + 1))
		[ $tries -lt 120 ] || { cat /tmp/status >&2; journalctl -u pomguard | tail -n 20 >&2; fail 'it does not enforce'; }
		sleep 0.5
	done
	grep -q 'pom1' /tmp/status || { cat /tmp/status >&2; fail 'status names another host'; }
}

# The peer knocks at a denied port (nobody may ever answer) and at an allowed one (that always answers).
reach() { ip netns exec peer timeout "${2:-1}" bash -c "exec 3<>/dev/tcp/10.20.0.11/$1" 2>/dev/null; }
knock() {
	: >/tmp/denied-answered
	: >/tmp/allowed-failed
	: >/tmp/knocks
	while [ ! -e /tmp/enough ]; do
		reach 9999 0.1 && echo x >>/tmp/denied-answered
		reach 22 || echo x >>/tmp/allowed-failed
		echo x >>/tmp/knocks
	done
}
start_knocking() {
	rm -f /tmp/enough
	knock &
	knocker=$!
}
stop_knocking() {
	sleep 1.2
	touch /tmp/enough
	wait $knocker
	[ -s /tmp/knocks ] || fail "no knock during $1"
	[ ! -s /tmp/denied-answered ] || fail "a denied knock was answered during $1"
	[ ! -s /tmp/allowed-failed ] || fail "$(wc -l </tmp/allowed-failed) of $(wc -l </tmp/knocks) allowed connections failed during $1"
}

# The image leaves documents out.
rm -f /etc/dpkg/dpkg.cfg.d/*
ip link set lo up
files >/tmp/before
group_before=$(cat /etc/group)

put_or_fail 0.0.9
is is-enabled disabled 'after the installation'
is is-active inactive 'after the installation'
! is_pinned || fail 'the installation attached something'
[ "$(stat -c %a /etc/pomguard)" = 750 ] && [ "$(stat -c %a /etc/pomguard/pomguard.toml)" = 640 ] || fail 'modes below /etc'
getent group pomguard >/dev/null || fail 'no group'
[ -d /sys/fs/bpf/pomguard ] || fail 'no folder for the pins'
for path in /usr/share/man/man8/pomguard.8.gz /usr/share/man/man5/site.toml.5.gz /usr/share/man/man5/pomguard.toml.5.gz /usr/share/man/man8/pomguard-apply.8.gz /usr/share/bash-completion/completions/pomguard \
	/usr/share/pomguard/matrix/pom-4.0.toml /usr/share/pomguard/prometheus/pomguard.rules.yml /usr/share/pomguard/grafana/pomguard.json \
	/usr/share/doc/pomguard/pomguard.cdx.json /usr/share/selinux/packages/pomguard.pp /usr/lib/modules-load.d/pomguard.conf; do
	[ -s "$path" ] || fail "no $path"
done
man -w pomguard-status >/dev/null || fail 'man does not find a page'
for unit in pomguard pomguard-exporter; do
	said=$(systemd-analyze verify --man=yes $unit.service 2>&1) && [ -z "$said" ] || fail "systemd-analyze verify: $said"
done
say 'installed: nothing started, nothing attached'

# An operator's machine.
ip link add eth0 type veth peer name peer0
ip netns add peer
ip link set peer0 netns peer
ip addr add 10.20.0.11/24 dev eth0
ip link set eth0 up
ip route add default via 10.20.0.1
ip -n peer addr add 10.9.0.5/24 dev peer0
ip -n peer addr add 10.20.0.1/24 dev peer0
ip -n peer link set peer0 up
ip -n peer route add 10.20.0.11/32 dev peer0 src 10.9.0.5
for port in 22 9999; do
	printf '[Socket]\nListenStream=10.20.0.11:%s\nFreeBind=yes\nAccept=yes\nMaxConnections=1000\nTriggerLimitBurst=0\n' $port >/run/systemd/system/knock$port.socket
	printf '[Service]\nExecStart=/bin/true\nStandardInput=socket\n' >/run/systemd/system/knock$port@.service
done
systemctl daemon-reload
systemctl start knock22.socket knock9999.socket
reach 9999 && reach 22 || fail 'the ports are not open before anything is enforced'
cp /etc/pomguard/site.example.toml /etc/pomguard/site.toml
printf '# mine\nsite = "site.toml"\nhost = "pom1"\ninterfaces = ["eth0"]\n[enforcement]\ninbound = "enforce"\n' >/etc/pomguard/pomguard.toml
pomguard check --quiet || fail 'check refuses the files'
systemctl enable --quiet --now pomguard
guarded
reach 22 || fail 'an allowed port does not answer'
! reach 9999 || fail 'a denied port answers'
say 'enforces'

before=$(pid)
start_knocking
put_or_fail "$current"
stop_knocking 'an upgrade'
[ "$(pid)" != "$before" ] || fail 'the upgrade did not restart what ran'
guarded
is is-active active 'after an upgrade'
is is-enabled enabled 'after an upgrade'
grep -q '^# mine$' /etc/pomguard/pomguard.toml || fail 'the upgrade replaced pomguard.toml'
say "upgraded under $(wc -l </tmp/knocks) knocks: none denied was answered, none allowed failed"

start_knocking
put_or_fail 0.0.9
stop_knocking 'a downgrade of the same layout'
guarded
[ "$(version)" = 0.0.9 ] || fail 'the downgrade is not there'
put_or_fail "$current"
guarded
say 'downgraded to a version of the same map layout, and back'

before=$(pid)
if put 0.0.8; then fail 'a step back over a change of layout was taken'; fi
grep -q 'detach --yes' /tmp/put.log || { cat /tmp/put.log >&2; fail 'the refusal does not say how'; }
[ "$(version)" = "$current" ] && [ "$(pid)" = "$before" ] || fail 'a refused downgrade changed something'
is is-active active 'after a refused downgrade'
export POMGUARD_DOWNGRADE=yes
put_or_fail 0.0.8
unset POMGUARD_DOWNGRADE
guarded
put_or_fail "$current"
guarded
say 'refused a step back over a change of layout, and took it when told to'

systemctl stop pomguard
put_or_fail 0.0.9
is is-active inactive 'after the upgrade of a stopped service'
! reach 9999 || fail 'a stopped service lets a denied port answer'
put_or_fail "$current"
systemctl start pomguard
guarded

remove
grep -q 'STAYS GUARDED' /tmp/remove.log && grep -q 'detach --yes' /tmp/remove.log || { cat /tmp/remove.log >&2; fail 'the removal is silent'; }
is is-active inactive 'after the removal'
is_pinned || fail 'the removal took the programs off'
! reach 9999 || fail 'the removal opened the host'
reach 22 || fail 'the removal closed the host'
grep -qs '^# mine$' /etc/pomguard/pomguard.toml* || fail 'the removal lost the settings'
say 'removed: the host stays guarded, and the removal says so'

put_or_fail "$current"
is is-active inactive 'after the second installation'
cp -n /etc/pomguard/pomguard.toml.rpmsave /etc/pomguard/pomguard.toml 2>/dev/null || :
pomguard detach --yes >/dev/null
reach 9999 || fail 'detach did not open the host'
remove
! grep -q 'STAYS GUARDED' /tmp/remove.log || fail 'the removal of a detached guard warns'
purge
! is_pinned || fail 'pins are left'
files >/tmp/after
# Folders that several packages share; an RPM that lists files leaves them to their owners, which this root has not.
shared='/usr/share/(licenses|fish|fish/vendor_completions\.d|selinux|selinux/packages|man/man5|man/man8|zsh|zsh/site-functions)'
grep -vxE "$shared" /tmp/before >/tmp/before.own
grep -vxE "$shared" /tmp/after >/tmp/after.own
diff /tmp/before.own /tmp/after.own >/tmp/left || { cat /tmp/left >&2; fail 'the purge left files'; }
! getent group pomguard >/dev/null || fail 'the purge left the group'
[ "$(cat /etc/group)" = "$group_before" ] || fail 'the purge left /etc/group changed'
[ ! -e /run/pomguard ] || fail 'the purge left /run/pomguard'
say 'purged: nothing is left'
