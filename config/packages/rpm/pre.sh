# Refuses a step back to a version that does not know the layout of the maps in force.

# The layout of the maps that this package knows; a test compares it with the code.
map_layout=5

if [ "$1" -ge 2 ] && [ "${POMGUARD_DOWNGRADE:-}" != yes ] && [ -n "$(ls -A /sys/fs/bpf/pomguard/links 2>/dev/null)" ]; then
	installed=$(pomguard --version 2>/dev/null | sed -n 's/^map layout \([0-9][0-9]*\)$/\1/p')
	if [ "${installed:-0}" -gt "$map_layout" ]; then
		cat >&2 <<-END
		pomguard: this package knows map layout $map_layout, the version that guards this host has layout $installed.
		pomguard: The older version would begin with empty flows and counters: connections in progress could be cut.
		pomguard: To go back safely, open the host first: \`pomguard detach --yes\`.
		pomguard: To go back under the guard all the same, set POMGUARD_DOWNGRADE=yes in the environment.
		END
		exit 1
	fi
fi
exit 0
