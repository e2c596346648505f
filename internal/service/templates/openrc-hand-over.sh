#!/sbin/openrc-run
# keyfob: port 80 of the metadata addresses, for one person's own keyfobd.

name="keyfob link-local"
description="keyfob: the metadata address for a person's keyfobd"
supervisor="supervise-daemon"
command="@KEYFOBD@"
# It opens the sockets as root, and then is nobody.
command_args=@ARGS@
rc_ulimit="-c 0"
respawn_delay="1"
respawn_max="10"
respawn_period="60"

depend() {
	use localmount mountall
	after bootmisc
}

start_pre() {
	# OpenRC's own variable no_new_privs is misspelt in some versions of its scripts.
	if supervise-daemon "$RC_SVCNAME" --no-new-privs --version >/dev/null 2>&1; then
		supervise_daemon_args="--no-new-privs"
	fi
}

stop_post() {
	"@KEYFOBD@" service link-local down
}
