# Sourced by wine.sh: what goes through cmd.exe, with values that it has uses for.
# shellcheck shell=bash disable=SC2154,SC2317
GOOS=windows CGO_ENABLED=0 go build -C "$source" -o "$home/printargs.exe" ./packaging/test/testdata/printargs || bad "printargs does not build"
cmd_file() { # cmd_file: the lines of standard input, run by cmd.exe
	{ printf '@echo off\n' && cat; } | sed 's/$/\r/' >"$home/run.cmd"
	again 30 wine cmd.exe /c 'C:\keyfob\run.cmd' | tr -d '\r'
}
[ -e "$home/data/vault" ] || bad "there is no vault: that is the first part's"
k status >"$work/first" 2>&1 # starts the daemon, see above
k status >"$work/second" 2>&1
# Values as AWS gives them, and ones with what cmd.exe has uses for.
says "env for cmd.exe" '^ASIA' cmd_file <<'CMD'
C:\keyfob\keyfob.exe env base --shell cmd >C:\keyfob\vars.cmd
call C:\keyfob\vars.cmd
echo %AWS_ACCESS_KEY_ID%
CMD
check "the key is that of the file" grep -qF "$(cmd_file <<<'call C:\keyfob\vars.cmd
echo %AWS_SESSION_TOKEN%')" "$home/vars.cmd"
for region in 'a b' "a'b" 'a;b=c(d),e' 'a\b' '{~#@}'; do
	k env base --shell cmd --region "$region" >"$home/vars.cmd" 2>"$work/err" || cat "$work/err"
	got=$(cmd_file <<<'call C:\keyfob\vars.cmd
C:\keyfob\printargs.exe')
	check "env for cmd.exe: $region" test "$got" = "AWS_REGION=[$region]"
done
for region in 'a%b' 'a&b' 'a^b' 'a"b' 'a|b' 'a!b'; do
	refuses "env for cmd.exe: $region" "can't quote" k env base --shell cmd --region "$region"
done
printf '@C:\\keyfob\\printargs.exe %%*\r\n' >"$home/with blank.cmd"
passes() { # passes TEXT ARGUMENT [program]: exec gives it to a program, and to one through a batch file
	local got
	got=$(k exec base -- 'C:\keyfob\printargs.exe' "$2" 2>&1 | tr -d '\r' | head -1)
	if [ "$got" = "[$2]" ]; then ok "exec passes on $1"; else bad "exec passes on $1: $got"; fi
	[ "${3:-}" != program ] || return
	got=$(k exec base -- 'C:\keyfob\with blank.cmd' "$2" 2>&1 | tr -d '\r' | head -1)
	if [ "$got" = "[$2]" ]; then ok "exec passes on $1, to a batch file"; else bad "exec passes on $1, to a batch file: $got"; fi
}
passes blanks 'a b  c'
passes 'what joins commands' 'a&echo b|c>d<e'
passes 'a caret' '^a^^b'
# Wine's cmd.exe expands what %* has become once more; Windows's does not.
passes 'a per cent sign' '100% %PATH% %%' program
passes 'backslashes' 'C:\a b\'
# "" is a quote to all programs; whether it ends the quoted part they disagree.
passes 'a quote' 'a"b'
passes 'quotes' 'a"b c"d' program
passes 'nothing' ''
says "exec in cmd.exe's own line" '^\[a b&c\]$' cmd_file <<'CMD'
C:\keyfob\keyfob.exe exec base -- C:\keyfob\printargs.exe "a b&c"
CMD
check "stop" k stop
