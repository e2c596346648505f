package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"keyfob/internal/control"
)

// exec is `keyfob exec`: a grant for one program, revoked when it ends.
func (a *app) exec(in invocation) int {
	const what = "run the program"
	if len(in.rest) == 0 {
		return a.fail(what, usage("cannot run a program: none is named", "keyfob exec [P] -- CMD …"))
	}
	program, err := a.lookPath(in.rest[0])
	if err != nil {
		return a.fail(what, failure("cannot run "+in.rest[0]+": "+err.Error(), ""))
	}
	if err := a.refuseLoop(); err != nil {
		return a.fail(what, err)
	}
	c, err := a.context(in)
	if err != nil {
		return a.fail(what, err)
	}
	policy, err := a.sessionPolicy()
	if err != nil {
		return a.fail(what, err)
	}

	ctx, cancel := context.WithTimeout(context.Background(), a.signInWait())
	defer cancel()
	var g control.GrantResult
	err = a.call(ctx, control.MethodGrantAdd, control.GrantParams{
		Context:       c,
		Profiles:      []string{c.Profile},
		ForExec:       true,
		ExecPID:       os.Getpid(),
		SessionPolicy: policy,
	}, &g, a.handler("exec"))
	if err != nil {
		return a.fail(what, err)
	}
	// From here on signals are the program's. One that ended us before this
	// line left a grant that the daemon revokes because we are gone.
	child := newChild()
	defer child.close()
	defer func() {
		if err := a.revoke(g.ID); err != nil && !errors.Is(err, control.ErrNotRunning) {
			a.fail("revoke the grant "+g.ID, err)
		}
	}()
	a.hangUp()
	forget, err := a.keepToken(&g, "")
	if err != nil {
		return a.fail(what, err)
	}
	defer forget()

	env := a.execEnv(g)
	if !a.opts.keepFiles {
		s, err := a.settings()
		if err != nil {
			return a.fail(what, err)
		}
		files, err := makePrivateFiles(filepath.Join(s.DataDir, "exec"), g.Settings)
		if err != nil {
			return a.fail(what, err)
		}
		defer files.remove()
		env = a.useFiles(env, files)
	}
	code, err := child.run(&exec.Cmd{
		Path:   program,
		Args:   in.rest,
		Env:    env,
		Stdin:  a.Stdin,
		Stdout: a.Stdout,
		Stderr: a.Stderr,
	}, a.spawn)
	if err != nil {
		return a.fail(what, failure("cannot run "+in.rest[0]+": "+err.Error(), ""))
	}
	return code
}

// lookPath finds a program as a shell would, with the caller's PATH.
func (a *app) lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	var e *exec.Error
	if errors.As(err, &e) {
		err = e.Err // without the name, which the message has
	}
	return path, err
}

