package signin

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// pinentryStart is how long a pinentry may take until it has taken the
// question; after that the person has the time that the question has.
const pinentryStart = 5 * time.Second

// Codes of libgpg-error, the low 16 bits of what pinentry answers.
const (
	gpgTimeout       = 62
	gpgCanceled      = 99
	gpgNotConfirmed  = 114
	gpgFullyCanceled = 198
)

// assuanLine is the longest line of Assuan, its line feed included.
const assuanLine = 1000

// askPinentryWindow asks by the person's own choice of a pinentry, or by one
// that has a window. A pinentry that would need a terminal says so at once,
// because it is given none, and the next one is tried.
func askPinentryWindow(ctx context.Context, p prompt) (string, error) {
	if chosen := os.Getenv("PINENTRY_PROGRAM"); chosen != "" {
		tty := terminalName()
		if tty != "" {
			defer keepTerminal(tty)()
		}
		return askPinentries(ctx, p, tty, chosen)
	}
	names := []string{"pinentry", "pinentry-gnome3", "pinentry-gtk-2", "pinentry-gtk", "pinentry-qt", "pinentry-qt5", "pinentry-x11"}
	switch {
	case runtime.GOOS == "darwin":
		names = []string{"pinentry-mac", "pinentry"}
	case strings.Contains(strings.ToUpper(os.Getenv("XDG_CURRENT_DESKTOP")), "KDE"):
		names = []string{"pinentry-qt", "pinentry-qt5", "pinentry", "pinentry-gnome3", "pinentry-gtk-2", "pinentry-gtk", "pinentry-x11"}
	}
	return askPinentries(ctx, p, "", names...)
}

// askPinentries asks by the first of these programs that can.
func askPinentries(ctx context.Context, p prompt, tty string, names ...string) (string, error) {
	failed := fmt.Errorf("%w: there is no pinentry", errNobody)
	for _, name := range names {
		typed, err := askPinentry(ctx, p, tty, name)
		if err == nil || errors.Is(err, errRefused) || ctx.Err() != nil {
			return typed, err
		}
		if !errors.Is(err, errNobody) {
			failed = err
		}
	}
	return "", failed
}

func askPinentry(ctx context.Context, p prompt, tty, name string) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd, err := command(ctx, name)
	if err != nil {
		return "", err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	runtime.LockOSThread() // see prepare
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("%w: %s: %w", errNobody, name, err)
	}
	start := time.AfterFunc(pinentryStart, cancel)
	defer start.Stop()
	// The end of ctx ends the talk also when somebody else holds the pipes.
	undo := context.AfterFunc(ctx, func() { _ = in.Close(); _ = out.Close() })
	defer undo()

	a := &assuan{r: bufio.NewReaderSize(out, 4096), w: in}
	typed, err := a.getPIN(p, tty, secondsToEnd(ctx), start)
	_ = in.Close()
	if err != nil && !errors.Is(err, errRefused) {
		cancel() // it may still show something
	}
	end := time.AfterFunc(endGrace, cancel)
	defer end.Stop()
	var exit *exec.ExitError
	if werr := cmd.Wait(); err != nil && errors.As(werr, &exit) && !errors.As(err, new(gpgError)) && !errors.Is(err, errRefused) {
		return "", fmt.Errorf("%s ended: %w", name, werr)
	}
	if err != nil && !errors.Is(err, errRefused) {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return typed, err
}

// secondsToEnd is the time limit for pinentry itself, 0 for none.
func secondsToEnd(ctx context.Context) int {
	end, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return max(1, int(time.Until(end).Seconds()+0.999))
}

// assuan is a client of the Assuan protocol, over the standard streams of a
// pinentry.
type assuan struct {
	r *bufio.Reader
	w io.Writer
}

// gpgError is an ERR line.
type gpgError int

func (e gpgError) Error() string { return fmt.Sprintf("it answered with error %d", int(e)&0xffff) }

