# Sourced by wine.sh: directories and settings that others may enter or write.
# shellcheck shell=bash disable=SC2154,SC2317
refuses_wide() { # what is open to everybody is refused, with the command that mends it
	refuses "$1" 'lets Everyone in' timeout 60 wine 'C:\keyfob\keyfobd.exe' run
}
machine=$WINEPREFIX/drive_c/ProgramData/keyfob
rm -rf "$machine"
chmod 700 "$home/data" "$home/data/vault"
chmod 755 "$home/data"
refuses_wide "a data directory that everybody may enter"
chmod 700 "$home/data" && chmod 755 "$home/data/vault"
refuses_wide "a vault that everybody may enter"
chmod 700 "$home/data/vault"
invalid() { # invalid TEXT WORDS COMMAND…: it fails, in these words
	local text=$1 words=$2 out
	shift 2
	if out=$("$@" 2>&1) || ! grep -q -- "$words" <<<"$out"; then bad "$text: $out"; else ok "$text"; fi
}
mkdir -p "$machine"
touch "$machine/config.toml"
check "validate --system" as_machine d validate --system
chmod 666 "$machine/config.toml"
invalid "settings of the machine that everybody may write" 'Everyone may write' as_machine d validate --system
chmod 600 "$machine/config.toml" && chmod 777 "$machine"
invalid "settings of the machine that everybody may replace" 'Everyone may replace' as_machine d validate --system
refuses "install over a directory that everybody may enter" 'lets Everyone in' as_machine d service install --system
rm -r "$machine"
