package command

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// alive reports whether a process runs: one that only waits to be waited for
// does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

// pids are the processes that a script has noted.
func pids(t *testing.T, file string) []int {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []int
	for _, f := range strings.Fields(string(b)) {
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, n)
	}
	return all
}

// A program's whole company ends with it, however it tries to stay.
func TestNothingItStartedIsLeft(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"hung":           `note; sleep 1000`,
		"deaf":           `trap '' TERM INT HUP; note; while :; do sleep 1000; done`,
		"stopped":        `note; kill -STOP $$`,
		"forked":         `sleep 1000 & echo $! >>$F; (note; sleep 1000) & sleep 1000`,
		"daemon":         `setsid sh -c 'echo $$ >>$F; sleep 1000' </dev/null >/dev/null 2>&1 & note; sleep 1000`,
		"daemon, twice":  `setsid sh -c 'setsid sh -c "echo \$\$ >>$F; sleep 1000" & exit' </dev/null >/dev/null 2>&1; note; sleep 1000`,
		"daemon, floods": `setsid sh -c 'echo $$ >>$F; yes' & wait`,
		"daemon, failed": `setsid sh -c 'echo $$ >>$F; sleep 1000' & sleep .3; exit 1`,
		"respawns": `cat >$F.sh <<'X'
echo $$ >>$F
sleep 0.01
[ $1 -gt 0 ] && setsid sh $F.sh $(($1-1)) &
sleep 30
X
setsid sh $F.sh 400 & sleep 1000`,
		"group, success":  `sleep 1000 & echo $! >>$F; echo '{}'`,
		"group, detached": `sleep 1000 </dev/null >/dev/null 2>&1 & echo $! >>$F; echo '{}'`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "pids")
			w := newWorld("KEYFOB_TEST_FILE=" + file)
			began := time.Now()
			_, err := w.Run(t.Context(), Program{Name: "x", Line: "F=$KEYFOB_TEST_FILE; export F; note() { sh -c 'echo $PPID' >>$F; }; " + script, Timeout: time.Second})
			took := time.Since(began)
			if success := strings.HasPrefix(name, "group"); success != (err == nil) {
				t.Errorf("%v", err)
			}
			if took > 4*time.Second {
				t.Errorf("it took %s", took)
			}
			all := pids(t, file)
			if len(all) == 0 {
				t.Fatal("the script noted nobody")
			}
			for _, pid := range all {
				for end := time.Now().Add(2 * time.Second); alive(pid) && time.Now().Before(end); { // a kill takes a moment
					time.Sleep(5 * time.Millisecond)
				}
				if alive(pid) {
					t.Errorf("process %d of %v is left", pid, all)
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			}
		})
	}
}

func TestAnAgentOutlivesASuccess(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pids")
	w := newWorld("KEYFOB_TEST_FILE=" + file)
	// It holds standard output open, as careless agents do.
	out, err := w.line(t, `F=$KEYFOB_TEST_FILE; export F; setsid sh -c 'echo $$ >$F.new; mv $F.new $F; exec sleep 60' & while ! [ -e $F ]; do sleep .01; done; echo '{}'`)
	if err != nil || out != "{}\n" {
		t.Fatalf("%q %v", out, err)
	}
	pid := pids(t, file)[0]
	if !alive(pid) {
		t.Error("the agent was ended")
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
}
