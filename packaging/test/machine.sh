# Sourced by scripts/test-system.sh, in a mount namespace of its own: a root
# file system of Debian, made once and kept, and systemd booted in it.
# $work, $cache, $root (the repository) are set. Nothing is left behind: what
# runs is in $cgroup, what is mounted in the namespace.
# shellcheck shell=bash disable=SC2034,SC2154 # shared with test-system.sh
suite=bookworm
tarball=$cache/rootfs-$suite-1.tar
openrc_debs=$cache/openrc-$suite-1
machine=$work/machine
cgroup=/sys/fs/cgroup/keyfob-test-${work##*.}
boot= # systemd-nspawn

# make_rootfs makes the root file system where it is not there yet.
make_rootfs() {
	[ ! -s "$tarball" ] || return 0
	command -v debootstrap >/dev/null || return 1
	mkdir -p "$cache" "$work/make"
	# In memory, because dpkg waits for the disk after each file.
	mount -t tmpfs -o size=2g tmpfs "$work/make"
	local began=$SECONDS mirror
	mirror=$(sed -n -e 's/^URIs: *\(http[^ ]*\).*/\1/p' -e 's/^deb \(\[[^]]*\] \)\?\(http[^ ]*\) .*/\2/p' /etc/apt/sources.list /etc/apt/sources.list.d/debian* 2>/dev/null | head -1)
	timeout -k 10 300 debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,curl,iproute2,procps,ca-certificates \
		"$suite" "$work/make/root" ${mirror:+"$mirror"} >"$work/debootstrap.log" 2>&1 || { tail -5 "$work/debootstrap.log"; return 1; }
	rm -rf "$work"/make/root/var/cache/apt/archives/*.deb "$work"/make/root/var/lib/apt/lists/*
	tar -C "$work/make/root" -cf "$tarball.$$" . && mv "$tarball.$$" "$tarball" || return 1
	umount -l "$work/make"
	echo "a root file system of $(du -h "$tarball" | cut -f1) in $((SECONDS - began)) s"
}

# fetch_openrc fetches OpenRC's packages, for that root file system.
fetch_openrc() {
	[ ! -e "$openrc_debs/openrc.deb" ] || return 0
	grep -q "^VERSION_CODENAME=$suite\$" /etc/os-release || { echo "this is not Debian $suite, whose packages it would take"; return 1; }
	mkdir -p "$work/debs" && chmod 777 "$work/debs"
	(
		cd "$work/debs" || exit 1
		names='openrc librc1 libeinfo1 insserv initscripts startpar'
		# shellcheck disable=SC2086 # words
		timeout 60 apt-get -qq download $names || { timeout 120 apt-get -qq update && timeout 60 apt-get -qq download $names; }
	) >"$work/openrc.log" 2>&1 || { tail -1 "$work/openrc.log"; return 1; }
	rm -rf "$openrc_debs" && mkdir -p "$openrc_debs" && cp "$work"/debs/*.deb "$openrc_debs/" || return 1
	mv "$openrc_debs"/openrc_*.deb "$openrc_debs/openrc.deb"
}

# unpack puts the root file system, as it was made, at $machine.
unpack() {
	mkdir -p "$machine"
	! mountpoint -q "$machine" || umount -l "$machine"
	mount -t tmpfs -o size=2g tmpfs "$machine"
	tar -C "$machine" -xf "$tarball"
	echo keyfob-test >"$machine/etc/hostname"
}

# can_run says in $why why containers of this root can't be run here.
can_run() {
	why=
	[ "$(id -u)" = 0 ] || { why="not root"; return 1; }
	[ -n "${KEYFOB_TEST_UNSHARED:-}" ] || { why="no mount and process namespaces"; return 1; }
	[ -s "$tarball" ] || { why="no root file system could be made: ${1:-no debootstrap}"; return 1; }
}

# can_boot is can_run for systemd-nspawn, and makes $cgroup.
can_boot() {
	local p
	can_run "$(tail -1 "$work/debootstrap.log" 2>/dev/null)" || return 1
	for p in systemd-nspawn nsenter pgrep; do
		command -v $p >/dev/null || { why="no $p"; return 1; }
	done
	# systemd in a container wants the unified hierarchy, whatever the machine
	# itself has mounted.
	if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
		umount -lR /sys/fs/cgroup 2>/dev/null || true
		mount -t cgroup2 none /sys/fs/cgroup 2>/dev/null || { why="no cgroup2"; return 1; }
	fi
	# Of runs that were killed.
	find /sys/fs/cgroup -depth -path '/sys/fs/cgroup/keyfob-test-*' -type d -mmin +20 -exec rmdir {} + 2>/dev/null || true
	mkdir -p "$cgroup" 2>/dev/null || { why="no cgroups that may be made"; return 1; }
}

# empty_cgroup ends what runs in a cgroup, and removes it.
empty_cgroup() {
	[ -d "$1" ] || return 0
	local i
	echo 1 >"$1/cgroup.kill" 2>/dev/null || true
	for i in $(seq 50); do
		find "$1" -depth -type d -exec rmdir {} + 2>/dev/null
		[ -d "$1" ] || return 0
		sleep 0.1
	done
	echo "$1 can't be removed" >&2
}

# nspawn ARGUMENTS… runs systemd-nspawn on $machine, in $cgroup.
nspawn() {
	# shellcheck disable=SC2016 # expanded by that shell
	exec setsid bash -c 'echo $$ >"$0/cgroup.procs"; exec "$@"' "$cgroup" \
		systemd-nspawn -q -D "$machine" --register=no --keep-unit --private-network --console=pipe --system-call-filter=@keyring \
		--bind-ro="$work/bin:/opt/kf" --bind-ro="$root/packaging:/opt/packaging" "$@" </dev/null
}

leader() { pgrep -P "$boot" | head -1; }

# inside COMMAND… runs it in the booted machine as root.
inside() {
	local l
	l=$(leader) && [ -n "$l" ] || return 1
	nsenter -t "$l" -a -- /usr/bin/env -i HOME=/root USER=root LC_ALL=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@" </dev/null
}

settled() {
	case $(inside timeout 5 systemctl is-system-running 2>/dev/null) in running | degraded) return 0 ;; esac
	return 1
}

# start_machine boots the machine and waits until it is up.
start_machine() {
	local i
	nspawn --kill-signal=SIGRTMIN+3 -b >"$work/boot.log" 2>&1 &
	boot=$!
	for i in $(seq 300); do
		kill -0 "$boot" 2>/dev/null || break
		if settled; then return 0; fi
		sleep 0.1
	done
	tail -20 "$work/boot.log"
	return 1
}

# ended waits for systemd-nspawn to end, kindly and then by its id.
ended() {
	local i
	for i in $(seq 300); do
		kill -0 "$boot" 2>/dev/null || break
		[ "$i" != 250 ] || kill "$boot" 2>/dev/null || true
		[ "$i" != 290 ] || kill -9 "$boot" 2>/dev/null || true
		sleep 0.1
	done
	local code=0
	wait "$boot" 2>/dev/null || code=$?
	boot=
	return $code
}

reboot_machine() {
	inside timeout 20 systemctl reboot >/dev/null 2>&1 || true
	local code=0
	ended || code=$?
	[ "$code" = 133 ] || return 1 # what nspawn says of a container that wants to be booted again
	start_machine
}

power_off() {
	[ -n "$boot" ] || return 0
	inside timeout 20 systemctl poweroff >/dev/null 2>&1 || true
	ended || true
}

# run_inside SECONDS SCRIPT ARGUMENTS… runs a script of packaging/test/.
run_inside() {
	local limit=$1 began=$SECONDS code=0
	shift
	inside timeout -k 5 "$limit" bash "/opt/packaging/test/$1" /opt/kf "${@:2}" >"$work/out" 2>&1 || code=$?
	cat "$work/out"
	if [ $code = 124 ] || [ $code = 137 ]; then
		echo "FAIL $*: not done within $limit s"
	elif [ $code != 0 ] && ! grep -q '^FAIL ' "$work/out"; then
		echo "FAIL $*: it broke off with exit code $code: $(tail -1 "$work/out")"
	fi
	echo "   ($*: $((SECONDS - began)) s)"
}
