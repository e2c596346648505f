#!/usr/bin/env bash
# The main job, shown on a fake AWS: long-lived keys in a vault, a chain of
# two roles, credentials by every way that AWS clients know, refreshed while
# a job runs. Needs Go and curl. Leaves nothing behind; --keep leaves it
# running and says how to end it.
set -euo pipefail
cd "$(dirname "$0")/.."

keep=no
case ${1:-} in
  --keep) keep=yes ;;
  "") ;;
  *) echo "usage: scripts/demo.sh [--keep]" >&2; exit 2 ;;
esac

say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
run() { printf '\033[2m$ %s\033[0m\n' "$*" >&2; "$@"; }
field() { sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p" | head -n 1; }
die() { echo "demo: $*" >&2; exit 1; }

home=$(mktemp -d)
fake=
cleanup() {
  status=$?
  if [ "$keep" = yes ] && [ "$status" = 0 ]; then return; fi
  [ -x "$home/bin/keyfob" ] && "$home/bin/keyfob" stop >/dev/null 2>&1 || true
  if [ -n "$fake" ]; then kill "$fake" 2>/dev/null || true; wait "$fake" 2>/dev/null || true; fi
  if [ "$status" != 0 ] && [ -f "$home/data/keyfobd.log" ]; then
    echo "--- the daemon's log:" >&2
    tail -n 20 "$home/data/keyfobd.log" >&2
  fi
  rm -rf "$home"
}
trap cleanup EXIT

say "Building keyfob, keyfobd, keyfob-keyring and a fake AWS"
go build -o "$home/bin/" ./cmd/...

say "A fake AWS: one user with keys, a role that trusts her, a role that trusts that role"
cat >"$home/world.json" <<'JSON'
{"users": [{"name": "alice", "mfa": [{}]}],
 "roles": [
  {"arn": "arn:aws:iam::222222222222:role/entry", "trust": [{"principals": ["111122223333"]}]},
  {"arn": "arn:aws:iam::222222222222:role/deploy", "trust": [{"principals": ["arn:aws:iam::222222222222:role/entry"]}]}]}
JSON
mkfifo "$home/ready"
"$home/bin/fakeaws" --state "$home/world.json" >"$home/ready" &
fake=$!
read -r world <"$home/ready"
url=$(field url <<<"$world")
admin=$(field admin <<<"$world")
key=$(field access_key_id <<<"$world")
secret=$(field secret_access_key <<<"$world")

[ -n "$url" ] && [ -n "$secret" ] || die "fakeaws did not start"

# A home of its own: nothing of this machine's settings is read or written.
for v in $(env | sed -n 's/^\(AWS_[A-Z0-9_]*\|KEYFOB_[A-Z0-9_]*\)=.*/\1/p'); do unset "$v"; done
export HOME=$home XDG_CONFIG_HOME=$home/config XDG_DATA_HOME=$home/share XDG_RUNTIME_DIR=$home/run
export DBUS_SESSION_BUS_ADDRESS=unix:path=/dev/null
export KEYFOB_DATA_DIR=$home/data KEYFOB_KEYSTORE=passphrase KEYFOB_PASSPHRASE_FILE=$home/passphrase
export AWS_ENDPOINT_URL=$url NO_PROXY=127.0.0.1
export PATH=$home/bin:$PATH
mkdir -p "$home/.aws" "$home/config/keyfob" "$home/run"
chmod 700 "$home/run"
(umask 077; printf 'a passphrase for the demo' >"$home/passphrase")
cat >"$home/config/keyfob/config.toml" <<'TOML'
[[endpoint]]
kind = "imds"
listen = "127.0.0.1:0"
profile = "deploy"
TOML
cat >"$home/.aws/config" <<CONFIG
[profile base]
region = eu-central-1

[profile entry]
role_arn = arn:aws:iam::222222222222:role/entry
source_profile = base

[profile deploy]
region = eu-west-1
role_arn = arn:aws:iam::222222222222:role/deploy
source_profile = entry

# What any SDK needs to get deploy's credentials from keyfob:
[profile app]
region = eu-west-1
credential_process = $home/bin/keyfob credential-process --profile deploy
CONFIG
run cat "$home/.aws/config"

say "The long-lived keys go into the vault (the first command starts the daemon)"
printf '{"AccessKeyId":"%s","SecretAccessKey":"%s"}' "$key" "$secret" | run keyfob add base

say "Why a profile is what it is"
run keyfob explain deploy

say "credential_process, as SDKs call it"
run keyfob credential-process --profile deploy | sed 's/\("SecretAccessKey": *"\)[^"]*/\1…/; s/\("SessionToken": *"\)[^"]*/\1…/'

say "IMDSv2 with curl, as on an EC2 instance"
imds=http://$(keyfob status --json | tr -d '\n ' | sed -n 's/.*"kind":"imds","listen":"\([^"]*\)".*/\1/p')
token=$(run curl -sSf -X PUT "$imds/latest/api/token" -H 'X-aws-ec2-metadata-token-ttl-seconds: 60')
role=$(run curl -sSf -H "X-aws-ec2-metadata-token: $token" "$imds/latest/meta-data/iam/security-credentials/")
echo "$role"
run curl -sSf -H "X-aws-ec2-metadata-token: $token" "$imds/latest/meta-data/iam/security-credentials/$role" |
  sed 's/\("SecretAccessKey" *: *"\)[^"]*/\1…/; s/\("Token" *: *"\)[^"]*/\1…/'
printf 'without a token: HTTP '
curl -s -o /dev/null -w '%{http_code}\n' "$imds/latest/meta-data/iam/security-credentials/"
printf 'with an Origin header, as a web page sends it: HTTP '
curl -s -o /dev/null -w '%{http_code}\n' -X PUT -H 'Origin: https://example.com' -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$imds/latest/api/token"

say "A job under exec: its credentials change while it runs, and each works"
curl -sSf -o /dev/null -X PUT "$admin/settings" -d '{"lifetime_seconds": 12}'
keyfob logout deploy
keyfob logout entry
cat >"$home/job.sh" <<'JOB'
# Asks for credentials as an SDK does, signs a request with them, every second.
set -euo pipefail
last=; changes=0
get() { sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p" <<<"$doc"; }
for _ in $(seq 1 40); do
  doc=$(curl -sSf -H "Authorization: $(cat "$AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")" "$AWS_CONTAINER_CREDENTIALS_FULL_URI" | tr ',' '\n')
  id=$(get AccessKeyId)
  arn=$(printf 'user = "%s:%s"\nheader = "x-amz-security-token: %s"\n' "$id" "$(get SecretAccessKey)" "$(get Token)" |
    curl -sSf -K - --aws-sigv4 "aws:amz:$AWS_REGION:sts" -d 'Action=GetCallerIdentity&Version=2011-06-15' "$AWS_ENDPOINT_URL/" |
    sed -n 's:.*<Arn>\(.*\)</Arn>.*:\1:p')
  if [ "$id" != "$last" ]; then
    echo "$(date +%T)  $id  is  $arn"
    [ -z "$last" ] || changes=$((changes + 1))
    last=$id
  fi
  [ "$changes" -lt 2 ] || exit 0
  sleep 1
done
echo "the credentials never changed" >&2
exit 1
JOB
run keyfob exec deploy -- bash "$home/job.sh"
curl -sSf -o /dev/null -X PUT "$admin/settings" -d '{"lifetime_seconds": 0}'

if command -v aws >/dev/null; then
  say "The AWS CLI, by its credential_process line alone"
  run aws --endpoint-url "$url" --profile app sts get-caller-identity
  say "The AWS CLI, by the metadata endpoint alone"
  run env AWS_CONFIG_FILE=/dev/null AWS_EC2_METADATA_SERVICE_ENDPOINT="$imds/" AWS_REGION=eu-west-1 AWS_DEFAULT_REGION=eu-west-1 \
    aws --endpoint-url "$url" sts get-caller-identity
fi

say "What the daemon holds"
run keyfob status

if [ "$keep" = yes ]; then
  disown "$fake"
  say "Left running. To use it:"
  echo "export HOME=$home XDG_CONFIG_HOME=$home/config XDG_DATA_HOME=$home/share XDG_RUNTIME_DIR=$home/run KEYFOB_DATA_DIR=$home/data KEYFOB_KEYSTORE=passphrase KEYFOB_PASSPHRASE_FILE=$home/passphrase AWS_ENDPOINT_URL=$url PATH=$home/bin:\$PATH"
  echo "To end it: keyfob stop; kill $fake; rm -rf $home"
fi
