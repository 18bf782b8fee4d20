# Runs /opt/pomguard in the root $1, in namespaces of its own. What fails ends it.
root=$1
mount --rbind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount --rbind /sys sys
mount -t bpf bpf sys/fs/bpf
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs -o mode=755 tmpfs var/lib
ip link set lo up
ip link add eth0 type veth peer name peer0
ip addr add 10.20.0.11/24 dev eth0
ip link set eth0 up
ip link set peer0 up

grep -q '^pomguard:' etc/group || echo 'pomguard:x:990:' >>etc/group
# Another module than `files` is asked for the group, as on a machine that is in a domain.
sed -i 's/^group:.*/group: files systemd/' etc/nsswitch.conf
mkdir -p etc/pomguard
cp opt/site.toml etc/pomguard/site.toml
printf 'site = "site.toml"\nhost = "pom1"\ninterfaces = ["eth0"]\n[enforcement]\ninbound = "enforce"\n' >etc/pomguard/pomguard.toml
chown -R root:root etc/pomguard && chmod -R go-w etc/pomguard
ldd=$(chroot . ldd --version | head -n 1)
echo "  $ldd"
echo "  $(chroot . /opt/pomguard --version)"
chroot . /opt/pomguard check --quiet

chroot . /opt/pomguard run >run/log 2>&1 &
daemon=$!
tries=0
until chroot . /opt/pomguard status >run/status 2>&1 || [ $? -eq 3 ]; do
  tries=$((tries + 1))
  if [ $tries -gt 120 ] || ! kill -0 $daemon 2>/dev/null; then cat run/log run/status >&2; exit 1; fi
  sleep 0.5
done
as() { chroot . setpriv --reuid 65534 --regid "$1" --clear-groups /opt/pomguard status 2>&1; }
# The members' answer is the policy; the exit code is that of `status`, 0 or 3.
as 990 >run/member || [ $? -eq 3 ] || { cat run/member >&2; exit 1; }
grep -q 'pom1' run/member || { echo 'a member of the group got no answer:'; cat run/member; } >&2
grep -q 'pom1' run/member
if as 65534 >run/stranger; then echo 'a stranger got an answer' >&2; exit 1; fi
grep -q 'only root, and members' run/stranger || { cat run/stranger >&2; exit 1; }
kill -0 $daemon
chroot . /opt/pomguard detach --yes >/dev/null
kill $daemon
wait $daemon
