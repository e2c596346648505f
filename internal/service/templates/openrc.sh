#!/sbin/openrc-run
# keyfob, the machine's daemon.

name="keyfob"
description="keyfob: AWS credentials for the users of this machine"
supervisor="supervise-daemon"
command="@KEYFOBD@"
command_args=@ARGS@
umask="077"
rc_ulimit="-c 0"
respawn_delay="1"
respawn_max="10"
respawn_period="60"
output_log="/var/log/keyfob/keyfobd.log"
error_log="/var/log/keyfob/keyfobd.log"
extra_started_commands="reload"
# What the daemon may besides what its user may. CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH: which process of another user holds a
# connection (/proc/PID/fd), which namespaces and which program it has. CAP_NET_BIND_SERVICE: port 80 of 169.254.169.254.
allowed="sys_ptrace dac_read_search net_bind_service"

depend() {
	use localmount mountall net dns logger
	after bootmisc
}

start_pre() {
	checkpath --directory --mode 0755 --owner keyfob:keyfob /run/keyfob
	checkpath --directory --mode 0700 --owner keyfob:keyfob /var/lib/keyfob
	# Without a command_user root opens the log: in a directory of the daemon's
	# own, it could put a link to any other file there. Whoever rotates the log
	# copies and truncates it, or restarts the service.
	checkpath --directory --mode 0750 --owner root:keyfob /var/log/keyfob || return 1
	checkpath --file --mode 0640 --owner keyfob:keyfob /var/log/keyfob/keyfobd.log || return 1
	local c iab='' inh='' with
	for c in $allowed; do iab="$iab${iab:+,}^cap_$c" inh="$inh${inh:+,}+$c"; done
	with="--reuid=keyfob --regid=keyfob --init-groups --no-new-privs --inh-caps=$inh --ambient-caps=$inh"
	# OpenRC's own variable no_new_privs is misspelt in some versions of its scripts.
	if supervise-daemon "$RC_SVCNAME" --no-new-privs --capabilities "$iab" --version >/dev/null 2>&1; then
		supervise_daemon_args="--no-new-privs --capabilities $iab"
	elif setpriv $with true 2>/dev/null; then # an OpenRC that was built without libcap
		command_args="$with $command $command_args"
		command="$(command -v setpriv)"
		return
	else
		ewarn "keyfob runs without capabilities: port 80 and other users' programs are not for it"
	fi
	command_user="keyfob:keyfob"
}

reload() {
	ebegin "Reloading keyfob"
	supervise-daemon "$RC_SVCNAME" --signal HUP
	eend $?
}
