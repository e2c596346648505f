# Sourced by wine.sh: the Go tests of the packages whose Windows parts matter.
# shellcheck shell=bash disable=SC2154,SC2317
# Wine 8 can't remove a file as Go's RemoveAll likes it best.
at=$(go env GOROOT)/src/internal/syscall/windows/at_windows.go
sed 's/^var TestDeleteatFallback bool$/var TestDeleteatFallback = true/' "$at" >"$work/at_windows.go"
printf '{"Replace":{"%s":"%s"}}' "$at" "$work/at_windows.go" >"$work/overlay.json"
export KEYSTORE_TEST_HELPER='C:\keyfob\keyfob-keyring.exe'
for p in internal/winacl internal/logging internal/peer internal/settings internal/setup internal/service internal/cli keystore; do
	name=${p##*/}
	run='.'
	[ "$name" != cli ] || run='^TestBatch'
	if ! GOOS=windows CGO_ENABLED=0 go test -C "$source" -overlay "$work/overlay.json" -c -o "$home/$name.test.exe" "./$p" >"$work/build.log" 2>&1; then
		bad "the tests of $p do not build: $(tail -3 "$work/build.log")"
		continue
	fi
	if (cd "$source/$p" && timeout 120 wine "C:\\keyfob\\$name.test.exe" -test.v -test.timeout=100s -test.run "$run") >"$work/$name.log" 2>&1 </dev/null; then
		ok "$p: $(grep -c '^--- PASS' "$work/$name.log") tests, $(grep -c '^--- SKIP' "$work/$name.log") skipped"
	else
		bad "$p: $(grep -a -m3 -e '^--- FAIL' -e panic -e _test.go "$work/$name.log" | tr '\n' ' ')"
	fi
	rm -f "$home/$name.test.exe"
done
