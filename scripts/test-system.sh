#!/usr/bin/env bash
# The tests that need a machine of their own: a real systemd, booted in a
# container (systemd-nspawn) from a root file system that debootstrap makes
# and ~/.cache/keyfob-test keeps, and the Windows programs under wine. What
# this machine can't do is skipped by name. `--install` installs what is
# missing first (as root on Debian or Ubuntu); words after that name the
# parts to run (systemd, wine; both without).
#
# Root is needed for systemd. Nothing of this machine is changed: mounts live
# in a mount namespace of their own and end with it, and the container has a
# network of its own, without a way out.
set -euo pipefail

self=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")
root=$(dirname "$(dirname "$self")")
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/keyfob-test
suite=bookworm

if [ "${1:-}" = --install ]; then
  shift
  want=()
  command -v debootstrap >/dev/null || want+=(debootstrap)
  command -v systemd-nspawn >/dev/null || want+=(systemd-container)
  [ "$(uname -m)" != x86_64 ] || command -v wine >/dev/null || want+=(wine wine64)
  [ "$(uname -m)" != x86_64 ] || command -v x86_64-w64-mingw32-gcc >/dev/null || want+=(gcc-mingw-w64-x86-64-posix)
  if [ ${#want[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${want[@]}" >/dev/null || true
  fi
fi

# Everything below runs in a mount namespace, so that no mount is left.
if [ -z "${KEYFOB_TEST_UNSHARED:-}" ]; then
  export KEYFOB_TEST_UNSHARED=yes
  if [ "$(id -u)" = 0 ] && unshare -m --propagation private true 2>/dev/null; then
    exec unshare -m --propagation private "$self" "$@"
  fi
fi

cd "$root"
parts=" ${*:-systemd wine} "
passed=0 failed=0 skipped=0
say() { printf '\n== %s\n' "$*"; }
skip() {
  echo "skipped: $*"
  skipped=$((skipped + 1))
}
# tally reads the lines of a test, shows them and counts.
tally() {
  local line
  while IFS= read -r line; do
    echo "$line"
    case $line in
      'ok '*) passed=$((passed + 1)) ;;
      'FAIL '*) failed=$((failed + 1)) ;;
      'skip '*) skipped=$((skipped + 1)) ;;
    esac
  done
}

work=$(mktemp -d)
boot=     # systemd-nspawn
machine=$work/machine
cleanup() {
  status=$?
  trap - EXIT
  power_off
  rm -rf "$work/logs" "$work/windows"
  if mountpoint -q "$machine" 2>/dev/null; then umount -l "$machine"; fi
  rm -rf --one-file-system "$work"
  exit "$status"
}

# power_off ends the container, kindly and then by its id.
power_off() {
  [ -n "$boot" ] || return 0
  inside systemctl poweroff >/dev/null 2>&1 || true
  local i
  for i in $(seq 100); do
    kill -0 "$boot" 2>/dev/null || break
    [ "$i" != 80 ] || kill "$boot" 2>/dev/null || true
    [ "$i" != 95 ] || kill -9 "$boot" 2>/dev/null || true
    sleep 0.1
  done
  wait "$boot" 2>/dev/null || true
  boot=
  # The cgroup is empty now; one that is not stays to be found.
  if [ -n "${cgroup:-}" ]; then
    find "$cgroup" -depth -type d -exec rmdir {} \; 2>/dev/null || true
  fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM

leader() { pgrep -P "$boot" | head -1; }

# inside COMMAND… runs it in the container as root.
inside() {
  local l
  l=$(leader) && [ -n "$l" ] || return 1
  nsenter -t "$l" -a -- /usr/bin/env -i HOME=/root USER=root LC_ALL=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@" </dev/null
}

settled() {
  case $(inside systemctl is-system-running 2>/dev/null) in running | degraded) return 0 ;; esac
  return 1
}

come_up() {
  local i
  for i in $(seq 300); do
    kill -0 "$boot" 2>/dev/null || return 1
    if settled; then return 0; fi
    sleep 0.1
  done
  return 1
}

