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
source=$(cd "$(dirname "$0")/../.." && pwd)
GOCACHE=$(go env GOCACHE) GOMODCACHE=$(go env GOMODCACHE) GOENV=$(go env GOENV)
export GOCACHE GOMODCACHE GOENV
export WINEPREFIX=$work/prefix WINEDEBUG=-all DISPLAY='' WINEDLLOVERRIDES='mscoree,mshtml=' HOME=$work
for v in $(env | sed -n 's/^\(AWS_[A-Z0-9_]*\|KEYFOB_[A-Z0-9_]*\)=.*/\1/p'); do unset "$v"; done
# shellcheck disable=SC2034 # checks.sh wants it
BIN=$programs
# shellcheck source=packaging/test/checks.sh
. "$(dirname "$0")/checks.sh"

fake='' daemon='' alive=''
# Another run may be under way.
imds=$((20000 + RANDOM % 10000)) container=$((30000 + RANDOM % 2000))
# shellcheck disable=SC2317 # called by trap
cleanup() {
	[ -z "$daemon" ] || kill "$daemon" 2>/dev/null
	[ -z "$alive" ] || kill "$alive" 2>/dev/null
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
# The first start leaves two service managers: a service that one has made the
# other does not know. The next start has one.
timeout 30 wineserver -w || wineserver -k
[ -e "$WINEPREFIX/drive_c/windows/system32/bcryptprimitives.dll" ] || cp "$work/bcryptprimitives.dll" "$WINEPREFIX/drive_c/windows/system32/"
home=$WINEPREFIX/drive_c/keyfob
mkdir -p "$home"
cp "$programs"/*.exe "$home/"
# again SECONDS COMMAND…: wine 8 loses an event now and then, and whoever waits
# for it waits for ever. Then the same is asked once more, twice at most; a
# failure is none to try again. How often that was is said at the end.
again() {
	local limit=$1 code _
	shift
	for _ in 1 2 3; do
		timeout -k 5 "$limit" "$@" </dev/null >"$work/again.out"
		code=$?
		[ $code = 124 ] || break
		echo . >>"$work/again"
	done
	cat "$work/again.out"
	return $code
}
k() { again 20 wine 'C:\keyfob\keyfob.exe' "$@"; }
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

echo "# the Windows programs under wine"
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
# asks ARGUMENT…: imdsget's answer
asks() { again 12 wine 'C:\keyfob\imdsget.exe' "127.0.0.1:$imds" "$@"; }
stranger() { curl -s -o /dev/null -w '%{http_code}' -m 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "http://127.0.0.1:$imds/latest/api/token"; }
says "a Windows program gets a token" '^200' asks
says "and credentials" '^ASIA' asks base
code=$(stranger) || code=$(stranger)
check "a caller that is no Windows program gets nothing" test "$code" = 403
says "exec" "AWS_CONTAINER_CREDENTIALS_FULL_URI=http://127.0.0.1:$container" k exec base -- cmd.exe /c set
check "lock" k lock
check "unlock" k unlock
check "stop" k stop
ended "$daemon"
daemon=''
# By a file: under wine a started daemon keeps the pipe of who started it.
k credential-process --profile base >"$work/first" 2>&1
k status >"$work/second" 2>&1
k credential-process --profile base >"$work/second" 2>&1
check "keyfob starts a daemon by itself" grep -q '"Version":1' "$work/second"
check "it is stopped" k stop

echo "# who may enter, under wine"
refuses_wide() { # what is open to everybody is refused, with the command that mends it
	refuses "$1" 'lets Everyone in' timeout 60 wine 'C:\keyfob\keyfobd.exe' run
}
# Administrators become the file's group.
check "the data directory is closed to others" bash -c '[[ $0 = 7?0 ]]' "$(stat -c %a "$home/data")"
mode=$(stat -c %a "$home/data")
chmod 755 "$home/data"
refuses_wide "a data directory that everybody may enter"
chmod "$mode" "$home/data" && chmod 755 "$home/data/vault"
refuses_wide "a vault that everybody may enter"
chmod 700 "$home/data/vault"
invalid() { # invalid TEXT WORDS COMMAND…: it fails, in these words
	local text=$1 words=$2 out
	shift 2
	if out=$("$@" 2>&1) || ! grep -q -- "$words" <<<"$out"; then bad "$text: $out"; else ok "$text"; fi
}
machine=$WINEPREFIX/drive_c/ProgramData/keyfob
mkdir -p "$machine"
touch "$machine/config.toml"
check "validate --system" as_machine d validate --system
chmod 666 "$machine/config.toml"
invalid "settings of the machine that everybody may write" 'Everyone may write' as_machine d validate --system
chmod 600 "$machine/config.toml" && chmod 777 "$machine"
invalid "settings of the machine that everybody may replace" 'Everyone may replace' as_machine d validate --system
refuses "install over a directory that everybody may enter" 'lets Everyone in' as_machine d service install --system
rm -r "$machine"

echo "# cmd.exe"
GOOS=windows CGO_ENABLED=0 go build -C "$source" -o "$home/printargs.exe" ./packaging/test/testdata/printargs || bad "printargs does not build"
cmd_file() { # cmd_file: the lines of standard input, run by cmd.exe
	{ printf '@echo off\n' && cat; } | sed 's/$/\r/' >"$home/run.cmd"
	again 30 wine cmd.exe /c 'C:\keyfob\run.cmd' | tr -d '\r'
}
k status >"$work/first" 2>&1 # starts the daemon, see above
k status >"$work/second" 2>&1
# Values as AWS gives them, and ones with what cmd.exe has uses for.
says "env for cmd.exe" '^ASIA' cmd_file <<'CMD'
C:\keyfob\keyfob.exe env base --shell cmd >C:\keyfob\vars.cmd
call C:\keyfob\vars.cmd
echo %AWS_ACCESS_KEY_ID%
CMD
check "the key is that of the file" grep -qF "$(cmd_file <<<'call C:\keyfob\vars.cmd
echo %AWS_SESSION_TOKEN%')" "$home/vars.cmd"
for region in 'a b' "a'b" 'a;b=c(d),e' 'a\b' '{~#@}'; do
	k env base --shell cmd --region "$region" >"$home/vars.cmd" 2>"$work/err" || cat "$work/err"
	got=$(cmd_file <<<'call C:\keyfob\vars.cmd
C:\keyfob\printargs.exe')
	check "env for cmd.exe: $region" test "$got" = "AWS_REGION=[$region]"
done
for region in 'a%b' 'a&b' 'a^b' 'a"b' 'a|b' 'a!b'; do
	refuses "env for cmd.exe: $region" "can't quote" k env base --shell cmd --region "$region"
done
printf '@C:\\keyfob\\printargs.exe %%*\r\n' >"$home/with blank.cmd"
passes() { # passes TEXT ARGUMENT [program]: exec gives it to a program, and to one through a batch file
	local got
	got=$(k exec base -- 'C:\keyfob\printargs.exe' "$2" 2>&1 | tr -d '\r' | head -1)
	if [ "$got" = "[$2]" ]; then ok "exec passes on $1"; else bad "exec passes on $1: $got"; fi
	[ "${3:-}" != program ] || return
	got=$(k exec base -- 'C:\keyfob\with blank.cmd' "$2" 2>&1 | tr -d '\r' | head -1)
	if [ "$got" = "[$2]" ]; then ok "exec passes on $1, to a batch file"; else bad "exec passes on $1, to a batch file: $got"; fi
}
passes blanks 'a b  c'
passes 'what joins commands' 'a&echo b|c>d<e'
passes 'a caret' '^a^^b'
# Wine's cmd.exe expands what %* has become once more; Windows's does not.
passes 'a per cent sign' '100% %PATH% %%' program
passes 'backslashes' 'C:\a b\'
# "" is a quote to all programs; whether it ends the quoted part they disagree.
passes 'a quote' 'a"b'
passes 'quotes' 'a"b c"d' program
passes 'nothing' ''
says "exec in cmd.exe's own line" '^\[a b&c\]$' cmd_file <<'CMD'
C:\keyfob\keyfob.exe exec base -- C:\keyfob\printargs.exe "a b&c"
CMD
check "stop" k stop

echo "# service commands under wine"
says "install --dry-run" 'make the service keyfob: C:' d service install --system --dry-run
# Wine's services live in session 1; Go believes in services of session 0
# alone. So the released program is started, finds itself in no service, and
# is not taken for one.
as_machine d service install --system >"$work/install" 2>&1
check "a service that does not start is not left" bash -c 'grep -q "cannot start" "$0/install" && [ ! -e "$1" ]' "$work" "$machine"
says "nothing is installed" '"installed":false' d service status --system --json

# The same program with another idea of what a service is shows the rest.
sys=$(go list -C "$source" -m -f '{{.Dir}}' golang.org/x/sys)
cp -r "$sys" "$work/sys" && chmod -R u+w "$work/sys" && cp "$source/go.mod" "$source/go.sum" "$work/"
sed -i 's/parentProcess.SessionID == 0 && //' "$work/sys/windows/svc/security.go"
mkdir -p "$home/service"
if GOOS=windows CGO_ENABLED=0 bash -c 'go mod edit -replace golang.org/x/sys="$1/sys" "$1/go.mod" && go build -C "$0" -modfile "$1/go.mod" -trimpath -ldflags "-s -w" -o "$2" ./cmd/keyfobd' \
	"$source" "$work" "$home/service/keyfobd.exe" >"$work/build.log" 2>&1; then
	cp "$home/keyfob-keyring.exe" "$home/service/"
	s() { as_machine timeout 60 wine 'C:\keyfob\service\keyfobd.exe' "$@" </dev/null; }
	m() { as_machine k --socket '\\.\pipe\keyfob-system' "$@"; }
	wineserver -k && wineserver -w
	# Where nothing is left, wine ends, and the next command starts it anew,
	# with all services.
	mkfifo "$work/never"
	sleep 300 >"$work/never" &
	alive=$!
	wine cmd.exe <"$work/never" >/dev/null 2>&1 &
	s service install --system --dry-run >/dev/null # a service manager, without our variables
	# Wine gives a service another %ProgramData% than a person.
	rm -rf "$WINEPREFIX/drive_c/users/Public/keyfob" # of the one that found itself in no service
	mkdir "$WINEPREFIX/drive_c/users/Public/keyfob" && ln -s ../users/Public/keyfob "$machine" && printf '[keystore]\r\nbackend = "passphrase"\r\n' >"$machine/config.toml"
	check "install makes and starts the service" s service install --system
	says "it runs, and starts by itself" '"enabled":true,"running":true' s service status --system --json
	m status >/dev/null 2>&1
	says "it answers" '"backend": "passphrase"' m status --json
	says "install again changes nothing" 'nothing to do\|is installed' s service install --system
	check "its log is a file" grep -q 'keyfobd is ready' "$machine/keyfobd.log"
	says "logs shows it" 'keyfobd is ready' s service logs --system
	check "its source is in the registry" bash -c 'wine reg query "HKLM\\SYSTEM\\CurrentControlSet\\Services\\EventLog\\Application\\keyfob" | grep -q EventCreate.exe'
	check "stop" s service stop --system
	says "it is stopped" '"running":false' s service status --system --json
	check "start" s service start --system
	check "restart" s service restart --system
	check "uninstall" s service uninstall --system
	check "nothing is in the registry" bash -c '! wine reg query "HKLM\\SYSTEM\\CurrentControlSet\\Services\\EventLog\\Application\\keyfob" && ! wine reg query "HKLM\\SYSTEM\\CurrentControlSet\\Services\\keyfob"'
	says "nothing is installed" '"installed":false' s service status --system --json
	kill "$alive"
else
	bad "the program for wine's services does not build: $(tail -3 "$work/build.log")"
fi
says "link-local is off" '"enabled":false' k link-local status --json

echo "# the Application log"
printf 'no_such_setting = 1\r\n' >"$home/bad.toml"
# Wine writes each event to its own log.
events() { WINEDEBUG=-all,err+eventlog,warn+eventlog,trace+eventlog "$@" 2>&1 | grep -a ReportEvent; }
says "a daemon that can't start says so there" 'ReportEventW.*keyfobd: cannot .*no_such_setting' events env 'KEYFOB_CONFIG=C:\keyfob\bad.toml' timeout 60 wine 'C:\keyfob\keyfobd.exe' run --service
WINEDEBUG=-all,err+eventlog,warn+eventlog,trace+eventlog wine 'C:\keyfob\keyfobd.exe' run --service >"$work/events.log" 2>&1 </dev/null &
daemon=$!
wait_for 20 grep -qa 'ReportEventW.*keyfobd is ready' "$work/events.log"
check "its start is an event" grep -qa 'ReportEventW.*keyfobd is ready' "$work/events.log"
k status >/dev/null 2>&1
check "stop" k stop
ended "$daemon"
daemon=''
check "its end is an event" grep -qa 'ReportEventW.*keyfobd ended' "$work/events.log"
check "and in the file" grep -q 'keyfobd ended' "$WINEPREFIX"/drive_c/users/*/AppData/Local/keyfob/keyfobd.log

echo "# Go's tests under wine"
# Wine 8 can't remove a file as Go's RemoveAll likes it best.
at=$(go env GOROOT)/src/internal/syscall/windows/at_windows.go
sed 's/^var TestDeleteatFallback bool$/var TestDeleteatFallback = true/' "$at" >"$work/at_windows.go"
printf '{"Replace":{"%s":"%s"}}' "$at" "$work/at_windows.go" >"$work/overlay.json"
export KEYSTORE_TEST_HELPER='C:\keyfob\keyfob-keyring.exe'
for p in internal/winacl internal/logging internal/peer internal/settings internal/setup internal/service internal/cli keystore; do
	name=${p##*/}
	run='.'
	[ "$name" != cli ] || run='^TestBatch'
	if ! GOOS=windows CGO_ENABLED=0 go test -C "$source" -overlay "$work/overlay.json" -c -o "$home/$name.test.exe" "./$p" >"$work/build.log" 2>&1; then
		bad "the tests of $p do not build: $(tail -3 "$work/build.log")"
		continue
	fi
	if (cd "$source/$p" && timeout 120 wine "C:\\keyfob\\$name.test.exe" -test.v -test.timeout=100s -test.run "$run") >"$work/$name.log" 2>&1 </dev/null; then
		ok "$p: $(grep -c '^--- PASS' "$work/$name.log") tests, $(grep -c '^--- SKIP' "$work/$name.log") skipped"
	else
		bad "$p: $(grep -a -m3 -e '^--- FAIL' -e panic -e _test.go "$work/$name.log" | tr '\n' ' ')"
	fi
	rm -f "$home/$name.test.exe"
done
[ ! -e "$work/again" ] || echo "   (wine lost an event, and what waited for it was asked again: $(wc -l <"$work/again") times)"
exit $failed
