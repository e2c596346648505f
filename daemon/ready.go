package daemon

import (
	"io"
	"os"
	"strconv"
	"sync"

	"golang.org/x/term"
)

// readyFD names the variable with the descriptor on which whoever started
// the daemon waits for "ok" or "error: …".
const readyFD = "KEYFOB_READY_FD"

type readiness struct {
	once sync.Once
	file *os.File
}

// readyPipe takes the descriptor over. Without one, telling does nothing.
func readyPipe() *readiness {
	v := os.Getenv(readyFD)
	os.Unsetenv(readyFD)
	fd, err := strconv.Atoi(v)
	if err != nil || fd < 3 || fd > 1023 {
		return &readiness{}
	}
	return &readiness{file: os.NewFile(uintptr(fd), "ready")}
}

// tell says the one word and closes: the starter reads to the end.
func (r *readiness) tell(text string) {
	r.once.Do(func() {
		if r.file != nil {
			_, _ = io.WriteString(r.file, text)
			_ = r.file.Close()
		}
	})
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
