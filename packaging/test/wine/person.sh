# Sourced by wine.sh: a person's daemon, its vault, pipe and endpoints.
# shellcheck shell=bash disable=SC2154,SC2317
rm -rf "$home/data"
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
asks() { again 15 wine 'C:\keyfob\imdsget.exe' "127.0.0.1:$imds" "$@"; }
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
# Administrators become the file's group.
check "the data directory is closed to others" bash -c '[[ $0 = 7?0 ]]' "$(stat -c %a "$home/data")"
