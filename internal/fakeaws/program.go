package fakeaws

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"keyfob/internal/atomicfile"
)

// ready is the one line that the program prints when it can be called.
type ready struct {
	URL    string    `json:"url"`
	TLSURL string    `json:"tls_url,omitempty"`
	CAFile string    `json:"ca_file,omitempty"`
	Admin  string    `json:"admin"`
	PID    int       `json:"pid"`
	Users  []Created `json:"users"`
	Roles  []string  `json:"roles"`
}

// Run is the program: it serves until ctx ends and returns the exit code
// (0 done, 1 failed, 2 wrong usage). With -until-stdin-closes the end of
// stdin ends it too, so that it never outlives a script that holds the pipe.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("fakeaws", flag.ContinueOnError)
	fs.SetOutput(stderr)
	listen := fs.String("listen", "127.0.0.1:0", "address of the services")
	tlsAddr := fs.String("tls", "", "address of the same services over TLS (needs --ca-file)")
	caFile := fs.String("ca-file", "", "where to write the certificate authority of --tls, for AWS_CA_BUNDLE")
	tlsNames := fs.String("tls-names", "", "comma separated names that the certificate of --tls is for beside localhost")
	admin := fs.String("admin", "127.0.0.1:0", "address of the admin port")
	state := fs.String("state", "", "JSON `file` with users and roles; without it a small default world")
	untilStdin := fs.Bool("until-stdin-closes", false, "end when standard input closes")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if fs.NArg() > 0 || (*tlsAddr == "") != (*caFile == "") {
		fmt.Fprintln(stderr, "fakeaws: wrong usage: no arguments are taken, and --tls and --ca-file go together")
		return 2
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := run(ctx, cancel, *listen, *tlsAddr, *tlsNames, *caFile, *admin, *state, stdinOr(stdin, *untilStdin), stdout); err != nil {
		fmt.Fprintf(stderr, "fakeaws: %v\n", err)
		return 1
	}
	return 0
}

func stdinOr(stdin io.Reader, use bool) io.Reader {
	if use {
		return stdin
	}
	return nil
}

func run(ctx context.Context, cancel func(), listen, tlsAddr, tlsNames, caFile, adminAddr, state string, stdin io.Reader, stdout io.Writer) error {
	world := DefaultWorld()
	if state != "" {
		var err error
		if world, err = LoadWorld(state); err != nil {
			return err
		}
	}
	s := New()
	line := ready{PID: os.Getpid(), CAFile: caFile}
	var stop func()
	var err error
	if line.URL, stop, err = s.Listen(ctx, listen, nil); err != nil {
		return err
	}
	defer stop()
	if tlsAddr != "" {
		ca, err := NewCA(strings.FieldsFunc(tlsNames, func(r rune) bool { return r == ',' })...)
		if err != nil {
			return err
		}
		if err := atomicfile.Write(caFile, ca.PEM, atomicfile.Options{Mode: 0o644}); err != nil {
			return err
		}
		if line.TLSURL, stop, err = s.Listen(ctx, tlsAddr, ca); err != nil {
			return err
		}
		defer stop()
	}
	if line.Users, line.Roles, err = s.Populate(world); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", adminAddr)
	if err != nil {
		return fmt.Errorf("cannot listen on %s: %w", adminAddr, err)
	}
	line.Admin = "http://" + ln.Addr().String()
	srv := &http.Server{Handler: s.AdminHandler(), ReadHeaderTimeout: 30 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(ln) })
	defer wg.Wait()
	defer srv.Close() //nolint:errcheck // ending anyway
	if err := json.NewEncoder(stdout).Encode(line); err != nil {
		return fmt.Errorf("cannot say that it is ready: %w", err)
	}
	if stdin != nil {
		// Not joined: a read of a terminal or pipe can't be interrupted, and
		// the process ends with Run.
		go func() {
			_, _ = io.Copy(io.Discard, stdin)
			cancel()
		}()
	}
	<-ctx.Done()
	return nil
}
