#!/bin/bash
# Runs inside a booted systemd as root, with /opt/deb/keyfob.deb: installs,
# upgrades and purges it. One line a check; exit code 1 when one failed.
set -u
# shellcheck disable=SC2034 # checks.sh wants it
BIN=/usr/bin
# shellcheck source=packaging/test/checks.sh
. "$(dirname "$0")/checks.sh"
deb=/opt/deb/keyfob.deb
export DEBIAN_FRONTEND=noninteractive
every_file() { find /etc /usr /var/lib -type f -o -type l | grep -v -e /var/lib/dpkg -e /var/lib/systemd -e '^/etc/\(passwd\|group\|shadow\|gshadow\|subuid\|subgid\)' -e '^/etc/\.pwd' | sort; }
id alice >/dev/null 2>&1 || useradd -m alice

echo "# the package"
before=$(every_file)
# What it depends on is not to be had without a network; --force says so.
check "install" dpkg --force-depends -i $deb
check "nothing runs by itself" bash -c '! systemctl is-active keyfob.service && ! systemctl is-enabled keyfob.service'
says "version" '^keyfob ' keyfob version
size=$(dpkg -L keyfob | while read -r f; do [ ! -f "$f" ] || stat -c %s "$f"; done | awk '{ n += $1 } END { print int(n / 1e6) }')
check "no more than 40 MB installed: $size MB" test "$size" -gt 0 -a "$size" -le 40
check "units verify" systemd-analyze verify --man=no /usr/lib/systemd/system/keyfob.service /usr/lib/systemd/system/keyfob.socket
check "exposure 2.0 or lower" bash -c 'systemctl daemon-reload; systemd-analyze security --threshold=20 --no-pager keyfob.service'
check "the service" keyfob service install --system
check "it runs the package's unit" test "$(readlink -f "$(prop FragmentPath)")" = "$(readlink -f /usr/lib/systemd/system/keyfob.service)"
check "nothing was written beside it" bash -c '! test -e /etc/systemd/system/keyfob.service'
linger alice
check "alice's own service" as alice keyfob service install
p=$(prop MainPID)
a=$(as alice systemctl --user show -p MainPID --value keyfob.service)
check "upgrade" dpkg --force-depends -i $deb
check "the machine's daemon is a new process" wait_for 10 pid_is_other "$p"
other() { [ "$(as alice systemctl --user show -p MainPID --value keyfob.service)" != "$a" ] && as alice systemctl --user is-active -q keyfob.service; }
check "alice's too" wait_for 10 other
FORCE=()
[ "$(keyfob link-local status --json | field cloud)" = "" ] || FORCE=(--force)
check "link-local" keyfob link-local enable --system "${FORCE[@]}"
check "remove" dpkg -r keyfob
check "no daemon is left" bash -c '! pgrep -x keyfobd'
check "no address is left" bash -c '! ip addr show dev lo | grep -q 169.254.169.254'
check "the vault's directory stays at a remove" test -d /var/lib/keyfob
check "purge" dpkg -P keyfob
loginctl disable-linger alice
rm -rf /home/alice/.config
after=$(every_file)
if [ "$before" = "$after" ]; then ok "nothing is left, and nothing else is gone"; else bad "files differ: $(diff <(echo "$before") <(echo "$after") | grep '^[<>]' | head -8)"; fi
exit $failed
