# Sourced by wine.sh: the service of the machine, in wine's service manager.
# shellcheck shell=bash disable=SC2154,SC2317
machine=$WINEPREFIX/drive_c/ProgramData/keyfob
rm -rf "$machine" "$WINEPREFIX/drive_c/users/Public/keyfob"
for key in Services\\keyfob Services\\EventLog\\Application\\keyfob; do # of a first try
	timeout 20 wine reg delete "HKLM\\SYSTEM\\CurrentControlSet\\$key" /f >/dev/null 2>&1
done
stop_wine
says "install --dry-run" 'make the service keyfob: C:' d service install --system --dry-run
# Wine's services live in session 1; Go believes in services of session 0
# alone. So the released program is started, finds itself in no service, and
# is not taken for one.
as_machine d service install --system >"$work/install" 2>&1
check "a service that does not start is not left" bash -c 'grep -q "cannot start" "$0/install" && [ ! -e "$1" ]' "$work" "$machine"
says "nothing is installed" '"installed":false' d service status --system --json

# The same program with another idea of what a service is shows the rest.
if [ ! -e "$work/sys" ]; then
	sys=$(go list -C "$source" -m -f '{{.Dir}}' golang.org/x/sys)
	cp -r "$sys" "$work/sys" && chmod -R u+w "$work/sys" && cp "$source/go.mod" "$source/go.sum" "$work/"
	sed -i 's/parentProcess.SessionID == 0 && //' "$work/sys/windows/svc/security.go"
fi
mkdir -p "$home/service"
if GOOS=windows CGO_ENABLED=0 bash -c 'go mod edit -replace golang.org/x/sys="$1/sys" "$1/go.mod" && go build -C "$0" -modfile "$1/go.mod" -trimpath -ldflags "-s -w" -o "$2" ./cmd/keyfobd' \
	"$source" "$work" "$home/service/keyfobd.exe" >"$work/build.log" 2>&1; then
	cp "$home/keyfob-keyring.exe" "$home/service/"
	s() { as_machine timeout 60 wine 'C:\keyfob\service\keyfobd.exe' "$@" </dev/null; }
	m() { as_machine k --socket '\\.\pipe\keyfob-system' "$@"; }
	stop_wine
	# Where nothing is left, wine ends, and the next command starts it anew,
	# with all services.
	rm -f "$work/never" && mkfifo "$work/never"
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
