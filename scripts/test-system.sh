#!/usr/bin/env bash
# The tests that need a machine of their own, in parts:
#
#   systemd     a real systemd, booted in a container (systemd-nspawn) from a
#               root file system that debootstrap makes and ~/.cache/keyfob-test
#               keeps: services, reboots, link-local, the .deb
#   openrc      a real OpenRC, in the same root file system
#   packages    the rpm and the Arch package, installed into it
#   containers  the recipes of packaging/container, with podman
#   wine        the Windows programs
#   idle        a daemon that nobody asks, watched while the others run
#
# `--install` installs what is missing first (as root on Debian or Ubuntu);
# words after that name the parts to run. What this machine can't do is
# skipped by name; each part has a time limit.
#
# Root is needed for all but wine. Nothing of this machine is changed: mounts
# and processes live in namespaces of their own and end with them, and the
# containers have networks of their own, without a way out.
# shellcheck disable=SC2034,SC2154 # shared with packaging/test/machine.sh
set -euo pipefail

self=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")
root=$(dirname "$(dirname "$self")")
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/keyfob-test
export DBUS_SESSION_BUS_ADDRESS=unix:path=/dev/null
for v in $(env | sed -n 's/^\(AWS_[A-Z0-9_]*\|KEYFOB_[A-Z0-9_]*\)=.*/\1/p'); do
  case $v in KEYFOB_TEST_*) ;; *) unset "$v" ;; esac
done

