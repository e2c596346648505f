#!/bin/bash
# Runs inside a booted systemd as root, with the programs in $1, and tries
# `keyfob link-local`. $2 is "on" (the default; it ends with the address
# enabled for alice), or, after a reboot, "off". One line a check; exit code
# 1 when one failed.
set -u
BIN=${1:?usage: linklocal-inside.sh DIRECTORY-OF-PROGRAMS [on|off]}
# shellcheck source=packaging/test/checks.sh
. "$(dirname "$0")/checks.sh"
V4=169.254.169.254 V6=fd00:ec2::254
FORCE=()
[ "$("$K" link-local status --json | field cloud)" = "" ] || FORCE=(--force) # this very machine is a cloud's
on_lo() { ip addr show dev lo | grep -q "inet6\? $1/"; }
nothing_left() { ! compgen -G '/etc/systemd/system/*keyfob*' && ! on_lo $V4 && ! on_lo $V6 && ! test -e /run/keyfob-imds/hand-over.sock && ! test -e /run/keyfob-link-local/made; }
token_is_there() { [ "$(token_status alice $V4)" = 200 ]; }
for u in alice bob; do id $u >/dev/null 2>&1 || useradd -m $u; done
has6=$(test -e /proc/net/if_inet6 && echo yes)

off() {
	echo "# the metadata address, off"
	check "a second user is told whose it is" bash -c "'$K' link-local status | grep -q 'keyfobd of alice'"
	says "disable --dry-run removes nothing" 'remove /etc/systemd/system/keyfob-imds.socket' "$K" link-local disable --dry-run
	check "it is still there" on_lo $V4
	check "disable" "$K" link-local disable
	check "nothing of it is left" nothing_left
	says "a second disable does nothing" 'not enabled' "$K" link-local disable
	says "status says so" 'link-local: disabled' "$K" link-local status
	for u in alice bob; do
		as $u systemctl --user stop keyfob.socket keyfob.service 2>/dev/null
		as $u "$D" service uninstall 2>/dev/null
		loginctl disable-linger $u
		rm -rf /home/$u/.config /home/$u/.aws /home/$u/.local
	done
}

if [ "${2:-on}" = off ]; then
	echo "# after a reboot"
	check "the address is there again" on_lo $V4
	check "alice's keyfobd has it" wait_for 20 token_is_there
	check "the session outlived the reboot" test "$(key_at alice $V4)" = "$(cat /var/tmp/keyfob-test-key)"
	off
	exit $failed
fi

echo "# the metadata address, refused"
refuses "without privilege, the whole line is said" "takes root" as bob "$K" link-local enable --ipv4-only
says "as a line for sudo" "hint: sudo $K link-local enable --ipv4-only" bash -c "! setpriv --reuid bob --clear-groups '$K' link-local enable --ipv4-only 2>&1"
refuses "an unknown user" "no such user" "$K" link-local enable --user nosuchone
refuses "the machine's daemon is not installed" "not installed" "$K" link-local enable --system
ip link add keyfob-test type bridge && ip addr add $V4/32 dev keyfob-test
refuses "another interface has the address" "the interface keyfob-test has that address" "$K" link-local enable --user alice
ip addr del $V4/32 dev keyfob-test && ip link set keyfob-test up
ip route add $V4/32 dev keyfob-test
refuses "a route leads to it" "route to it by keyfob-test" "$K" link-local enable --user alice
ip link del keyfob-test
systemd-run -q --unit=web --property=Type=exec "$BIN/fakeaws" --listen 0.0.0.0:80 2>/dev/null
if wait_for 3 bash -c "ss -ltn | grep -q ':80 '"; then
	refuses "another program has port 80 of all addresses" "fakeaws (pid [0-9]*) listens at port 80 of every address" "$K" link-local enable --user alice
	systemctl stop web
fi
systemctl mask keyfob-imds.socket >/dev/null 2>&1
refuses "a masked unit" "keyfob-imds.socket: it is masked" "$K" link-local enable --user alice
systemctl unmask keyfob-imds.socket >/dev/null 2>&1
mount --bind /etc/systemd/system /etc/systemd/system && mount -o remount,ro,bind /etc/systemd/system
refuses "a read-only /etc" "read-only file system" "$K" link-local enable --user alice
umount /etc/systemd/system
check "nothing is half done" nothing_left

