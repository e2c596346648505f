#!/usr/bin/env bash
# All tests of keyfob. What is missing on this machine is skipped by name;
# `scripts/test.sh --install` installs what it may first (as root on Debian
# or Ubuntu: gnome-keyring, the AWS CLI, boto3, shellcheck and more clients;
# with npm: the AWS SDK for JavaScript). With CI=true, on a machine that is
# thrown away, also what nobody wants installed in passing: cloud-init, which
# takes part in the next boot, a browser, a software TPM and HSM.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }
cache=${XDG_CACHE_HOME:-$HOME/.cache}/keyfob-test
skipped=()

# No test may find a session bus of this machine, nor start one.
export DBUS_SESSION_BUS_ADDRESS=unix:path=/dev/null
# Nor anybody's AWS settings.
for v in $(env | sed -n 's/^\(AWS_[A-Z0-9_]*\|KEYFOB_[A-Z0-9_]*\)=.*/\1/p'); do
  case $v in KEYFOB_TEST_*) ;; *) unset "$v" ;; esac
done

install_what_is_missing() {
  say "installing what the tests can use"
  local want=()
  command -v gnome-keyring-daemon >/dev/null || want+=(gnome-keyring)
  command -v dbus-run-session >/dev/null || want+=(dbus-daemon)
  [ -x /usr/bin/aws ] || want+=(awscli)
  /usr/bin/python3 -c 'import boto3' 2>/dev/null || want+=(python3-boto3)
  command -v shellcheck >/dev/null || want+=(shellcheck)
  command -v curl >/dev/null || want+=(curl)
  command -v ip >/dev/null || want+=(iproute2)
  command -v openssl >/dev/null || want+=(openssl)
  if [ "${CI:-}" = true ]; then
    /usr/bin/python3 -c 'import cloudinit' 2>/dev/null || want+=(cloud-init)
    command -v ec2metadata >/dev/null || want+=(cloud-guest-utils)
    command -v ec2-metadata >/dev/null || want+=(amazon-ec2-utils)
    command -v chromium >/dev/null || want+=(chromium)
    command -v Xvfb >/dev/null || want+=(xvfb)
    command -v softhsm2-util >/dev/null || want+=(softhsm2)
    command -v swtpm >/dev/null || want+=(swtpm swtpm-tools)
    command -v s3cmd >/dev/null || want+=(s3cmd)
    command -v rclone >/dev/null || want+=(rclone)
    command -v restic >/dev/null || want+=(restic)
    command -v s3fs >/dev/null || want+=(s3fs)
    command -v gdalinfo >/dev/null || want+=(gdal-bin)
    command -v zsh >/dev/null || want+=(zsh)
    command -v fish >/dev/null || want+=(fish)
    command -v tmux >/dev/null || want+=(tmux)
    command -v mandoc >/dev/null || want+=(mandoc)
  fi
  if [ ${#want[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${want[@]}" >/dev/null ||
        skipped+=("apt packages that could not be installed: ${want[*]}")
    else
      skipped+=("apt packages that may not be installed here: ${want[*]}")
    fi
  fi
  if command -v npm >/dev/null && { [ ! -d "$cache/js/node_modules/@aws-sdk/client-sts" ] || [ ! -d "$cache/js/node_modules/aws-sdk" ]; }; then
    mkdir -p "$cache/js"
    cp scripts/clients/package.json "$cache/js/"
    (cd "$cache/js" && npm install --no-audit --no-fund --silent) || skipped+=("the AWS SDK for JavaScript (npm install failed)")
  fi
}

# what_failed prints what the failed tests of `go test -v` said, and what was
# said outside of any test where a package failed (a panic, a build error).
what_failed() {
  awk '
    function forget(k) { for (k in said) delete said[k]; for (k in failed) delete failed[k]; name = "" }
    /^=== (RUN|CONT|NAME) / { name = $3; next }
    /^=== PAUSE / { next }
    /^ *--- FAIL: / { failed[$3] = 1; name = $3 }
    /^ *--- (PASS|SKIP): / { name = $3; next }
    /^FAIL\t/ { for (k in said) if (k in failed || k == "") print said[k]; print; forget(); next }
    /^ok  \t/ || /^\?   \t/ { forget(); next }
    /^panic: |^fatal error: |^WARNING: DATA RACE|^# / { failed[name] = 1 }
    length(said[name]) < 20000 { said[name] = said[name] $0 "\n" }
  ' "$1"
}

# failed_tests prints "PACKAGE TEST" for each top-level test that failed, and
# "PACKAGE -" for a package that failed without one.
failed_tests() {
  awk '
    /^--- FAIL: / { names[++n] = $3; next }
    /^FAIL\t/ { pkg = $2; if (n == 0) print pkg, "-"; for (i = 1; i <= n; i++) print pkg, names[i]; n = 0; next }
    /^ok  \t/ || /^\?   \t/ { n = 0 }
  ' "$1"
}

[ "${1:-}" = --install ] && install_what_is_missing
export KEYFOB_TEST_JS=${KEYFOB_TEST_JS:-$cache/js}

say "format"
unformatted=$(gofmt -l cmd daemon imds internal keystore profiles)
[ -z "$unformatted" ] || { echo "gofmt would change: $unformatted"; exit 1; }

say "build and vet for linux, darwin and windows"
for os in linux darwin windows; do
  GOOS=$os CGO_ENABLED=0 go build ./...
  GOOS=$os CGO_ENABLED=0 go vet ./...
done

go vet scripts/pictures/draw.go
say "staticcheck"
staticcheck=$(command -v staticcheck || echo "$(go env GOPATH)/bin/staticcheck")
if [ ! -x "$staticcheck" ]; then
  go install honnef.co/go/tools/cmd/staticcheck@v0.8.2 || true
fi
if [ -x "$staticcheck" ]; then "$staticcheck" ./...; else skipped+=("staticcheck (it could not be installed)"); fi

say "shellcheck"
if command -v shellcheck >/dev/null; then
  shellcheck -S warning scripts/*.sh .ci/run packaging/*.sh
  shellcheck -S warning -x packaging/test/*.sh
else
  skipped+=("shellcheck (not installed)")
fi

say "go test -race"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
ok=0
if go env CGO_ENABLED | grep -q 1 && command -v "$(go env CC)" >/dev/null; then race=-race; else race=; skipped+=("the race detector (no C compiler)"); fi
go test $race -timeout 15m -v ./... >"$log" 2>&1 || ok=$?
grep -E '^(ok|FAIL|\?|panic:|--- FAIL)|^    --- FAIL' "$log" || true
if [ "$ok" != 0 ]; then
  say "what failed"
  what_failed "$log"
fi
fail=$(grep -cE '^ *--- FAIL' "$log" || true)

# Tests with real programs on a crowded machine can fail for want of time. A
# few that did are run once more, alone: those that pass then are named, and
# do not fail the whole.
# A data race or a panic is never a matter of time.
if [ "$ok" != 0 ] && ! grep -qE '^WARNING: DATA RACE|^panic: ' "$log" && [ "$(failed_tests "$log" | wc -l)" -le 3 ] && ! failed_tests "$log" | grep -q ' -$'; then
  say "once more, alone"
  again=0
  while read -r pkg name; do
    if go test $race -timeout 10m -count=1 -run "^$name\$" "$pkg"; then
      skipped+=("nothing, but $name of $pkg failed at first and passed alone: it depends on time")
    else
      again=1
    fi
  done < <(failed_tests "$log")
  if [ "$again" = 0 ]; then ok=0 fail=0; fi
fi

if [ -n "$race" ] && command -v softhsm2-util >/dev/null; then
  say "go test -tags pkcs11"
  go vet -tags pkcs11 ./internal/source/rolesanywhere || ok=1
  go test -tags pkcs11 -timeout 5m ./internal/source/rolesanywhere || ok=1
else
  skipped+=("the PKCS #11 build (no softhsm2 or no C compiler)")
fi

say "skipped"
grep -hE -B1 '^ *--- SKIP' "$log" | grep -vE '^--$|^=== ' || true
for s in "${skipped[@]}"; do echo "skipped: $s"; done
pass=$(grep -cE '^ *--- PASS' "$log" || true)
skip=$(grep -cE '^ *--- SKIP' "$log" || true)
printf '\n%s passed, %s failed, %s skipped\n' "$pass" "$fail" "$skip"
exit "$ok"
