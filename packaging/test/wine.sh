#!/bin/bash
# Runs the Windows programs in $1 under wine, with imdsget.exe of
# testdata/ beside them and a fake AWS ($2) of this machine. One line a check;
# exit code 1 when one failed. All that it writes is in $3, a directory of
# its own. It needs wine, x86_64-w64-mingw32-gcc and go, and no display.
#
# What wine 8 can't do, so that nothing here shows it: access lists (it makes
# modes of them: one for "everybody" is kept, who else there is and
# inheritance are not), symbolic links and junctions, the Event Viewer (what
# is written there is seen in wine's own log), recovery of a service that has
# failed, the task scheduler, PowerShell.
set -u
umask 077 # wine makes access lists of modes, and inherits none
programs=${1:?usage: wine.sh WINDOWS-PROGRAMS FAKEAWS DIRECTORY}
fakeaws=${2:?}
work=${3:?}
# On a network of its own, where it may have one: for each caller wine reads
# all connections of the machine, and of a hundred thousand that another test
# has just closed that takes it longer than anybody waits.
if [ -z "${KEYFOB_TEST_NETWORK:-}" ] && command -v ip >/dev/null && unshare -n true 2>/dev/null; then
	KEYFOB_TEST_NETWORK=own exec unshare -n bash "$0" "$@"
fi
[ -z "${KEYFOB_TEST_NETWORK:-}" ] || ip link set lo up
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck disable=SC2034 # the parts want it
source=$(cd "$here/../.." && pwd)
GOCACHE=$(go env GOCACHE) GOMODCACHE=$(go env GOMODCACHE) GOENV=$(go env GOENV)
export GOCACHE GOMODCACHE GOENV
export WINEPREFIX=$work/prefix WINEDEBUG=-all DISPLAY='' WINEDLLOVERRIDES='mscoree,mshtml=' HOME=$work
for v in $(env | sed -n 's/^\(AWS_[A-Z0-9_]*\|KEYFOB_[A-Z0-9_]*\)=.*/\1/p'); do unset "$v"; done
# shellcheck disable=SC2034 # checks.sh wants it
BIN=$programs
# shellcheck source=packaging/test/checks.sh
. "$here/checks.sh"

# Another run may be under way.
imds=$((20000 + RANDOM % 10000)) container=$((30000 + RANDOM % 2000))
fake=''
stop_wine() {
	timeout 20 wineserver -k || true
	timeout 20 wineserver -w || true
}
# shellcheck disable=SC2317 # called by trap
cleanup() {
	[ -z "$fake" ] || kill "$fake" 2>/dev/null
	stop_wine 2>/dev/null
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
# The first start leaves two service managers: a service that one has made the
# other does not know. The next start has one.
timeout 30 wineserver -w || stop_wine
[ -e "$WINEPREFIX/drive_c/windows/system32/bcryptprimitives.dll" ] || cp "$work/bcryptprimitives.dll" "$WINEPREFIX/drive_c/windows/system32/"
home=$WINEPREFIX/drive_c/keyfob
mkdir -p "$home"
cp "$programs"/*.exe "$home/"
for p in keyfob keyfobd keyfob-keyring imdsget; do
	[ -e "$home/$p.exe" ] || { bad "there is no $p.exe in $programs"; exit 1; }
done

# again SECONDS COMMAND…: wine 8 loses an event now and then, and whoever waits
# for it waits for ever. Then the same is asked once more; a failure is none to
# try again. Where that does not help either, the part is lost, and nothing
# else of it is tried.
again() {
	local limit=$1 code
	shift
	[ ! -e "$work/lost" ] || { echo "wine hangs"; return 124; }
	for _ in 1 2; do
		timeout -k 5 "$limit" "$@" </dev/null >"$work/again.out"
		code=$?
		[ "$code" = 124 ] || { cat "$work/again.out"; return "$code"; }
	done
	echo "no answer in $limit s, twice" | tee "$work/lost"
	return "$code"
}
k() { again 15 wine 'C:\keyfob\keyfob.exe' "$@"; }
# as_machine runs a command without the variables of the person's daemon.
as_machine() (
	unset KEYFOB_CONFIG KEYFOB_DATA_DIR KEYFOB_KEYSTORE KEYFOB_PASSPHRASE_FILE AWS_CONFIG_FILE AWS_SHARED_CREDENTIALS_FILE
	"$@"
)
d() { timeout 60 wine 'C:\keyfob\keyfobd.exe' "$@" </dev/null; }

ended() { # ended PID: waits for its end, and makes one where there is none
	wait_for 30 bash -c '! kill -0 "$0"' "$1" || kill "$1"
	wait "$1" 2>/dev/null
}

# part NAME TITLE runs wine/NAME.sh in a wine that was started anew. Wine 8
# loses events and, on a busy machine, its own server. So a part in which
# something fails is run once more; what fails twice has failed.
part() {
	local name=$1 out=$work/part-$1 try
	echo "# $2"
	for try in 1 2; do
		stop_wine
		rm -f "$work/lost"
		# shellcheck source=/dev/null
		(failed=0 && . "$here/wine/$name.sh" && exit $failed) >"$out" 2>&1 </dev/null && break
		[ $try = 2 ] || sed -n 's/^FAIL /   (tried once more: /p' "$out" | sed '1!d; s/$/)/'
	done
	cat "$out"
	! grep -q '^FAIL ' "$out" && grep -q '^ok ' "$out" || failed=1
}

for p in keyfob keyfobd keyfob-keyring imdsget; do
	[ -e "$home/$p.exe" ] || { bad "there is no $p.exe in $programs"; exit 1; }
done
"$fakeaws" >"$work/aws.json" 2>&1 &
fake=$!
wait_for 10 grep -q secret_access_key "$work/aws.json" || bad "the fake AWS does not start"
url=$(field url <"$work/aws.json") key=$(sed 's/.*"access_key_id":"\([^"]*\)".*/\1/' "$work/aws.json") secret=$(field secret_access_key <"$work/aws.json")
printf '[profile base]\r\nregion = eu-west-1\r\nendpoint_url = %s\r\n' "$url" >"$home/config"
printf 'a passphrase' >"$home/passphrase"
printf '[[endpoint]]\r\nkind = "imds"\r\nlisten = "127.0.0.1:%s"\r\nprofile = "base"\r\n[[endpoint]]\r\nkind = "container"\r\nlisten = "127.0.0.1:%s"\r\n' "$imds" "$container" >"$home/config.toml"
export KEYFOB_CONFIG='C:\keyfob\config.toml' KEYFOB_DATA_DIR='C:\keyfob\data' KEYFOB_KEYSTORE=passphrase KEYFOB_PASSPHRASE_FILE='C:\keyfob\passphrase'
export AWS_CONFIG_FILE='C:\keyfob\config' AWS_SHARED_CREDENTIALS_FILE='C:\keyfob\credentials'
part person "the Windows programs under wine"
part access "who may enter"
part cmd "cmd.exe"
part service "service commands"
part events "the Application log"
part gotests "Go's tests"
exit $failed