echo "# the metadata address of the machine's keyfobd"
mkdir -p /etc/keyfob
printf '[[endpoint]]\nkind = "imds"\nlisten = "127.0.0.1:9911"\nprofile = "app"\nallow_users = ["alice"]\n' >/etc/keyfob/config.toml
check "its service is installed" "$D" service install --system
says "enable --dry-run says what it would do" 'write /etc/systemd/system/keyfob-imds.socket' "$K" link-local enable --dry-run
check "and does nothing" bash -c "! test -e /etc/systemd/system/keyfob-imds.socket"
says "enable, and how the settings take it up" 'kind = "imds", listen = "169.254.169.254:80"' "$K" link-local enable "${FORCE[@]}"
check "the addresses are on lo" on_lo $V4
[ -z "$has6" ] || check "IPv6 too" on_lo $V6
sed -i 's/127.0.0.1:9911/169.254.169.254:80/' /etc/keyfob/config.toml
[ -z "$has6" ] || printf '[[endpoint]]\nkind = "imds"\nlisten = "[fd00:ec2::254]:80"\nprofile = "app"\nallow_users = ["alice"]\n' >>/etc/keyfob/config.toml
check "the daemon takes it up" "$D" service restart --system
check "alice gets a token at port 80" test "$(token_status alice $V4)" = 200
check "bob does not" test "$(token_status bob $V4)" = 403
[ -z "$has6" ] || check "and by IPv6" test "$(token_status alice "[$V6]")" = 200
# The capability is for addresses that systemd does not open.
mkdir -p /run/systemd/system/keyfob.service.d
printf '[Service]\nAmbientCapabilities=\nAmbientCapabilities=CAP_SYS_PTRACE CAP_DAC_READ_SEARCH\nCapabilityBoundingSet=\nCapabilityBoundingSet=CAP_SYS_PTRACE CAP_DAC_READ_SEARCH\n' >/run/systemd/system/keyfob.service.d/less.conf
systemctl daemon-reload
systemctl restart keyfob.service
check "the daemon needs no privilege for it" test "$(token_status alice $V4)" = 200
rm -r /run/systemd/system/keyfob.service.d
systemctl daemon-reload
says "a second enable does nothing" 'is enabled' "$K" link-local enable "${FORCE[@]}"
says "status" "keyfobd (pid $(prop MainPID))" "$K" link-local status
check "status --json" bash -c "'$K' link-local status --json | grep -q '\"active\":true,\"system\":true'"
p=$(prop MainPID)
kill -9 "$p"
check "killed, it is started again and has the address" bash -c "$(declare -f wait_for token_status as prop pid_is_other); BIN=$BIN; wait_for 10 pid_is_other $p && test \$(token_status alice $V4) = 200"
: >/etc/systemd/system/keyfob-imds.socket
ip addr del $V4/32 dev lo
says "status knows the half-done one" 'enable mends it' "$K" link-local status
check "enable mends it" "$K" link-local enable "${FORCE[@]}"
check "alice gets a token again" test "$(token_status alice $V4)" = 200
refuses "disable while the settings need it" "still has an endpoint there" "$K" link-local disable
for unit in keyfob-link-local.service keyfob-imds.socket; do check "$unit verifies" systemd-analyze verify --man=no /etc/systemd/system/$unit; done
check "exposure 2.0 or lower" systemd-analyze security --threshold=20 --no-pager keyfob-link-local.service

echo "# what was there before stays"
rm /etc/keyfob/config.toml
check "disable" "$K" link-local disable
check "the daemon still runs" systemctl is-active keyfob.service
check "the address is gone" bash -c "! ip addr show dev lo | grep -q $V4"
ip addr add $V4/32 dev lo
check "enable over an address that stands on lo" "$K" link-local enable --system --ipv4-only "${FORCE[@]}"
check "uninstalling the service takes link-local along" "$D" service uninstall --system
check "the address that was there stays" on_lo $V4
ip addr del $V4/32 dev lo
rm -rf /etc/keyfob
check "nothing else is left" nothing_left

echo "# the metadata address of a person's own keyfobd"
fake_aws || bad "the fake AWS does not start"
for u in alice bob; do linger $u; done
listen=$V4:80 person alice app
listen='' person bob bobs-app
check "enable, as sudo does it" env SUDO_USER=alice "$K" link-local enable "${FORCE[@]}"
check "its unit's exposure is 1.0 or lower" systemd-analyze security --threshold=10 --no-pager keyfob-imds.service
check "it has no capability" grep -q '^CapPrm:.0*$' "/proc/$(prop MainPID keyfob-imds.service)/status"
check "alice's keyfobd" as alice "$D" service install
check "alice adds her keys" add_keys alice
check "alice gets a token at port 80" wait_for 5 token_is_there
check "and her role" test "$(wait_for 5 role_at alice $V4 >/dev/null; role_at alice $V4)" = app
check "bob gets nothing of hers" test "$(token_status bob $V4)" = 403
check "alice's keyfobd has no capability either" bash -c "! grep '^Cap[PEIA].*:' /proc/\$(pgrep -u alice -x keyfobd | head -1)/status | grep -v '0000000000000000'"
refuses "bob can't ask for the socket" "cannot" as bob "$D" run --imds $V4:80
check "nor by its path" bash -c "$(declare -f as); BIN=$BIN; ! as bob curl -s --unix-socket /run/keyfob-imds/hand-over.sock http://x/"
check "alice's keyfobd restarts" as alice "$D" service restart
check "and has the address again" wait_for 5 token_is_there
systemctl restart keyfob-imds.service
check "what hands it over can restart meanwhile" token_is_there
check "the upgrade of an enable changes nothing" bash -c "SUDO_USER=alice '$K' link-local enable ${FORCE[*]} 2>&1 | grep -q 'is enabled'"
key_at alice $V4 >/var/tmp/keyfob-test-key
check "a session is there for the reboot" test -s /var/tmp/keyfob-test-key
exit $failed
