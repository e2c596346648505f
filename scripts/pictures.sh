#!/usr/bin/env bash
# Takes the pictures of docs/pictures anew: what a person sees in a terminal,
# on a fake AWS. Needs Go, tmux and curl. Leaves nothing running behind, and
# the same pictures where nothing has changed: what differs from run to run
# or is of this machine (ports, pids, times, paths, the fake AWS's address)
# is written as it would be on a person's machine, and long addresses are cut.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$PWD/docs/pictures

for want in go tmux curl; do
  command -v "$want" >/dev/null || { echo "pictures: $want is not installed" >&2; exit 1; }
done

home=$(mktemp -d)
fake=
tm() { tmux -L "keyfob-pictures-$$" -f /dev/null "$@"; }
cleanup() {
  tm kill-server 2>/dev/null || true
  if [ -x "$home/bin/keyfob" ]; then "$home/bin/keyfob" stop >/dev/null 2>&1 || true; fi
  if [ -n "$fake" ]; then kill "$fake" 2>/dev/null || true; wait "$fake" 2>/dev/null || true; fi
  rm -rf "$home"
}
trap cleanup EXIT
field() { sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p" | head -n 1; }

version=1.0.0
go build -ldflags "-X main.version=$version -X keyfob/internal/hot/early.Version=$version" -o "$home/bin/" ./cmd/...
go build -o "$home/draw" scripts/pictures/draw.go

cat >"$home/world.json" <<'JSON'
{"users": [{"name": "alice", "mfa": [{}]}],
 "roles": [
  {"arn": "arn:aws:iam::222222222222:role/entry", "trust": [{"principals": ["111122223333"]}]},
  {"arn": "arn:aws:iam::222222222222:role/deploy", "trust": [{"principals": ["arn:aws:iam::222222222222:role/entry"]}]},
  {"arn": "arn:aws:iam::333333333333:role/reports", "trust": [{"principals": ["111122223333"]}]}],
 "sso": [{"region": "eu-west-1", "accounts": [
  {"id": "333333333333", "name": "Dev", "roles": [{"name": "Developer"}, {"name": "ReadOnly"}]},
  {"id": "444444444444", "name": "Prod", "roles": [{"name": "ReadOnly"}]}]}]}
JSON
mkfifo "$home/ready"
"$home/bin/fakeaws" --state "$home/world.json" >"$home/ready" &
fake=$!
read -r world <"$home/ready"
url=$(field url <<<"$world")

for v in $(env | sed -n 's/^\(AWS_[A-Z0-9_]*\|KEYFOB_[A-Z0-9_]*\)=.*/\1/p') http_proxy HTTP_PROXY all_proxy ALL_PROXY NO_COLOR CI; do unset "$v"; done
export HOME=$home XDG_CONFIG_HOME=$home/.config XDG_DATA_HOME=$home/.local/share XDG_RUNTIME_DIR=$home/run
export DBUS_SESSION_BUS_ADDRESS=unix:path=/dev/null KEYFOB_KEYSTORE=passphrase KEYFOB_PASSPHRASE_FILE=$home/passphrase
export AWS_ENDPOINT_URL=$url NO_PROXY=127.0.0.1,localhost PATH=$home/bin:$PATH LANG=C.UTF-8 LC_ALL=C.UTF-8
cat >"$home/browser" <<'SH' # opens at once, and signs in at a person's pace
#!/bin/sh
{ sleep 2; curl -sSfL -o /dev/null "$1"; } >/dev/null 2>&1 &
SH
chmod 700 "$home/browser"
export BROWSER=$home/browser KEYFOB_INTERACTIVE=always
mkdir -p "$home/.aws" "$home/.config/keyfob" "$home/run"
chmod 700 "$home/run"
(umask 077; printf 'a passphrase for the pictures' >"$home/passphrase")
printf '[[endpoint]]\nkind = "imds"\nlisten = "127.0.0.1:0"\nprofile = "deploy"\n' >"$home/.config/keyfob/config.toml"
cat >"$home/.aws/config" <<'CONFIG'
[profile base]
region = eu-central-1

[profile entry]
role_arn = arn:aws:iam::222222222222:role/entry
source_profile = base

[profile deploy]
region = eu-west-1
role_arn = arn:aws:iam::222222222222:role/deploy
source_profile = entry

[profile reports]
region = eu-west-1
role_arn = arn:aws:iam::333333333333:role/reports
source_profile = base
CONFIG

# as_at_home makes of a screen what a person with an AWS of his own sees.
as_at_home() {
  sed -E \
    -e "/$(printf '%s' "${url##*:}")/{/endpoint_url/d}" \
    -e "s#$url(/authorize\?)[^ ]*#https://oidc.eu-west-1.amazonaws.com\1…#g" \
    -e "s#$url#https://sts.eu-west-1.amazonaws.com#g" \
    -e "s#$home/run/#/run/user/1000/#g; s#$home/bin/#/usr/bin/#g; s#$home#/home/alice#g" \
    -e 's#127\.0\.0\.1:[0-9]{4,5}#127.0.0.1:9911#g' \
    -e 's#(pid )[0-9]+#\14711#g; s#(up (for )?)[0-9]+s#\13h#g' \
    -e 's#keyfob-[^ @]+@[A-Za-z0-9.-]+#keyfob-alice@laptop#g' \
    -e 's#after [0-9.]+(µs|ms)#after 0.7 ms#g' \
    -e 's#[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]+Z#2026-03-02T15:12:07Z#g'
}

# terminal runs a command in a terminal that is too wide to break a line.
terminal() { tm new-session -d -x 200 -y 60 -s "$1" "bash --norc -c '$2; tmux -L keyfob-pictures-$$ wait-for -S $1; sleep 60'"; }

# take NAME COMMAND draws what the terminal shows.
take() {
  tm capture-pane -t "$1" -p -e -J | as_at_home >"$home/screen"
  tm kill-session -t "$1"
  "$home/draw" "$2" <"$home/screen" >"$out/$1.svg"
  echo "docs/pictures/$1.svg"
}

# picture NAME COMMAND
picture() {
  terminal "$1" "$2"
  tm wait-for "$1"
  take "$1" "$2"
}

# answer NAME QUESTION ANSWER types the answer when the question is there.
answer() {
  local i
  for i in $(seq 150); do
    if tm capture-pane -t "$1" -p -J | tail -n 60 | grep -qF -- "$2"; then break; fi
    [ "$i" -lt 150 ] || { echo "pictures: $1 never asks \"$2\" but shows:" >&2; tm capture-pane -t "$1" -p >&2; exit 1; }
    sleep 0.1
  done
  if [ $# -gt 2 ]; then tm send-keys -t "$1" -l "$3" && tm send-keys -t "$1" Enter; fi
}

mkdir -p "$out"
tm new-session -d -s keep 'sleep 600' # for the server to stay

printf '{"AccessKeyId":"%s","SecretAccessKey":"%s"}' "$(field access_key_id <<<"$world")" "$(field secret_access_key <<<"$world")" | keyfob add base >/dev/null
keyfob credential-process --profile deploy >/dev/null
picture explain "keyfob explain deploy"

# A key pair that an older tool has left in plain text (AWS's own example).
(umask 077; printf '[legacy]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = EXAMPLE\n' >"$home/.aws/credentials")
keyfob reload >/dev/null
picture overview "keyfob"
picture doctor "keyfob doctor deploy"

terminal configure "keyfob configure"
answer configure "Kind (1 to 7): " 3
answer configure "Start URL, as " https://d-1234567890.awsapps.com/start
answer configure "Region of Identity Center: " eu-west-1
answer configure "Name of this sign-in " corp
answer configure "a text to look for: " 1
answer configure "Region for its programs " eu-west-1
answer configure "Write that? [Y/n] "
take configure "keyfob configure"

"$home/draw" --watch >"$out/status-watch.svg"
echo docs/pictures/status-watch.svg
