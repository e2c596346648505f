#!/usr/bin/env bash
# How fast and how small: each figure beside a bare minimal program, in one
# run on this machine. docs/speed.md says what the figures should be.
set -euo pipefail
cd "$(dirname "$0")/.."
export DBUS_SESSION_BUS_ADDRESS=unix:path=/dev/null
bench() { # package, pattern, more arguments
  local package=$1 pattern=$2
  shift 2
  go test -run '^$' -bench "$pattern" "$@" "$package" | grep -E '^(Benchmark|FAIL|---|ok|panic)' || true
}
echo "# endpoints, against net/http with fixed bytes (kept and fresh connections)"
bench ./imds . -benchtime "${BENCHTIME:-2s}"
echo "# the hot path of the broker, of rules and of tokens"
bench ./internal/broker .
bench ./internal/access .
bench ./internal/peer .
echo "# resolution"
bench ./profiles .
echo "# the vault"
bench ./keystore .
echo "# whole programs"
bench ./internal/e2e . -benchtime 1x
