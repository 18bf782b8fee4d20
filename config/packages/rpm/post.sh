# Makes the group and the folders. An upgrade restarts what runs; nothing else starts.
systemd-sysusers pomguard.conf || :
# Later starts of the service keep this mode, too.
chmod 0750 /etc/pomguard || :
if command -v selinuxenabled >/dev/null 2>&1 && selinuxenabled; then
	semodule --install=/usr/share/selinux/packages/pomguard.pp || :
	restorecon -R /usr/sbin/pomguard /etc/pomguard /var/lib/pomguard /run/pomguard 2>/dev/null || :
fi
if [ "$1" -eq 1 ]; then
	systemctl --no-reload preset pomguard.service pomguard-exporter.service >/dev/null 2>&1 || :
fi
if [ -d /run/systemd/system ]; then
	systemd-tmpfiles --create pomguard.conf || :
	# The unit may not load the modules of the TC hook itself. A kernel with TCX needs none of them.
	/usr/lib/systemd/systemd-modules-load pomguard.conf || :
	systemctl daemon-reload || :
	if [ "$1" -ge 2 ]; then
		# The new programs take the place of the old ones behind each hook in one step.
		systemctl try-restart pomguard.service pomguard-exporter.service ||
			echo "pomguard: the restart failed; the programs before it go on: see \`systemctl status pomguard\`" >&2
	else
		echo "pomguard: nothing is enforced yet: see pomguard(8) and /usr/share/doc/pomguard/README.md"
	fi
fi
exit 0
