#!/bin/bash
# Runs the Windows programs in $1 under wine, with imdsget.exe of
# testdata/ beside them and a fake AWS ($2) of this machine. One line a check;
# exit code 1 when one failed. All that it writes is in $3, a directory of
# its own. It needs wine and x86_64-w64-mingw32-gcc, and no display.
set -u
programs=${1:?usage: wine.sh WINDOWS-PROGRAMS FAKEAWS DIRECTORY}
fakeaws=${2:?}
work=${3:?}
export WINEPREFIX=$work/prefix WINEDEBUG=-all DISPLAY='' WINEDLLOVERRIDES='mscoree,mshtml=' HOME=$work
for v in $(env | sed -n 's/^\(AWS_[A-Z0-9_]*\|KEYFOB_[A-Z0-9_]*\)=.*/\1/p'); do unset "$v"; done
# shellcheck disable=SC2034 # checks.sh wants it
BIN=$programs
# shellcheck source=packaging/test/checks.sh
. "$(dirname "$0")/checks.sh"

fake='' daemon=''
# shellcheck disable=SC2317 # called by trap
cleanup() {
	[ -z "$daemon" ] || kill "$daemon" 2>/dev/null
	[ -z "$fake" ] || kill "$fake" 2>/dev/null
	wineserver -k 2>/dev/null || true
	wineserver -w 2>/dev/null || true
}
trap cleanup EXIT

# Wine 8 lacks a library that Go wants for random numbers.
cat >"$work/prng.c" <<'C'
#include <windows.h>
#include <ntsecapi.h>
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE buffer, SIZE_T size) { return RtlGenRandom(buffer, (ULONG)size); }
C
if ! x86_64-w64-mingw32-gcc -shared -o "$work/bcryptprimitives.dll" "$work/prng.c" -ladvapi32 2>"$work/gcc.log"; then
	echo "skip wine: its random numbers can't be had: $(tail -1 "$work/gcc.log")"
	exit 0
fi
if ! timeout 180 wine wineboot -i >"$work/wineboot.log" 2>&1; then
	echo "skip wine: it does not start: $(tail -1 "$work/wineboot.log")"
	exit 0
fi
[ -e "$WINEPREFIX/drive_c/windows/system32/bcryptprimitives.dll" ] || cp "$work/bcryptprimitives.dll" "$WINEPREFIX/drive_c/windows/system32/"
home=$WINEPREFIX/drive_c/keyfob
mkdir -p "$home"
cp "$programs"/*.exe "$home/"
k() { timeout 60 wine 'C:\keyfob\keyfob.exe' "$@" </dev/null; }
d() { timeout 60 wine 'C:\keyfob\keyfobd.exe' "$@" </dev/null; }

echo "# the Windows programs under wine"
"$fakeaws" >"$work/aws.json" 2>&1 &
fake=$!
wait_for 10 grep -q secret_access_key "$work/aws.json" || bad "the fake AWS does not start"
url=$(field url <"$work/aws.json") key=$(sed 's/.*"access_key_id":"\([^"]*\)".*/\1/' "$work/aws.json") secret=$(field secret_access_key <"$work/aws.json")
printf '[profile base]\r\nregion = eu-west-1\r\nendpoint_url = %s\r\n' "$url" >"$home/config"
printf 'a passphrase' >"$home/passphrase"
printf '[[endpoint]]\r\nkind = "imds"\r\nlisten = "127.0.0.1:9933"\r\nprofile = "base"\r\n[[endpoint]]\r\nkind = "container"\r\nlisten = "127.0.0.1:9934"\r\n' >"$home/config.toml"
export KEYFOB_CONFIG='C:\keyfob\config.toml' KEYFOB_DATA_DIR='C:\keyfob\data' KEYFOB_KEYSTORE=passphrase KEYFOB_PASSPHRASE_FILE='C:\keyfob\passphrase'
export AWS_CONFIG_FILE='C:\keyfob\config' AWS_SHARED_CREDENTIALS_FILE='C:\keyfob\credentials'
says "version" '^keyfob ' k version
check "validate" d validate
wine 'C:\keyfob\keyfobd.exe' run >"$work/keyfobd.log" 2>&1 </dev/null &
daemon=$!
check "the daemon is ready" wait_for 20 grep -q 'keyfobd is ready' "$work/keyfobd.log"
k status >/dev/null 2>&1 # wine loses the first connection to a new pipe
says "the named pipe" '"backend": "passphrase"' k status --json
add() { printf '{"AccessKeyId":"%s","SecretAccessKey":"%s"}' "$key" "$secret" | timeout 60 wine 'C:\keyfob\keyfob.exe' add base; }
check "keys go into the vault" add
says "list" '"name": *"base"' k list --json
says "credential-process" '"Version":1' k credential-process --profile base
check "the secret is in no file" bash -c '! grep -rqF "$0" "$1"' "$secret" "$home"
# Wine 8 tells of an accepted connection with the next event only, so there
# are events.
touch "$work/events"
(while [ -e "$work/events" ]; do k status; done >/dev/null 2>&1) &
events=$!
says "a Windows program gets a token" '^200' timeout 60 wine 'C:\keyfob\imdsget.exe' 127.0.0.1:9933
says "and credentials" '^ASIA' timeout 60 wine 'C:\keyfob\imdsget.exe' 127.0.0.1:9933 base
check "a caller that is no Windows program gets nothing" test "$(curl -s -o /dev/null -w '%{http_code}' -m 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://127.0.0.1:9933/latest/api/token)" = 403
rm "$work/events"
wait "$events"
says "exec" 'AWS_CONTAINER_CREDENTIALS_FULL_URI=http://127.0.0.1:9934' k exec base -- cmd.exe /c set
check "lock" k lock
check "unlock" k unlock
check "stop" k stop
wait "$daemon"
daemon=''
# By a file: under wine a started daemon keeps the pipe of who started it.
k credential-process --profile base >"$work/first" 2>&1
k status >"$work/second" 2>&1
k credential-process --profile base >"$work/second" 2>&1
check "keyfob starts a daemon by itself" grep -q '"Version":1' "$work/second"
check "it is stopped" k stop

echo "# service commands under wine"
says "install --dry-run" 'make the service keyfob: C:' d service install --system --dry-run
# Wine starts no service of Go's, which look for session 0; and its service
# manager, just started, may not find what it has made.
for _ in 1 2; do
	d service install --system >"$work/install" 2>&1
	grep -q 'not installed' "$work/install" || break
done
if d service status --system --json 2>/dev/null | grep -q '"installed":true'; then
	ok "install makes the service"
	check "it starts by itself" bash -c 'grep -q "\"enabled\":true" <<<"$0"' "$(d service status --system --json)"
	check "uninstall" d service uninstall --system
elif grep -q 'cannot start' "$work/install"; then
	ok "a service that does not start is not left: $(grep -m1 cannot "$work/install")"
else
	bad "install: $(tail -2 "$work/install")"
fi
says "nothing is installed" '"installed":false' d service status --system --json
says "link-local is off" '"enabled":false' k link-local status --json
exit $failed
