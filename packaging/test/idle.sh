#!/bin/bash
# Watches a keyfobd of the programs in $1 that nobody asks, while other tests
# run, until the file end is in the directory $2, and for 80 s at least: how
# often it wakes, and what it needs. It is run as systemd runs it: somebody
# listens to its beat. One line a check; exit code 1 when one failed.
set -u
BIN=${1:?usage: idle.sh DIRECTORY-OF-PROGRAMS DIRECTORY}
at=${2:?}
# shellcheck source=packaging/test/checks.sh
. "$(dirname "$0")/checks.sh"
for p in socat unshare ip; do
	command -v $p >/dev/null || { echo "skip the idle daemon: no $p"; exit 0; }
done
mkdir -p "$at"
(umask 077 && printf 'a passphrase' >"$at/passphrase")
printf '[[endpoint]]\nkind = "container"\nlisten = "127.0.0.1:9988"\n' >"$at/config.toml"
socat -u "UNIX-RECV:$at/notify" "OPEN:$at/notified,creat,append" &
socat=$!
wait_for 5 test -S "$at/notify"
unshare -n sh -c 'ip link set lo up; exec "$@"' sh env -i HOME="$at" XDG_RUNTIME_DIR="$at" PATH=/usr/bin:/bin DBUS_SESSION_BUS_ADDRESS=unix:path=/dev/null \
	KEYFOB_KEYSTORE=passphrase KEYFOB_PASSPHRASE_FILE="$at/passphrase" NOTIFY_SOCKET="$at/notify" WATCHDOG_USEC=150000000 \
	"$D" run --service --config "$at/config.toml" --data-dir "$at/data" --socket "$at/sock" >"$at/log" 2>&1 &
daemon=$!
trap 'kill $daemon $socat 2>/dev/null' EXIT
check "it is ready" wait_for 10 grep -q READY=1 "$at/notified"
switches() { cat /proc/$daemon/task/*/status 2>/dev/null | awk '/_ctxt_switches/ { n += $2 } END { print n + 0 }'; }
sleep 10 # what it does after its start
: >"$at/samples"
until [ -e "$at/end" ] && [ "$(wc -l <"$at/samples")" -ge 80 ]; do
	sleep 1
	switches >>"$at/samples"
done
# One wake-up may be seen in two samples that follow each other.
read -r woke seconds < <(awk 'NR > 1 { if ($1 != last) { if (!on) n++; on = 1 } else on = 0 } { last = $1 } END { print n + 0, NR }' "$at/samples")
check "no wake-up more than once a minute: $woke in $seconds s" test "$woke" -le $((seconds / 60 + 1))
check "but a beat for the service manager's watchdog" grep -q WATCHDOG=1 "$at/notified"
rss=$(awk '/VmRSS/{print $2}' /proc/$daemon/status)
check "no more than 25 MB resident: $rss kB" test "$rss" -le 25600
says "it still answers" unlocked "$K" --socket "$at/sock" --config "$at/config.toml" --data-dir "$at/data" --keystore passphrase status
exit $failed