// getPIN asks p. start is stopped when the question is put.
func (a *assuan) getPIN(p prompt, tty string, seconds int, start *time.Timer) (string, error) {
	if _, err := a.answer(); err != nil { // the greeting
		return "", err
	}
	// Without the grab the code can be copied from another window.
	commands := []string{"OPTION no-grab"}
	if tty != "" {
		commands = append(commands, "OPTION ttyname="+tty)
		if t := os.Getenv("TERM"); t != "" {
			commands = append(commands, "OPTION ttytype="+t)
		}
	}
	for _, v := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if locale := os.Getenv(v); locale != "" {
			commands = append(commands, "OPTION lc-ctype="+locale)
			break
		}
	}
	options := len(commands)
	commands = append(commands, "SETTITLE "+p.title, "SETDESC "+strings.Join(p.lines, "\n"), "SETPROMPT "+p.label)
	if p.fail != "" {
		commands = append(commands, "SETERROR "+p.fail)
	}
	if seconds > 0 {
		commands = append(commands, "SETTIMEOUT "+strconv.Itoa(seconds))
	}
	for i, c := range commands {
		_, err := a.command(c)
		// Not every pinentry knows every option.
		if err != nil && !(errors.As(err, new(gpgError)) && (i < options || strings.HasPrefix(c, "SETTIMEOUT"))) {
			return "", err
		}
	}
	if !start.Stop() {
		return "", errors.New("it did not start in time")
	}
	data, err := a.command("GETPIN")
	var code gpgError
	if errors.As(err, &code) {
		switch int(code) & 0xffff {
		case gpgCanceled, gpgFullyCanceled, gpgNotConfirmed:
			err = errRefused
		case gpgTimeout:
			err = errors.New("nobody answered")
		}
	}
	if err != nil {
		return "", err
	}
	defer clear(data)
	_, _ = io.WriteString(a.w, "BYE\n")
	return string(data), nil
}

// command sends a line and returns the data of the answer. Errors: gpgError,
// or that the talk is broken.
func (a *assuan) command(line string) ([]byte, error) {
	if _, err := io.WriteString(a.w, assuanEscape(line)+"\n"); err != nil {
		return nil, errors.New("it takes no commands")
	}
	return a.answer()
}

// answer reads lines until OK or ERR.
func (a *assuan) answer() (data []byte, err error) {
	for {
		line, err := a.r.ReadSlice('\n')
		if err != nil {
			return nil, errors.New("it ended in the middle")
		}
		line = bytes.TrimRight(line, "\r\n")
		word, rest, _ := bytes.Cut(line, []byte(" "))
		switch string(word) {
		case "OK":
			return data, nil
		case "ERR":
			number, _, _ := bytes.Cut(rest, []byte(" "))
			n, err := strconv.Atoi(string(number))
			if err != nil {
				return nil, errors.New("it does not speak Assuan")
			}
			return nil, gpgError(n)
		case "D":
			if data = append(data, assuanUnescape(rest)...); len(data) > 4096 {
				return nil, errors.New("its answer is too long")
			}
		case "INQUIRE": // nothing that it may ask us
			if _, err := io.WriteString(a.w, "CAN\n"); err != nil {
				return nil, errors.New("it takes no commands")
			}
		case "S", "", "#":
		default:
			if word[0] != '#' {
				return nil, errors.New("it does not speak Assuan")
			}
		}
	}
}

// assuanEscape escapes a line as Assuan wants it, and cuts it where it is
// too long.
func assuanEscape(line string) string {
	var b strings.Builder
	for len(line) > 0 {
		_, size := utf8.DecodeRuneInString(line)
		piece := line[:size]
		switch piece {
		case "%":
			piece = "%25"
		case "\r":
			piece = "%0D"
		case "\n":
			piece = "%0A"
		}
		if b.Len()+len(piece) > assuanLine-1 {
			break
		}
		b.WriteString(piece)
		line = line[size:]
	}
	return b.String()
}

func assuanUnescape(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] == '%' && i+2 < len(b) {
			if n, err := strconv.ParseUint(string(b[i+1:i+3]), 16, 8); err == nil {
				out = append(out, byte(n))
				i += 2
				continue
			}
		}
		out = append(out, b[i])
	}
	return out
}