# start_machine boots the container and waits until it is up.
start_machine() {
  # shellcheck disable=SC2016 # expanded by that shell
  setsid bash -c 'echo $$ >"$0/cgroup.procs"; exec "$@"' "$cgroup" \
    systemd-nspawn -q -D "$machine" --register=no --keep-unit --private-network --console=pipe --system-call-filter=@keyring \
    --kill-signal=SIGRTMIN+3 --bind-ro="$work/bin:/opt/kf" --bind-ro="$root/packaging:/opt/packaging" -b </dev/null >"$work/boot.log" 2>&1 &
  boot=$!
  come_up || { tail -20 "$work/boot.log"; return 1; }
}

reboot_machine() {
  inside systemctl reboot >/dev/null 2>&1 || true
  local i code=0
  for i in $(seq 300); do
    kill -0 "$boot" 2>/dev/null || break
    [ "$i" != 290 ] || kill -9 "$boot" 2>/dev/null || true
    sleep 0.1
  done
  wait "$boot" || code=$?
  boot=
  # What nspawn says of a container that wants to be booted again.
  [ "$code" = 133 ] || return 1
  start_machine
}

# A root file system with systemd, made once and kept.
rootfs() {
  tarball=$cache/rootfs-$suite-1.tar
  [ -s "$tarball" ] && return 0
  mkdir -p "$cache" "$work/make"
  # In memory, because dpkg waits for the disk after each file.
  mount -t tmpfs -o size=2g tmpfs "$work/make"
  local began=$SECONDS mirror ok=yes
  mirror=$(sed -n -e 's/^URIs: *\(http[^ ]*\).*/\1/p' -e 's/^deb \(\[[^]]*\] \)\?\(http[^ ]*\) .*/\2/p' /etc/apt/sources.list /etc/apt/sources.list.d/debian* 2>/dev/null | head -1)
  debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,curl,iproute2,procps,ca-certificates \
    "$suite" "$work/make/root" ${mirror:+"$mirror"} >"$work/debootstrap.log" 2>&1 || ok=no
  if [ $ok = yes ]; then
    rm -rf "$work"/make/root/var/cache/apt/archives/*.deb "$work"/make/root/var/lib/apt/lists/*
    tar -C "$work/make/root" -cf "$tarball.new" . && mv "$tarball.new" "$tarball" || ok=no
    echo "a root file system of $(du -h "$tarball" | cut -f1) in $((SECONDS - began)) s"
  else
    tail -5 "$work/debootstrap.log"
  fi
  umount -l "$work/make"
  [ $ok = yes ]
}

can_boot() {
  [ "$(id -u)" = 0 ] || { why="not root"; return 1; }
  local p
  for p in systemd-nspawn nsenter unshare pgrep; do
    command -v $p >/dev/null || { why="no $p"; return 1; }
  done
  unshare -m --propagation private true 2>/dev/null || { why="no mount namespaces"; return 1; }
  if ! command -v debootstrap >/dev/null && [ ! -s "$cache/rootfs-$suite-1.tar" ]; then
    why="no debootstrap"
    return 1
  fi
  # systemd in a container wants the unified hierarchy, whatever the machine
  # itself has mounted.
  umount -lR /sys/fs/cgroup 2>/dev/null || true
  mount -t cgroup2 none /sys/fs/cgroup 2>/dev/null || { why="no cgroup2"; return 1; }
  cgroup=/sys/fs/cgroup/keyfob-test-$$
  mkdir "$cgroup" 2>/dev/null || { why="no cgroups that may be made"; return 1; }
}

boot_machine() {
  mkdir -p "$machine"
  mount -t tmpfs -o size=3g tmpfs "$machine"
  tar -C "$machine" -xf "$tarball"
  echo keyfob-test >"$machine/etc/hostname"
  mount -t tmpfs -o mode=755 tmpfs /run # of this namespace: nspawn's locks
  local began=$EPOCHREALTIME
  start_machine || return 1
  echo "booted in $(awk "BEGIN { printf \"%.1f\", $EPOCHREALTIME - $began }") s: $(inside systemctl --version | head -1)"
}

run_inside() { # run_inside SCRIPT ARGUMENTS…
  local out=$work/out began=$SECONDS
  inside timeout -k 5 300 bash "/opt/packaging/test/$1" /opt/kf "${@:2}" >"$out" 2>&1 || true
  tally <"$out"
  grep -q '^ok ' "$out" || { echo "FAIL $1 did not run"; failed=$((failed + 1)); }
  echo "   ($1 ${*:2}: $((SECONDS - began)) s)"
}

systemd_part() {
  say "a real systemd"
  why=
  can_boot || { skip "systemd: $why"; return 0; }
  rootfs || { skip "systemd: no root file system could be made"; return 0; }
  mkdir -p "$work/bin"
  if [ -n "${KEYFOB_TEST_BIN:-}" ]; then # programs that were built before
    cp "$KEYFOB_TEST_BIN"/* "$work/bin/"
  else
    CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$work/bin/" ./cmd/keyfob ./cmd/keyfobd ./cmd/keyfob-keyring ./cmd/keyfob-signin ./cmd/fakeaws
  fi
  chmod 755 "$work" "$work/bin"
  boot_machine || { echo "FAIL the container does not boot"; failed=$((failed + 1)); return 0; }
  run_inside systemd-inside.sh
  run_inside life-inside.sh before
  reboot_machine || { echo "FAIL the container does not reboot"; failed=$((failed + 1)); return 0; }
  run_inside life-inside.sh after
  run_inside linklocal-inside.sh on
  reboot_machine || { echo "FAIL the container does not reboot"; failed=$((failed + 1)); return 0; }
  run_inside linklocal-inside.sh off
  run_inside system-inside.sh
  package_part
  power_off
}

# A .deb, if packaging/build.sh makes one here: installed, upgraded, purged.
package_part() {
  local deb
  deb=$(find "${KEYFOB_TEST_DEB:-$work/dist}" -maxdepth 1 -name "*$(dpkg --print-architecture 2>/dev/null || echo amd64).deb" 2>/dev/null | head -1) || deb=
  if [ -z "$deb" ] && [ -x packaging/build.sh ]; then
    packaging/build.sh --version 0.0.1 --out "$work/dist" --platform "linux/$(go env GOARCH)" >"$work/package.log" 2>&1 || true
    deb=$(find "$work/dist" -maxdepth 1 -name '*.deb' 2>/dev/null | head -1)
  fi
  [ -n "$deb" ] || { skip "the .deb: packaging/build.sh makes none here: $(tail -1 "$work/package.log" 2>/dev/null)"; return 0; }
  mkdir -p "$machine/opt/deb"
  cp "$deb" "$machine/opt/deb/keyfob.deb"
  run_inside package-inside.sh
}

wine_part() {
  say "the Windows programs under wine"
  local p
  for p in wine wineserver x86_64-w64-mingw32-gcc curl; do
    command -v $p >/dev/null || { skip "wine: no $p"; return 0; }
  done
  [ "$(go env GOARCH)" = amd64 ] || { skip "wine: not an amd64 machine"; return 0; }
  mkdir -p "$work/windows" "$work/wine"
  GOOS=windows CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$work/windows/" ./cmd/keyfob ./cmd/keyfobd ./cmd/keyfob-keyring ./cmd/keyfob-signin
  GOOS=windows CGO_ENABLED=0 go build -o "$work/windows/imdsget.exe" ./packaging/test/testdata/imdsget
  CGO_ENABLED=0 go build -o "$work/wine/fakeaws" ./cmd/fakeaws
  local began=$SECONDS
  timeout -k 20 400 bash packaging/test/wine.sh "$work/windows" "$work/wine/fakeaws" "$work/wine" >"$work/out" 2>&1 || true
  tally <"$work/out"
  grep -q -e '^ok ' -e '^skip ' "$work/out" || { echo "FAIL wine.sh did not run"; failed=$((failed + 1)); }
  echo "   (wine.sh: $((SECONDS - began)) s)"
}

case $parts in *' systemd '*) systemd_part ;; esac
case $parts in *' wine '*) wine_part ;; esac
printf '\n%s passed, %s failed, %s skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" = 0 ]
