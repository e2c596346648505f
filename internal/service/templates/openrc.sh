#!/sbin/openrc-run
# keyfob, the machine's daemon.

name="keyfob"
description="keyfob: AWS credentials for the users of this machine"
supervisor="supervise-daemon"
command="@KEYFOBD@"
command_args=@ARGS@
command_user="keyfob:keyfob"
# CAP_SYS_PTRACE: which namespaces and which program another user's caller has. CAP_NET_BIND_SERVICE: port 80 of 169.254.169.254.
capabilities="^cap_sys_ptrace,^cap_net_bind_service"
no_new_privs="yes"
umask="077"
rc_ulimit="-c 0"
respawn_delay="1"
respawn_max="10"
respawn_period="60"
output_log="/var/log/keyfob/keyfobd.log"
error_log="/var/log/keyfob/keyfobd.log"
extra_started_commands="reload"

depend() {
	need localmount
	use net dns logger
	after bootmisc
}

start_pre() {
	checkpath --directory --mode 0755 --owner keyfob:keyfob /run/keyfob
	checkpath --directory --mode 0700 --owner keyfob:keyfob /var/lib/keyfob
	checkpath --directory --mode 0750 --owner keyfob:keyfob /var/log/keyfob
}

reload() {
	ebegin "Reloading keyfob"
	supervise-daemon "$RC_SVCNAME" --signal HUP
	eend $?
}