install_what_is_missing() {
  local want=()
  command -v debootstrap >/dev/null || want+=(debootstrap)
  command -v systemd-nspawn >/dev/null || want+=(systemd-container)
  command -v rpm >/dev/null || want+=(rpm)
  command -v pacman >/dev/null || want+=(pacman-package-manager)
  command -v podman >/dev/null || want+=(podman)
  command -v crun >/dev/null || want+=(crun)
  [ -x /usr/lib/podman/netavark ] || want+=(netavark)
  [ -x /usr/lib/podman/aardvark-dns ] || want+=(aardvark-dns)
  command -v socat >/dev/null || want+=(socat)
  /usr/bin/python3 -c 'import yaml' 2>/dev/null || want+=(python3-yaml)
  /usr/bin/python3 -c 'import boto3' 2>/dev/null || want+=(python3-boto3)
  if [ "$(uname -m)" = x86_64 ]; then
    command -v wine >/dev/null || want+=(wine wine64)
    command -v x86_64-w64-mingw32-gcc >/dev/null || want+=(gcc-mingw-w64-x86-64-posix)
  fi
  if [ ${#want[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    timeout 120 apt-get update -qq || true
    # One by one where not all can be had: another distribution lacks some.
    DEBIAN_FRONTEND=noninteractive timeout 600 apt-get install -qq -y --no-install-recommends "${want[@]}" >/dev/null ||
      for p in "${want[@]}"; do DEBIAN_FRONTEND=noninteractive timeout 300 apt-get install -qq -y --no-install-recommends "$p" >/dev/null || true; done
  fi
}
if [ "${1:-}" = --install ]; then
  shift
  install_what_is_missing
fi

# Everything below runs in namespaces of its own, which end with it.
if [ -z "${KEYFOB_TEST_TRIED:-}" ]; then
  export KEYFOB_TEST_TRIED=yes
  namespaces=(unshare --mount --pid --fork --mount-proc --kill-child --propagation private)
  if [ "$(id -u)" = 0 ] && "${namespaces[@]}" true 2>/dev/null; then
    KEYFOB_TEST_UNSHARED=yes exec "${namespaces[@]}" "$self" "$@"
  fi
fi

cd "$root"
say() { printf '\n== %s\n' "$*"; }
skip() { echo "skip $*"; }

systemd_part() {
  can_boot || { skip "systemd: $why"; return 0; }
  unpack
  local began=$EPOCHREALTIME
  start_machine || { echo "FAIL the machine does not boot"; return 0; }
  echo "booted in $(awk "BEGIN { printf \"%.1f\", $EPOCHREALTIME - $began }") s: $(inside systemctl --version | head -1)"
  run_inside 150 systemd-inside.sh
  run_inside 120 life-inside.sh before
  reboot_machine || { echo "FAIL the machine does not reboot"; return 0; }
  run_inside 60 life-inside.sh after
  run_inside 90 linklocal-inside.sh on
  reboot_machine || { echo "FAIL the machine does not reboot"; return 0; }
  run_inside 60 linklocal-inside.sh off
  run_inside 90 system-inside.sh
  local deb
  deb=$(package '*.deb') || return 0
  mkdir -p "$machine/opt/deb"
  cp "$deb" "$machine/opt/deb/keyfob.deb"
  run_inside 90 package-inside.sh
}

# package PATTERN finds one of what packaging/build.sh made, or says that it
# made none.
package() {
  local found
  found=$(find "$work/dist/" -maxdepth 1 -name "$1" 2>/dev/null | head -1)
  [ -n "$found" ] || { skip "the ${1#\*}: packaging/build.sh makes none here: $(tail -1 "$work/build.log" 2>/dev/null)" >&2; return 1; }
  echo "$found"
}

openrc_part() {
  can_boot || { skip "OpenRC: $why"; return 0; }
  local said
  said=$(fetch_openrc) || { skip "OpenRC: its packages can't be had: $said"; return 0; }
  unpack
  nspawn --as-pid2 --bind-ro="$openrc_debs:/opt/debs" /bin/bash /opt/packaging/test/openrc-inside.sh /opt/kf /opt/debs 2>&1 &
  boot=$!
  local code=0
  wait "$boot" || code=$? # not the script in the foreground: a signal ends this wait
  boot=
  return $code
}

packages_part() {
  can_run || { skip "the packages: $why"; return 0; }
  unpack
  bash packaging/test/packages.sh "$work/dist" "$machine"
}

containers_part() {
  local image
  image=$(package '*_image_*.tar') || return 0
  [ -n "${KEYFOB_TEST_UNSHARED:-}" ] || { skip "the container recipes: not root, or no namespaces"; return 0; }
  local code=0
  /usr/bin/python3 packaging/container/prove.py "$image" "$work/bin" || code=$?
  [ $code = 77 ] || return $code # 77: it has said what is missing
}

wine_part() {
  local p
  for p in wine wineserver x86_64-w64-mingw32-gcc curl; do
    command -v $p >/dev/null || { skip "wine: no $p"; return 0; }
  done
  [ "$(go env GOARCH)" = amd64 ] || { skip "wine: not an amd64 machine"; return 0; }
  mkdir -p "$work/windows" "$work/wine"
  # As scripts/test.sh builds for Windows, so that it is built once.
  GOOS=windows CGO_ENABLED=0 go build -ldflags "-s -w" -o "$work/windows/" ./cmd/keyfob ./cmd/keyfobd ./cmd/keyfob-keyring ./cmd/keyfob-signin ||
    { echo "FAIL the Windows programs do not build"; return 0; }
  GOOS=windows CGO_ENABLED=0 go build -o "$work/windows/imdsget.exe" ./packaging/test/testdata/imdsget
  bash packaging/test/wine.sh "$work/windows" "$work/bin/fakeaws" "$work/wine"
}

# idle.sh runs since the programs were built, beside the other parts.
idle_part() {
  [ -e "$work/idle.pid" ] || { skip "the idle daemon: not root, or no namespaces"; return 0; }
  mkdir -p "$work/idle"
  : >"$work/idle/end"
  tail -s 0.2 --pid="$(cat "$work/idle.pid")" -f /dev/null
  cat "$work/idle.said"
  ! grep -q '^FAIL ' "$work/idle.said"
}

# build makes the programs once for all parts, and packages of them.
build() {
  local arch
  arch=$(go env GOARCH)
  mkdir -p "$work/bin"
  if [ -n "${KEYFOB_TEST_BIN:-}" ]; then # programs that were built before
    cp "$KEYFOB_TEST_BIN"/* "$work/bin/"
    [ -z "${KEYFOB_TEST_DIST:-}" ] || ln -s "$KEYFOB_TEST_DIST" "$work/dist"
  elif timeout -k 10 300 packaging/build.sh --version 0.0.1 --platform "linux/$arch" --out "$work/dist" --keep "$work/stage" >"$work/build.log" 2>&1; then
    cp "$work/stage/bin/linux-$arch"/* "$work/bin/"
  else # without the modules of packaging/tools
    CGO_ENABLED=0 timeout -k 10 300 go build -trimpath -ldflags "-s -w" -o "$work/bin/" ./cmd/keyfob ./cmd/keyfobd ./cmd/keyfob-keyring ./cmd/keyfob-signin || return 1
  fi
  [ -x "$work/bin/fakeaws" ] || CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$work/bin/" ./cmd/fakeaws || return 1
  chmod 755 "$work" "$work/bin"
}

# One part, in a process of its own: see run_part.
if [ "${1:-}" = --part ]; then
  work=$KEYFOB_TEST_WORK
  # shellcheck source=packaging/test/machine.sh
  . packaging/test/machine.sh
  # shellcheck disable=SC2329 # called by trap
  leave() {
    trap - EXIT
    power_off
    ! mountpoint -q "$machine" 2>/dev/null || umount -l "$machine"
  }
  trap leave EXIT
  trap 'exit 130' INT TERM
  "${2}_part"
  exit
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/keyfob-system.XXXXXX")
export KEYFOB_TEST_WORK=$work
# shellcheck source=packaging/test/machine.sh
. packaging/test/machine.sh
running= # the part that runs
cleanup() {
  local status=$?
  trap - EXIT
  trap '' INT TERM
  if [ -n "$running" ]; then
    kill "$running" 2>/dev/null || true
    wait "$running" 2>/dev/null || true
  fi
  empty_cgroup "$cgroup"
  umount -l "$work/make" 2>/dev/null || true
  rm -rf --one-file-system "$work"
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# run_part NAME SECONDS TITLE runs a part and shows what it says. One that
# hangs is ended, and so is whatever it leaves.
passed=0 failed=0 skipped=0 table=()
run_part() {
  case $parts in *" $1 "*) ;; *) return 0 ;; esac
  say "$3"
  local log=$work/$1.log began=$SECONDS code=0 ok bad skips
  timeout -k 30 "$2" "$self" --part "$1" >"$log" 2>&1 &
  running=$!
  tail -n +1 -s 0.2 -f --pid="$running" "$log" || true
  wait "$running" || code=$?
  running=
  if [ $code = 124 ] || [ $code = 137 ]; then
    echo "FAIL $1: not done within $2 s" | tee -a "$log"
  elif [ $code != 0 ] && ! grep -q '^FAIL ' "$log"; then
    echo "FAIL $1: it broke off with exit code $code: $(tail -1 "$log")" | tee -a "$log"
  fi
  empty_cgroup "$cgroup" 2>>"$log"
  ok=$(grep -c '^ok ' "$log" || true) bad=$(grep -c '^FAIL ' "$log" || true) skips=$(grep -c '^skip ' "$log" || true)
  if [ "$((ok + bad + skips))" = 0 ]; then
    echo "FAIL $1: it checked nothing" | tee -a "$log"
    bad=1
  fi
  passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skips))
  table+=("$(printf '%-11s %4s s  %3s passed, %s failed, %s skipped' "$1" $((SECONDS - began)) "$ok" "$bad" "$skips")")
}

parts=" ${*:-systemd openrc packages containers wine idle} "
for p in $parts; do
  case $p in systemd | openrc | packages | containers | wine | idle) ;; *)
    echo "test-system: there is no part $p" >&2
    exit 2
    ;;
  esac
done

say "preparing"
began=$SECONDS rootfs=
if [ -n "${KEYFOB_TEST_UNSHARED:-}" ]; then
  mount -t tmpfs -o mode=755 tmpfs /run # of this namespace: nspawn's locks
  case $parts in *' systemd '* | *' openrc '* | *' packages '*)
    { make_rootfs || true; } &
    rootfs=$!
    ;;
  esac
fi
build || { echo "FAIL the programs do not build: $(tail -3 "$work/build.log" 2>/dev/null)"; exit 1; }
built=$((SECONDS - began))
if [ -n "${KEYFOB_TEST_UNSHARED:-}" ] && [[ $parts == *' idle '* ]]; then
  bash packaging/test/idle.sh "$work/bin" "$work/idle" >"$work/idle.said" 2>&1 &
  echo $! >"$work/idle.pid"
fi
[ -z "$rootfs" ] || wait "$rootfs" || true
table+=("$(printf '%-11s %4s s  (%s s to build)' preparing $((SECONDS - began)) $built)")

run_part systemd 420 "a real systemd"
run_part openrc 150 "a real OpenRC"
run_part packages 90 "packages of other distributions"
run_part containers 150 "containers"
run_part wine 300 "the Windows programs under wine"
run_part idle 120 "an idle daemon"

say "summary"
for line in "${table[@]}"; do echo "$line"; done
[ "$skipped" = 0 ] || grep -h '^skip ' "$work"/*.log | sed 's/^skip */skipped: /'
[ "$failed" = 0 ] || grep -h '^FAIL ' "$work"/*.log
printf '\n%s passed, %s failed, %s skipped in %s s\n' "$passed" "$failed" "$skipped" "$SECONDS"
[ "$failed" = 0 ]
