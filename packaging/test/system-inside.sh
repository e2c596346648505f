#!/bin/bash
# Runs inside a booted systemd as root, with the programs in $1, and tries
# the machine's daemon for two users: each gets their own role at one
# 169.254.169.254, and nobody steers the daemon. One line a check; exit code
# 1 when one failed.
set -u
BIN=${1:?usage: system-inside.sh DIRECTORY-OF-PROGRAMS}
# shellcheck source=packaging/test/checks.sh
. "$(dirname "$0")/checks.sh"
V4=169.254.169.254
S=/run/keyfob/keyfob.sock
FORCE=()
[ "$("$K" link-local status --json | field cloud)" = "" ] || FORCE=(--force)
for u in alice bob carol; do id $u >/dev/null 2>&1 || useradd -m $u; done

echo "# the machine's daemon for two users"
fake_aws || bad "the fake AWS does not start"
systemd-creds setup >/dev/null 2>&1
mkdir -p /etc/keyfob /etc/credstore.encrypted
printf 'a good passphrase' | systemd-creds encrypt --with-key=host --name=keyfob.passphrase - /etc/credstore.encrypted/keyfob.passphrase 2>/dev/null
cat >/etc/keyfob/config.toml <<-TOML
	default_profile = "app"

	[[endpoint]]
	kind = "imds"
	listen = "$V4:80"
	profile = "app"
	allow_users = ["alice", "bob"]
	[[endpoint.user]]
	user = "bob"
	profile = "bobs-app"

	[[profile]]
	name = "app"
	allow_users = ["alice"]

	[[profile]]
	name = "bobs-app"
	allow_users = ["bob"]
TOML
cat >/etc/keyfob/profiles <<-EOT
	[profile base]
	region = eu-west-1
	endpoint_url = $url
	[profile app]
	region = eu-west-1
	endpoint_url = $url
	role_arn = arn:aws:iam::222222222222:role/app
	source_profile = base
	[profile bobs-app]
	region = eu-west-1
	endpoint_url = $url
	role_arn = arn:aws:iam::222222222222:role/bobs-app
	source_profile = base
EOT
chmod 644 /etc/keyfob/*
check "validate" "$D" validate --config /etc/keyfob/config.toml
check "install" bash -c "'$K' link-local disable; sed -i 's/$V4:80/127.0.0.1:9911/' /etc/keyfob/config.toml && '$D' service install --system --passphrase-credential /etc/credstore.encrypted/keyfob.passphrase"
check "link-local" "$K" link-local enable --system "${FORCE[@]}"
sed -i "s/127.0.0.1:9911/$V4:80/" /etc/keyfob/config.toml
check "it takes the address up" "$D" service restart --system
printf '{"AccessKeyId":"%s","SecretAccessKey":"%s"}' "$key" "$secret" >/run/fakeaws/pair
if "$K" --socket $S add --force base </run/fakeaws/pair >/run/fakeaws/added 2>&1; then
	ok "root adds keys to the machine's vault"
	has_role() { [ "$(role_at "$1" $V4)" = "$2" ]; }
	gives_key() { [ -n "$(key_at "$1" $V4)" ]; }
	check "alice gets her role" wait_for 10 has_role alice app
	check "bob gets his at the same address" wait_for 10 has_role bob bobs-app
	check "alice gets credentials" wait_for 10 gives_key alice
	check "bob gets others" wait_for 10 gives_key bob
	check "they are two sessions" test "$(key_at alice $V4)" != "$(key_at bob $V4)"
	check "carol gets nothing" test "$(token_status carol $V4)" = 403
	says "alice's command finds the machine's daemon" '"Version":1' as alice "$K" credential-process --profile app
	as carol env HOME=/home/carol "$K" --socket $S credential-process --profile app >/run/fakeaws/said 2>&1
	check "carol's command is refused with exit code 4" test $? = 4
	as carol "$K" --socket $S credential-process --profile no-such-profile >/run/fakeaws/said2 2>&1
	check "and learns no names" test $? = 4 -a "$(sed s/no-such-profile/app/ /run/fakeaws/said2)" = "$(cat /run/fakeaws/said)"
	as carol "$K" --socket $S stop >/dev/null 2>&1
	check "carol can't stop it" systemctl is-active keyfob.service
	as carol bash -c "printf '%s' '{\"AccessKeyId\":\"AKIAEVILEVILEVILEVIL\",\"SecretAccessKey\":\"x\"}' | '$K' --socket $S add --force base" >/dev/null 2>&1
	check "nor change its vault" test "$(key_at alice $V4 | cut -c1-4)" = ASIA
	# A user's environment and files say nothing to it.
	as alice mkdir -p /home/alice/.aws
	printf '[profile app]\nrole_arn = arn:aws:iam::222222222222:role/deploy\nsource_profile = base\n' >/home/alice/.aws/config
	chown -R alice: /home/alice/.aws
	check "alice's own files do not steer it" test "$(role_at alice $V4)" = app
	rm -r /home/alice/.aws
	k=$(key_at alice $V4)
	systemctl stop fakeaws
	check "a restart needs no AWS" "$D" service restart --system
	check "and keeps the session" wait_for 10 test "$(key_at alice $V4)" = "$k"
else
	echo "skip two users' roles: root may not add keys to the machine's vault yet: $(head -1 /run/fakeaws/added)"
fi

echo "# uninstall and what stays"
says "uninstall says what stays" '/var/lib/keyfob' "$D" service uninstall --system
check "the vault stays" test -d /var/lib/keyfob/vault
check "link-local went with it" bash -c "! ip addr show dev lo | grep -q $V4"
says "--purge --dry-run names it all" 'remove /var/lib/keyfob' "$D" service uninstall --system --purge --dry-run
check "uninstall --purge" "$D" service uninstall --system --purge --yes
check "nothing stays" bash -c '! test -e /var/lib/keyfob && ! test -e /etc/keyfob && ! id keyfob && ! compgen -G "/etc/systemd/system/*keyfob*"'
rm -rf /etc/credstore.encrypted /run/fakeaws/pair
exit $failed
