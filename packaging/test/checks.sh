# Sourced by the tests that run inside a booted systemd: $BIN has the
# programs. A check prints one line; `exit $failed` ends a test.
# shellcheck shell=bash disable=SC2034
D=$BIN/keyfobd
K=$BIN/keyfob
failed=0
ok() { echo "ok   $*"; }
bad() {
	echo "FAIL $*"
	failed=1
}
check() { # check TEXT COMMAND…
	local text=$1 out
	shift
	if out=$("$@" 2>&1); then ok "$text"; else bad "$text: $(tail -3 <<<"$out")"; fi
}
refuses() { # refuses TEXT WORDS COMMAND…: it fails, in these words and with a hint
	local text=$1 words=$2 out
	shift 2
	if out=$("$@" 2>&1); then
		bad "$text: it did not fail"
	elif ! grep -q -- "$words" <<<"$out" || ! grep -q '^hint: ' <<<"$out"; then
		bad "$text: $out"
	else
		ok "$text: $(grep -m1 cannot <<<"$out")"
	fi
}
says() { # says TEXT WORDS COMMAND…: it succeeds, and prints these words
	local text=$1 words=$2 out
	shift 2
	if ! out=$("$@" 2>&1); then
		bad "$text: $(tail -3 <<<"$out")"
	elif ! grep -q -- "$words" <<<"$out"; then
		bad "$text: no $words in: $out"
	else
		ok "$text"
	fi
}
prop() { systemctl show -p "$1" --value "${2:-keyfob.service}"; }
as() { # as USER COMMAND…, as a login would
	local u=$1 id
	shift
	id=$(id -u "$u")
	setpriv --reuid "$u" --regid "$u" --init-groups env -i HOME="$(getent passwd "$u" | cut -d: -f6)" USER="$u" \
		PATH="$BIN:/usr/bin:/bin" XDG_RUNTIME_DIR="/run/user/$id" DBUS_SESSION_BUS_ADDRESS="unix:path=/run/user/$id/bus" "$@"
}
wait_for() { # wait_for SECONDS COMMAND…
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.1
	done
}
pid_is_other() {
	local p
	p=$(prop MainPID)
	[ "$p" != 0 ] && [ "$p" != "$1" ] && systemctl is-active -q keyfob.service
}
# Every file that an install may touch; users' own data and the databases of
# users excepted.
listing() {
	find /etc /home /usr/lib/systemd /usr/lib/sysusers.d -path '/home/*/.cache' -prune -o \( -type f -o -type l \) -print |
		grep -v -e '^/etc/\(passwd\|group\|shadow\|gshadow\|subuid\|subgid\|\.pwd\.lock\)' -e /.local/share/keyfob/ | sort
}
linger() { # linger USER: their systemd runs
	loginctl enable-linger "$1"
	wait_for 10 test -S "/run/user/$(id -u "$1")/systemd/private"
}
field() { sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p"; } # field NAME, of a line of JSON
role_at() { # role_at USER ADDRESS: the role that the metadata endpoint there gives this user
	as "$1" bash -c 'T=$(curl -sf -g -m 3 -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" "http://$0/latest/api/token") &&
		curl -sf -g -m 3 -H "X-aws-ec2-metadata-token: $T" "http://$0/latest/meta-data/iam/security-credentials/"' "$2"
}
key_at() { # key_at USER ADDRESS: the access key id that it gives
	as "$1" bash -c 'T=$(curl -sf -g -m 3 -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" "http://$0/latest/api/token") &&
		curl -sf -g -m 3 -H "X-aws-ec2-metadata-token: $T" "http://$0/latest/meta-data/iam/security-credentials/'"$(role_at "$1" "$2")"'"' "$2" | field AccessKeyId
}
token_status() { # token_status USER ADDRESS: the HTTP code of a token request
	as "$1" curl -s -g -o /dev/null -w '%{http_code}' -m 3 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "http://$2/latest/api/token"
}
# fake_aws starts a fake AWS as a unit of its own, with a user whose keys are
# in $key and $secret, and roles; $url is its address.
fake_aws() {
	mkdir -p /run/fakeaws
	cat >/run/fakeaws/world.json <<-'JSON'
		{"users": [{"name": "alice"}],
		 "roles": [
		  {"arn": "arn:aws:iam::222222222222:role/app", "trust": [{"principals": ["111122223333"]}]},
		  {"arn": "arn:aws:iam::222222222222:role/deploy", "trust": [{"principals": ["111122223333"]}]},
		  {"arn": "arn:aws:iam::222222222222:role/bobs-app", "trust": [{"principals": ["111122223333"]}]}]}
	JSON
	systemctl is-active -q fakeaws || systemd-run -q --unit=fakeaws --property=StandardOutput=truncate:/run/fakeaws/ready \
		"$BIN/fakeaws" --state /run/fakeaws/world.json
	wait_for 10 grep -q secret_access_key /run/fakeaws/ready || return 1
	url=$(field url </run/fakeaws/ready) key=$(field access_key_id </run/fakeaws/ready) secret=$(field secret_access_key </run/fakeaws/ready)
	[ -n "$url" ] && [ -n "$key" ] && [ -n "$secret" ]
}
# person USER ROLE: a home with a vault under a passphrase, keys in it, and
# the profile app of that role; $listen, if set, is a metadata endpoint.
person() {
	local u=$1 home
	home=$(getent passwd "$u" | cut -d: -f6)
	as "$u" mkdir -p "$home/.aws" "$home/.config/keyfob"
	(umask 077 && printf 'a passphrase of %s' "$u" >"$home/.config/keyfob/passphrase")
	cat >"$home/.aws/config" <<-EOT
		[profile base]
		region = eu-west-1
		endpoint_url = $url
		[profile app]
		region = eu-west-1
		endpoint_url = $url
		role_arn = arn:aws:iam::222222222222:role/$2
		source_profile = base
	EOT
	{
		printf '[keystore]\nbackend = "passphrase"\npassphrase_file = "%s/.config/keyfob/passphrase"\n' "$home"
		[ -z "${listen:-}" ] || printf '[[endpoint]]\nkind = "imds"\nlisten = "%s"\nprofile = "app"\n' "$listen"
	} >"$home/.config/keyfob/config.toml"
	chown -R "$u:" "$home/.aws" "$home/.config"
}
add_keys() { printf '{"AccessKeyId":"%s","SecretAccessKey":"%s"}' "$key" "$secret" | as "$1" "$K" add --force base; }
access_key() { as "$1" "$K" credential-process --profile app | field AccessKeyId; }
