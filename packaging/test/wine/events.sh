# Sourced by wine.sh: what a service writes to the Application log. Wine writes
# each event to its own log.
# shellcheck shell=bash disable=SC2154,SC2317
rm -rf "$WINEPREFIX"/drive_c/users/*/AppData/Local/keyfob
printf 'no_such_setting = 1\r\n' >"$home/bad.toml"
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
