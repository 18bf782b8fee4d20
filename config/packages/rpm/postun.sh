# Tells systemd. What the operator wrote, the state and the group stay: RPM has no purge.
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || :
fi
if [ "$1" -eq 0 ]; then
	rm -rf /run/pomguard
	rmdir /sys/fs/bpf/pomguard 2>/dev/null || :
	# Folders of this package alone, which an RPM that lists files does not remove.
	for folder in doc/pomguard licenses/pomguard pomguard; do
		rmdir "/usr/share/$folder"/* "/usr/share/$folder" 2>/dev/null || :
	done
	rmdir /etc/pomguard 2>/dev/null || :
	if command -v selinuxenabled >/dev/null 2>&1 && selinuxenabled; then
		semodule --remove=pomguard 2>/dev/null || :
	fi
fi
exit 0
