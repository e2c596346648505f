#!/usr/bin/env bash
# The soak: 500 clients ask one daemon by every way while sessions live for
# seconds and a fake AWS is out now and then. Prints what the daemon takes of
# the machine, and fails if that grows, or if a client ever gets what has
# expired, or nothing while credentials could be had. Loopback only.
#
#   scripts/soak.sh [--minutes N | --hours N]     (2 minutes)
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  echo "usage: scripts/soak.sh [--minutes N | --hours N]" >&2
  exit 2
}

minutes=2
case ${1:-} in
  "") [ $# = 0 ] || usage ;;
  --minutes | --hours)
    [ $# = 2 ] || usage
    # No leading zero: the shell would read it as octal. Up to a month.
    [[ $2 =~ ^[1-9][0-9]{0,4}$ ]] || usage
    minutes=$2
    [ "$1" = --minutes ] || minutes=$((minutes * 60))
    [ "$minutes" -le 43200 ] || usage
    ;;
  *) usage ;;
esac

# No test may find a session bus of this machine, nor anybody's AWS settings.
export DBUS_SESSION_BUS_ADDRESS=unix:path=/dev/null
for v in $(env | sed -n 's/^\(AWS_[A-Z0-9_]*\|KEYFOB_[A-Z0-9_]*\)=.*/\1/p'); do unset "$v"; done

# Each client has a connection or two, and so have daemon and fake AWS.
want=8192
if [ "$(ulimit -Sn)" != unlimited ] && [ "$(ulimit -Sn)" -lt "$want" ]; then
  ulimit -Sn "$want" 2>/dev/null || ulimit -Sn "$(ulimit -Hn)"
fi

export KEYFOB_TEST_SOAK=${minutes}m
exec go test -count=1 -timeout "$((minutes + 10))m" -run '^TestSoak$' -v ./internal/e2e
