# Functions of the packages' scripts. A line "#use NAME…" in a script becomes
# those functions (packaging/build.sh). A blank line ends a function.

systemd_runs() { [ -d /run/systemd/system ]; }

# For the systemd of every user who is logged in or lingers.
users_systemctl() {
	for user in $(systemctl list-units --plain --no-legend --state=running 'user@*.service' 2>/dev/null | sed -n 's/^user@\([0-9]*\)\.service.*/\1/p'); do
		systemctl --user --machine="$user@.host" "$@" >/dev/null 2>&1 </dev/null || true
	done
}

# The daemons become the new program. Their sockets stay with systemd and their
# sessions are in the vault: callers wait a moment, and nobody signs in again.
restart_daemons() {
	systemd_runs || return 0
	systemctl daemon-reload || true
	systemctl try-restart keyfob.service || true
	users_systemctl daemon-reload
	users_systemctl try-restart keyfob.service
}

stop_services() {
	if [ -e /etc/systemd/system/keyfob-link-local.service ]; then
		keyfobd service link-local disable --force >/dev/null 2>&1 || true
	fi
	systemd_runs || return 0
	systemctl --quiet disable --now keyfob.socket keyfob.service 2>/dev/null || true
	systemctl --quiet --global disable keyfob.socket keyfob.service 2>/dev/null || true
	users_systemctl stop keyfob.socket keyfob.service
}

# Daemons that a command started on demand: the program that goes, no other.
stop_daemons() {
	for process in /proc/[0-9]*; do
		case $(readlink "$process/exe" 2>/dev/null) in
			/usr/bin/keyfobd | '/usr/bin/keyfobd (deleted)') kill "${process#/proc/}" 2>/dev/null || true ;;
		esac
	done
}

make_user() {
	getent passwd keyfob >/dev/null 2>&1 && return 0
	if command -v systemd-sysusers >/dev/null; then
		echo 'u keyfob - "keyfob AWS credential service" /var/lib/keyfob' | systemd-sysusers -
	else
		useradd --system --user-group --home-dir /var/lib/keyfob --no-create-home --shell /sbin/nologin --comment "keyfob AWS credential service" keyfob
	fi
}
