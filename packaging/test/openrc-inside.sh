#!/bin/bash
# Runs as root in a container without systemd, with the programs in $1 and
# OpenRC's packages in $2: boots OpenRC and tries the machine's service under
# it. One line a check; exit code 1 when one failed.
set -u
BIN=${1:?usage: openrc-inside.sh DIRECTORY-OF-PROGRAMS DIRECTORY-OF-PACKAGES}
# shellcheck source=packaging/test/checks.sh
. "$(dirname "$0")/checks.sh"
export TERM=linux DEBIAN_FRONTEND=noninteractive
V4=169.254.169.254
S=/run/keyfob/keyfob.sock
dpkg -i "${2:?}"/*.deb >/tmp/dpkg.log 2>&1
if ! [ -x /sbin/openrc ]; then
	echo "skip OpenRC: its packages do not install: $(tail -1 /tmp/dpkg.log)"
	exit 0
fi
for u in alice bob; do id $u >/dev/null 2>&1 || useradd -m $u; done
# What a container has no say in: the clock, the kernel's settings.
for s in cgroups hwclock.sh procps mount-configfs brightness urandom; do rc-update -q del $s sysinit 2>/dev/null; done
for level in sysinit boot default; do openrc $level >>/tmp/openrc.log 2>&1; done

daemon() { pgrep -u keyfob -x keyfobd | head -1; }
other_daemon() { # it answers, and is not the process $1; no command of root's, which would start one
	local p
	p=$(daemon)
	[ -n "$p" ] && [ "$p" != "$1" ] && "$D" service status --system | grep -q "^pid: *$p\$"
}
no() { ! "$@"; }
every_file() { find /etc /usr /var/lib -type f -o -type l | grep -v -e /var/lib/dpkg -e '^/etc/\(passwd\|group\|shadow\|gshadow\|subuid\|subgid\)' -e '^/etc/\.pwd' | sort; }
has_caps() { # exactly these are in the set $2 of the daemon: 2 DAC_READ_SEARCH, 10 NET_BIND_SERVICE, 19 SYS_PTRACE
	grep -q "^$1:.0*$2\$" "/proc/$(daemon)/status"
}

echo "# OpenRC $(openrc --version | grep -o '[0-9.]*' | head -1): the machine's service"
check "OpenRC has booted" grep -qx default /run/openrc/softlevel
before=$(every_file)
refuses "a user's own service is none of OpenRC's" "OpenRC has none" as alice "$D" service install
refuses "without privilege" "takes root" as bob "$D" service install --system
check "install --dry-run writes nothing" bash -c "$D service install --system --dry-run && ! test -e /etc/init.d/keyfob"
check "install" "$D" service install --system
check "it runs" rc-service keyfob status
check "it is in the runlevel" bash -c "rc-update show default | grep -qw keyfob"
check "a second install does nothing" bash -c "$D service install --system --dry-run | grep -q 'is installed and runs'"
check "not root" test "$(ps -o user= -p "$(daemon)")" = keyfob
check "with its three capabilities" has_caps CapEff 80404
check "and none for its programs" has_caps CapAmb 0
check "no new privileges" grep -q '^NoNewPrivs:.1$' "/proc/$(daemon)/status"
check "no core files" grep -q '^Max core file size *0 ' "/proc/$(daemon)/limits"
says "status --json" '"running":true' "$D" service status --system --json
says "status knows the process" "^pid: *$(daemon)$" "$D" service status --system
check "the log's directory is root's" test "$(stat -c '%U:%G %a' /var/log/keyfob)" = "root:keyfob 750"
check "the log is the daemon's" test "$(stat -c '%U:%G %a' /var/log/keyfob/keyfobd.log)" = "keyfob:keyfob 640"
check "whoever has the daemon puts no link there" no as keyfob ln -sf /etc/passwd /var/log/keyfob/keyfobd.log
says "logs" 'keyfobd is ready' "$D" service logs --system
p=$(daemon)
check "reload" rc-service keyfob reload
sleep 0.3
check "the same process after a reload" test "$p" = "$(daemon)"
kill -9 "$p"
check "killed, it is started again" wait_for 10 other_daemon "$p"

echo "# credentials"
"$BIN/fakeaws" --state <(echo '{"users": [{"name": "alice"}], "roles": [{"arn": "arn:aws:iam::222222222222:role/app", "trust": [{"principals": ["111122223333"]}]}]}') >/tmp/fakeaws 2>&1 &
fake=$!
wait_for 10 grep -q secret_access_key /tmp/fakeaws || bad "the fake AWS does not start"
url=$(field url </tmp/fakeaws) key=$(field access_key_id </tmp/fakeaws) secret=$(field secret_access_key </tmp/fakeaws)
mkdir -p /etc/keyfob
printf 'a good passphrase' >/etc/keyfob/passphrase
chown keyfob: /etc/keyfob/passphrase && chmod 600 /etc/keyfob/passphrase
cat >/etc/keyfob/config.toml <<-TOML
	[keystore]
	backend = "passphrase"
	passphrase_file = "/etc/keyfob/passphrase"
	[[profile]]
	name = "app"
	allow_users = ["alice"]
TOML
printf '[profile base]\nregion = eu-west-1\nendpoint_url = %s\n[profile app]\nregion = eu-west-1\nendpoint_url = %s\nrole_arn = arn:aws:iam::222222222222:role/app\nsource_profile = base\n' "$url" "$url" >/etc/keyfob/profiles
check "restart" "$D" service restart --system
check "root adds keys to the machine's vault" bash -c "printf '{\"AccessKeyId\":\"%s\",\"SecretAccessKey\":\"%s\"}' $key $secret | $K --socket $S add --force base"
says "alice's command gets credentials" '"Version":1' as alice "$K" credential-process --profile app
as bob "$K" --socket $S credential-process --profile app >/tmp/said 2>&1
check "bob's is refused with exit code 4" test $? = 4
session() { as alice "$K" credential-process --profile app | field AccessKeyId; }
a=$(session)
kill $fake
check "a restart keeps the session, without AWS" bash -c "$D service restart --system"
check "it is the same" test -n "$a" -a "$(session)" = "$a"

echo "# the metadata address"
FORCE=()
[ "$("$K" link-local status --json | field cloud)" = "" ] || FORCE=(--force)
check "link-local" "$K" link-local enable --system --ipv4-only "${FORCE[@]}"
check "the address is on lo" bash -c "ip addr show dev lo | grep -q $V4/"
printf '[[endpoint]]\nkind = "imds"\nlisten = "%s:80"\nprofile = "app"\nallow_users = ["alice"]\n' $V4 >>/etc/keyfob/config.toml
check "the daemon takes it up" "$D" service restart --system
check "alice has her role at port 80" wait_for 5 test "$(role_at alice $V4)" = app
check "bob gets nothing" test "$(token_status bob $V4)" = 403

echo "# what goes wrong"
refuses "an edited script stays" "edited by hand" bash -c "echo '# mine' >>/etc/init.d/keyfob; $D service install --system"
check "--force overwrites it" "$D" service install --system --force
check "stop" "$D" service stop --system
check "stopped, it is" bash -c "! rc-service keyfob status && ! pgrep -x keyfobd"
refuses "nobody answers" "cannot" as bob "$K" --socket $S status
check "and bob's command started nothing there" test ! -e $S
openrc default >>/tmp/openrc.log 2>&1
check "it comes with its runlevel" wait_for 10 other_daemon none
says "uninstall says what stays" '/var/lib/keyfob' "$D" service uninstall --system
check "the vault stays" test -d /var/lib/keyfob/vault
check "no daemon is left" no pgrep -x 'keyfobd|supervise-daemo'
check "link-local went with it" bash -c "! test -e /etc/init.d/keyfob-link-local && ! ip addr show dev lo | grep -q $V4/"
says "a second uninstall does nothing" 'no service is installed' "$D" service uninstall --system --dry-run
echo 'nonsense = 1' >/etc/keyfob/config.toml
refuses "install with broken settings" "nonsense" "$D" service install --system
check "and nothing is half done" bash -c '! test -e /etc/init.d/keyfob && ! test -e /etc/runlevels/default/keyfob && ! pgrep -x keyfobd'
check "uninstall --purge" "$D" service uninstall --system --purge --yes
check "nothing stays" bash -c '! test -e /var/lib/keyfob && ! test -e /etc/keyfob && ! test -e /var/log/keyfob && ! id keyfob'

echo "# a package's script"
cp "$BIN"/keyfob* /usr/bin/
install -m 755 "$(dirname "$0")/../openrc/keyfob" /etc/init.d/keyfob
check "install" keyfob service install --system
check "it runs" rc-service keyfob status
check "the script is as it was" cmp "$(dirname "$0")/../openrc/keyfob" /etc/init.d/keyfob
says "uninstall" 'belongs to a package' keyfob service uninstall --system
check "the script stays" cmp "$(dirname "$0")/../openrc/keyfob" /etc/init.d/keyfob
check "stopped, and in no runlevel" bash -c '! pgrep -x keyfobd && ! rc-update show | grep -qw keyfob'
check "link-local without the service" keyfob link-local enable --system --ipv4-only "${FORCE[@]}"
check "purge" keyfob service uninstall --system --purge --yes
check "link-local went with it" bash -c "! test -e /etc/init.d/keyfob-link-local && ! ip addr show dev lo | grep -q $V4/"
rm /etc/init.d/keyfob /usr/bin/keyfob*
after=$(every_file)
if [ "$before" = "$after" ]; then ok "nothing is left, and nothing else is gone"; else bad "files differ: $(diff <(echo "$before") <(echo "$after") | grep '^[<>]' | head -8)"; fi
exit $failed
