#!/bin/bash
# Installs the rpm and the Arch package of $1, a directory that
# packaging/build.sh filled, into the root file system $2, which is there to be
# spoilt, with rpm and pacman of this machine; their scripts run inside. One
# line a check; exit code 1 when one failed.
set -u
dist=${1:?usage: packages.sh DIRECTORY-OF-PACKAGES ROOT}
R=${2:?}
# shellcheck disable=SC2034 # checks.sh wants it
BIN=$R/usr/bin
# shellcheck source=packaging/test/checks.sh
. "$(dirname "$0")/checks.sh"
one() { find "$dist/" -maxdepth 1 -name "$1" | head -1; }
ours() { chroot "$R" "$@"; }
has_user() { grep -q '^keyfob:' "$R/etc/passwd"; }
no() { ! "$@"; }
# All but the package managers' own, and the user that a package leaves.
every_file() {
	(cd "$R" && find etc usr var root \( -type f -o -type l \) | grep -v -e '^var/lib/\(rpm\|pacman\)/' -e '^root/.rpmdb/' -e '^var/log/pacman.log' \
		-e '^etc/\(passwd\|group\|shadow\|gshadow\|subuid\|subgid\)' -e '^etc/\.pwd' | sort)
}
ln -sf bash "$R/bin/sh" # as those distributions have it
before=$(every_file)

# trial NAME INSTALL REINSTALL VERIFY REMOVE LEFT: commands of a package
# manager, and which settings file it leaves of an edited one.
trial() {
	local name=$1 after
	echo "# the $name"
	sed -i '/^keyfob:/d' "$R"/etc/passwd "$R"/etc/group "$R"/etc/shadow "$R"/etc/gshadow
	check "install" "$2"
	check "its scripts have run: there is the user" has_user
	says "the programs run" '^keyfob 0' ours /usr/bin/keyfob version
	check "nothing is altered" "$4"
	local f
	for f in usr/bin/keyfobd usr/bin/keyfob-keyring usr/bin/keyfob-signin usr/lib/systemd/system/keyfob.service usr/lib/systemd/user/keyfob.socket \
		usr/lib/sysusers.d/keyfob.conf usr/share/man/man8/keyfobd.8.gz usr/share/bash-completion/completions/keyfob etc/keyfob/config.toml; do
		[ -s "$R/$f" ] || bad "there is no /$f"
	done
	check "no program is anybody's to write" test -z "$(find "$R/usr/bin" -name 'keyfob*' ! -perm 0755)"
	echo '# edited' >>"$R/etc/keyfob/config.toml"
	check "an upgrade" "$3"
	check "keeps edited settings" grep -q '# edited' "$R/etc/keyfob/config.toml"
	check "remove" "$5"
	check "edited settings are kept aside" grep -q '# edited' "$R/etc/keyfob/config.toml.$6"
	rm -rf "$R/etc/keyfob"
	after=$(every_file)
	if [ "$before" = "$after" ]; then ok "nothing is left, and nothing else is gone"; else bad "files differ: $(diff <(echo "$before") <(echo "$after") | grep '^[<>]' | head -8)"; fi
}

rpm=$(one '*.rpm')
r() { timeout 60 rpm --root "$R" --dbpath /var/lib/rpm "$@" && [ ! -s "$R/trouble" ]; }
r_verify() { r -V --nodeps keyfob && r -q keyfob; }
# Distributions' rpm would find what it needs; this root has no rpm packages.
r_install() { rpm -K --nosignature "$rpm" && r -i --nodeps "$rpm"; }
r_again() { r -U --force --nodeps "$rpm"; }
r_remove() { r -e keyfob; }
if ! command -v rpm >/dev/null; then
	echo "skip the rpm: no rpm"
elif [ -z "$rpm" ]; then
	echo "skip the rpm: packaging/build.sh made none"
else
	r --initdb
	trial "rpm, with $(rpm --version)" r_install r_again r_verify r_remove rpmsave
fi

arch=$(one '*.pkg.tar.zst')
p() { # its exit code says nothing of the scripts
	local out
	out=$(timeout 60 pacman --root "$R" --dbpath "$R/var/lib/pacman" --cachedir "$R/var/cache/pacman/pkg" --hookdir "$R/etc/pacman.d/hooks" --gpgdir "$R/gpg" \
		--logfile "$R/var/log/pacman.log" --config /dev/null --noconfirm "$@" 2>&1)
	local code=$?
	echo "$out"
	[ $code = 0 ] && ! grep -q '^error:' <<<"$out"
}
p_install() { p -U -dd "$arch"; }
p_verify() { p -Qkk keyfob; }
p_remove() { p -R -dd keyfob; }
if ! command -v pacman >/dev/null; then
	echo "skip the Arch package: no pacman"
elif [ -z "$arch" ]; then
	echo "skip the Arch package: packaging/build.sh made none"
else
	mkdir -p "$R/var/lib/pacman" "$R/var/cache/pacman/pkg"
	trial "Arch package, with pacman $(pacman --version | grep -o 'v[0-9.]*' | head -1)" p_install p_install p_verify p_remove pacsave
fi

echo "skip the apk: Debian has no apk-tools; what is in it is looked at by packaging/packaging_test.go"
exit $failed
