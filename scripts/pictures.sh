#!/usr/bin/env bash
# Takes the pictures of docs/pictures anew: what a person sees in a terminal,
# on a fake AWS. Needs Go, tmux, and Python's rich (Debian: python3-rich) to
# draw what tmux shows as SVG. Leaves nothing running behind.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$PWD/docs/pictures
python=${PYTHON:-/usr/bin/python3}

for want in go tmux; do
  command -v "$want" >/dev/null || { echo "pictures: $want is not installed" >&2; exit 1; }
done
"$python" -c 'import rich' 2>/dev/null || { echo "pictures: $python has no rich (Debian: python3-rich)" >&2; exit 1; }

home=$(mktemp -d)
fake=
tm() { tmux -L "keyfob-pictures-$$" -f /dev/null "$@"; }
cleanup() {
  tm kill-server 2>/dev/null || true
  [ -x "$home/bin/keyfob" ] && "$home/bin/keyfob" stop >/dev/null 2>&1 || true
  if [ -n "$fake" ]; then kill "$fake" 2>/dev/null || true; wait "$fake" 2>/dev/null || true; fi
  rm -rf "$home"
}
trap cleanup EXIT
field() { sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p" | head -n 1; }

go build -o "$home/bin/" ./cmd/...
cat >"$home/world.json" <<'JSON'
{"users": [{"name": "alice", "mfa": [{}]}],
 "roles": [
  {"arn": "arn:aws:iam::222222222222:role/entry", "trust": [{"principals": ["111122223333"]}]},
  {"arn": "arn:aws:iam::222222222222:role/deploy", "trust": [{"principals": ["arn:aws:iam::222222222222:role/entry"]}]},
  {"arn": "arn:aws:iam::333333333333:role/reports", "trust": [{"principals": ["111122223333"]}]}]}
JSON
mkfifo "$home/ready"
"$home/bin/fakeaws" --state "$home/world.json" >"$home/ready" &
fake=$!
read -r world <"$home/ready"
url=$(field url <<<"$world")
for v in $(env | sed -n 's/^\(AWS_[A-Z0-9_]*\|KEYFOB_[A-Z0-9_]*\)=.*/\1/p'); do unset "$v"; done
export HOME=$home XDG_CONFIG_HOME=$home/.config XDG_DATA_HOME=$home/.local/share XDG_RUNTIME_DIR=$home/run
export DBUS_SESSION_BUS_ADDRESS=unix:path=/dev/null KEYFOB_KEYSTORE=passphrase KEYFOB_PASSPHRASE_FILE=$home/passphrase
export AWS_ENDPOINT_URL=$url NO_PROXY=127.0.0.1 PATH=$home/bin:$PATH LANG=C.UTF-8
mkdir -p "$home/.aws" "$home/.config/keyfob" "$home/run"
chmod 700 "$home/run"
(umask 077; printf 'a passphrase for the pictures' >"$home/passphrase")
printf '[[endpoint]]\nkind = "imds"\nlisten = "127.0.0.1:0"\nprofile = "deploy"\n\n[[profile]]\nname = "reports"\nprotected = true\n' >"$home/.config/keyfob/config.toml"
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
printf '{"AccessKeyId":"%s","SecretAccessKey":"%s"}' "$(field access_key_id <<<"$world")" "$(field secret_access_key <<<"$world")" | keyfob add base
keyfob credential-process --profile deploy >/dev/null
keyfob credential-process --profile base >/dev/null
# Somebody without a terminal wants a protected profile: a question waits.
KEYFOB_INTERACTIVE=never setsid keyfob credential-process --profile reports >/dev/null 2>&1 || true

# picture NAME COLUMNS ROWS COMMAND: what a terminal of that size shows of it.
picture() {
  local name=$1 columns=$2 rows=$3
  shift 3
  tm new-session -d -x "$columns" -y "$rows" -s "$name" "env PS1= bash --norc -c '$*; sleep 30'"
  for _ in $(seq 100); do # until it shows something, and the same thing twice
    sleep 0.2
    tm capture-pane -t "$name" -p -e >"$home/now"
    if grep -q . "$home/now" && [ -f "$home/before" ] && cmp -s "$home/now" "$home/before"; then break; fi
    cp "$home/now" "$home/before"
    case $* in *--watch*) sleep 1; tm capture-pane -t "$name" -p -e >"$home/now"; break ;; esac
  done
  rm -f "$home/before"
  tm kill-session -t "$name"
  HOME_SHOWN=$home "$python" - "$home/now" "$out/$name.svg" "$columns" "$*" <<'PYTHON'
import io, os, re, sys
from rich.console import Console
from rich.text import Text
text = open(sys.argv[1]).read().rstrip().replace(os.environ["HOME_SHOWN"], "~")
console = Console(record=True, width=int(sys.argv[3]), file=io.StringIO(), force_terminal=True)
console.print(Text.from_ansi(text), soft_wrap=True)
# An id of its own content's, or each picture would differ each time; and no
# fonts from other machines.
svg = console.export_svg(title="$ " + sys.argv[4], unique_id="keyfob")
svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.S)
open(sys.argv[2], "w").write(svg + "\n")
PYTHON
  echo "docs/pictures/$name.svg"
}

mkdir -p "$out"
picture list 96 8 keyfob list
picture explain 108 14 keyfob explain deploy
picture status-watch 96 20 keyfob status --watch
picture doctor 108 40 keyfob doctor deploy
