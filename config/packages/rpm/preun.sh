# Stops the services before a removal, never for an upgrade, and says that this host stays guarded.
if [ "$1" -eq 0 ]; then
	if [ -d /run/systemd/system ]; then
		systemctl stop pomguard-exporter.service pomguard.service || :
	fi
	systemctl --quiet --no-reload disable pomguard.service pomguard-exporter.service 2>/dev/null || :
	if [ -n "$(ls -A /sys/fs/bpf/pomguard/links 2>/dev/null)" ]; then
		cat >&2 <<-END
		pomguard: THIS HOST STAYS GUARDED: removing the package does not take the programs off.
		pomguard: To open it, \`pomguard detach --yes\` has to come before the removal.
		pomguard: Afterwards: install the package again and detach, or reboot.
		END
	fi
fi
exit 0
