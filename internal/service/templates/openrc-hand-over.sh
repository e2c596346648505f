#!/sbin/openrc-run
# keyfob: port 80 of the metadata addresses, for one person's own keyfobd.

name="keyfob link-local"
description="keyfob: the metadata address for a person's keyfobd"
supervisor="supervise-daemon"
command="@KEYFOBD@"
# It opens the sockets as root, and then is nobody.
command_args=@ARGS@
no_new_privs="yes"
rc_ulimit="-c 0"
respawn_delay="1"
respawn_max="10"
respawn_period="60"

depend() {
	need localmount
	after bootmisc
}

stop_post() {
	"@KEYFOBD@" service link-local down
}
