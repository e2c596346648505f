#!/bin/bash
# Runs inside a booted systemd as root, with the programs in $1, and tries
# how a service lives: sessions over kills, upgrades and reboots, for the
# services of two people. $2 is "before" or "after" a reboot. One line a
# check; exit code 1 when one failed.
set -u
BIN=${1:?usage: life-inside.sh DIRECTORY-OF-PROGRAMS before|after}
# shellcheck source=packaging/test/checks.sh
. "$(dirname "$0")/checks.sh"
state=/var/tmp/keyfob-life
user_prop() { as "$1" systemctl --user show -p "$2" --value keyfob.service; }
other_pid() {
	local p
	p=$(user_prop "$1" MainPID)
	[ -n "$p" ] && [ "$p" != 0 ] && [ "$p" != "$2" ] && [ "$(user_prop "$1" ActiveState)" = active ]
}
no() { ! "$@"; }
has_session() { [ -n "$(access_key "$1")" ]; }

if [ "${2:?before or after}" = before ]; then
	echo "# two people's own services, with sessions"
	mkdir -p $state
	fake_aws || bad "the fake AWS does not start"
	for u in alice bob; do
		id $u >/dev/null 2>&1 || useradd -m $u
		check "systemd of $u" linger $u
		role=deploy
		[ $u = alice ] || role=bobs-app
		listen='' person $u $role
		check "$u: install" as $u "$D" service install
		check "$u: keys go into the vault" add_keys $u
		check "$u: a session" has_session $u
		access_key $u >$state/$u
	done
	check "the two sessions are two" test "$(cat $state/alice)" != "$(cat $state/bob)"
	check "bob does not get alice's" no as bob env KEYFOB_SOCKET="/run/user/$(id -u alice)/keyfob/keyfob.sock" "$K" credential-process --profile app

	echo "# no AWS from here on: what is served was kept"
	systemctl stop fakeaws
	p=$(user_prop alice MainPID)
	kill -9 "$p"
	check "killed, it is started again" wait_for 10 other_pid alice "$p"
	check "and serves the same session" test "$(access_key alice)" = "$(cat $state/alice)"
	p=$(user_prop alice MainPID)
	kill -STOP "$p"
	mkdir -p /home/alice/.config/systemd/user/keyfob.service.d
	printf '[Service]\nWatchdogSec=2\n' >/home/alice/.config/systemd/user/keyfob.service.d/watchdog.conf
	chown -R alice: /home/alice/.config/systemd
	kill -CONT "$p"
	as alice systemctl --user daemon-reload
	as alice systemctl --user restart keyfob.service
	p=$(user_prop alice MainPID)
	kill -STOP "$p"
	check "hanging, the watchdog restarts it" wait_for 20 other_pid alice "$p"
	check "and it serves the same session" test "$(access_key alice)" = "$(cat $state/alice)"
	rm -r /home/alice/.config/systemd/user/keyfob.service.d
	as alice systemctl --user daemon-reload

	echo "# an upgrade in place"
	mkdir -p /opt/keyfob-new
	cp "$BIN"/keyfob* /opt/keyfob-new/
	p=$(user_prop alice MainPID)
	# Whoever asks during the upgrade waits, and is answered.
	(
		for _ in $(seq 40); do
			access_key alice || echo refused
			sleep 0.05
		done
	) >$state/asked 2>&1 &
	asker=$!
	check "another version is installed" as alice /opt/keyfob-new/keyfobd service install
	check "it is another process" other_pid alice "$p"
	check "of the new file" test "$(readlink "/proc/$(user_prop alice MainPID)/exe")" = /opt/keyfob-new/keyfobd
	wait $asker
	check "nobody was refused, and all got the same session" test "$(sort -u $state/asked)" = "$(cat $state/alice)"
	cp --remove-destination "$BIN/keyfobd" /opt/keyfob-new/keyfobd
	p=$(user_prop alice MainPID)
	check "a replaced file is noticed" as alice /opt/keyfob-new/keyfobd service install
	check "and run" other_pid alice "$p"
	check "back to the first version" as alice "$D" service install
	check "the session is the same" test "$(access_key alice)" = "$(cat $state/alice)"
	rm -r /opt/keyfob-new
	exit $failed
fi

echo "# after a reboot"
for u in alice bob; do
	check "$u: the service runs, nobody logged in" wait_for 20 as $u systemctl --user is-active keyfob.service
	check "$u: the session outlived the reboot" test "$(access_key $u)" = "$(cat $state/$u)"
	check "$u: uninstall" as $u "$D" service uninstall
	check "$u: the vault stays" test -d /home/$u/.local/share/keyfob/vault
	loginctl disable-linger $u
	rm -rf /home/$u/.config /home/$u/.aws /home/$u/.local
done
rm -r $state
exit $failed
