#!/sbin/openrc-run
# keyfob: the metadata addresses of EC2, on the loopback interface.

name="keyfob link-local"
description="keyfob: the metadata address of this machine"

depend() {
	use localmount mountall
	before net keyfob
}

start() {
	ebegin "Adding the metadata address"
	"@KEYFOBD@" @ARGS@
	eend $?
}

stop() {
	ebegin "Taking the metadata address away"
	"@KEYFOBD@" service link-local down
	eend $?
}