// execEnv is the environment of the program: our own, with the grant in
// place of whatever else would choose credentials.
func (a *app) execEnv(g control.GrantResult) []string {
	env := make([]string, 0, len(a.Environ)+8)
	for _, e := range a.Environ {
		if name, _, _ := strings.Cut(e, "="); !choosesCredentials(name) {
			env = append(env, e)
		}
	}
	env = setenv(env, "AWS_CONTAINER_CREDENTIALS_FULL_URI", g.URL)
	env = setenv(env, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", g.TokenFile)
	// botocore before 1.31 (the AWS CLI of Debian 12) knows the token by
	// its variable alone. The token is good for this grant, this user, and
	// until the program ends.
	if token, err := os.ReadFile(g.TokenFile); err == nil {
		env = setenv(env, "AWS_CONTAINER_AUTHORIZATION_TOKEN", string(token))
	}
	if g.Region != "" {
		env = setenv(env, "AWS_REGION", g.Region)
		env = setenv(env, "AWS_DEFAULT_REGION", g.Region)
	}
	return a.exemptFromProxy(env, g.URL)
}

// exemptFromProxy keeps requests for credentials away from a proxy: some
// clients ask it for 127.0.0.1 too.
func (a *app) exemptFromProxy(env []string, endpoint string) []string {
	proxied := false
	for _, name := range []string{"http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"} {
		proxied = proxied || a.getenv(name) != ""
	}
	host := hostOf(endpoint)
	if !proxied || host == "" {
		return env
	}
	// Some programs read only one of the two, so both say the same.
	hosts := a.getenv("no_proxy")
	if upper := a.getenv("NO_PROXY"); hosts == "" || len(upper) > len(hosts) {
		hosts = upper
	}
	if hosts == "*" {
		return env
	}
	for _, h := range strings.Split(hosts, ",") {
		if strings.TrimSpace(h) == host {
			host = ""
		}
	}
	if host != "" && hosts != "" {
		hosts += "," + host
	} else if host != "" {
		hosts = host
	}
	return setenv(setenv(env, "no_proxy", hosts), "NO_PROXY", hosts)
}

// hostOf is the host of a URL that keyfobd made: http://HOST:PORT/PATH.
func hostOf(endpoint string) string {
	_, rest, _ := strings.Cut(endpoint, "://")
	authority, _, _ := strings.Cut(rest, "/")
	if i := strings.LastIndexByte(authority, ':'); i >= 0 {
		authority = authority[:i]
	}
	return strings.Trim(authority, "[]")
}

// useFiles points the program at the private files, and a keyfob in it at
// what they replace.
func (a *app) useFiles(env []string, f *privateFiles) []string {
	for name, path := range map[string]string{
		"AWS_CONFIG_FILE":             filepath.Join(f.dir, "config"),
		"AWS_SHARED_CREDENTIALS_FILE": filepath.Join(f.dir, "credentials"),
	} {
		outer := ""
		if value := a.getenv(name); value != "" {
			outer = a.outerFile(name, value)
		}
		env = setenv(env, name, path)
		env = unsetenv(env, outerPrefix+name)
		if outer != "" {
			env = setenv(env, outerPrefix+name, outer)
		}
	}
	return setenv(env, execFilesVar, f.dir)
}

// privateFiles are the AWS files of one program: SDKs prefer files to the
// container variables, so these hold no credentials.
type privateFiles struct {
	dir  string
	lock *flock.Flock // held while the program runs: whoever finds it free may clean up
}

// gateWait is how long another exec that makes or removes such directories
// is waited for.
const gateWait = 5 * time.Second

// makePrivateFiles makes them in a directory of their own below parent, and
// removes what a killed keyfob has left there.
func makePrivateFiles(parent, settings string) (*privateFiles, error) {
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the program's AWS files: %w", err)
	}
	// Held until the new directory is locked: nobody takes it for a left one.
	gate := flock.New(parent+".lock", flock.SetPermissions(0o600))
	ctx, cancel := context.WithTimeout(context.Background(), gateWait)
	defer cancel()
	if ok, err := gate.TryLockContext(ctx, 2*time.Millisecond); ctx.Err() != nil {
		return nil, failure("cannot make the program's AWS files: another keyfob exec has held "+gate.Path()+" for too long", "")
	} else if err != nil || !ok {
		return nil, fmt.Errorf("cannot make the program's AWS files: cannot lock %s: %w", gate.Path(), err)
	}
	defer func() { _ = gate.Close() }()
	sweep(parent)
	dir, err := os.MkdirTemp(parent, "run-") // 0700
	if err != nil {
		return nil, fmt.Errorf("cannot make the program's AWS files: %w", err)
	}
	f := &privateFiles{dir: dir, lock: flock.New(filepath.Join(dir, lockName), flock.SetPermissions(0o600))}
	if _, err = f.lock.TryLock(); err == nil {
		body := "[default]\n" + settings
		if !strings.HasSuffix(body, "\n") {
			body += "\n"
		}
		err = os.WriteFile(filepath.Join(dir, "config"), []byte(body), 0o600)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "credentials"), nil, 0o600)
	}
	if err != nil {
		f.remove()
		return nil, fmt.Errorf("cannot make the program's AWS files: %w", err)
	}
	return f, nil
}

const lockName = "lock"

func (f *privateFiles) remove() { discard(f.dir, f.lock) }

// discard removes a directory whose lock is held: before it is let go, so that
// nobody else does, and after, because Windows keeps a directory with an open
// file.
func discard(dir string, lock *flock.Flock) {
	_ = os.RemoveAll(dir)
	_ = lock.Close()
	_ = os.RemoveAll(dir)
}

// sweep removes directories whose keyfob has gone: whose lock is free. The
// gate is held. A directory without a lock that is younger than a minute may
// be one that an earlier release, which knows no gate, is just making.
func sweep(parent string) {
	dirs, err := filepath.Glob(filepath.Join(parent, "run-*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		st, err := os.Lstat(dir)
		if err != nil || !st.IsDir() {
			continue
		}
		path := filepath.Join(dir, lockName)
		if _, err := os.Lstat(path); err != nil && time.Since(st.ModTime()) < time.Minute {
			continue
		}
		lock := flock.New(path, flock.SetPermissions(0o600))
		if ok, err := lock.TryLock(); err == nil && ok {
			discard(dir, lock)
			continue
		}
		_ = lock.Close()
	}
}
