//go:build !windows

package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"keyfob/internal/control"
)

// fakeService is `keyfobd service`: it says what it was told to do.
func fakeService(args []string) int {
	fmt.Println(strings.Join(args, " "))
	fmt.Fprint(os.Stderr, "write /x (3 bytes)\n")
	if args[len(args)-1] != "fail" {
		return 0
	}
	fmt.Fprint(os.Stderr, "keyfobd: cannot do it\nhint: keyfobd service start")
	return 2
}

// fakeDaemon is keyfobd for these tests: it starts like it, writes down how
// it was started and what it was asked, and answers from a script.
//
// Its data directory gets: started (a line for each start), args, env, fds,
// session, asked (a line METHOD PARAMS for each request).
func fakeDaemon() int {
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "service" {
		return fakeService(args[1:])
	}
	flag := func(name string) string {
		for i, a := range args[:max(len(args)-1, 0)] {
			if a == name {
				return args[i+1]
			}
		}
		return ""
	}
	d := &fake{dir: flag("--data-dir"), stop: make(chan struct{})}
	ready := os.NewFile(3, "ready")
	if os.Getenv("KEYFOB_READY_FD") != "3" {
		ready = nil
	}
	tell := func(s string) {
		if ready != nil {
			_, _ = ready.WriteString(s)
			_ = ready.Close()
		}
	}
	d.note("started", fmt.Sprint(os.Getpid()))
	wd, _ := os.Getwd()
	d.note("args", strings.Join(args, "\n"))
	env := os.Environ()
	sort.Strings(env)
	d.note("env", strings.Join(env, "\n"))
	d.note("session", fmt.Sprintf("cwd=%s leader=%v", wd, sessionLeader()))
	d.note("fds", strings.Join(openFiles(), "\n"))

	switch d.mode() {
	case "refuse":
		tell("error: cannot listen on 127.0.0.1:80: permission denied\nhint: a port above 1023\n")
		return 1
	case "die":
		return 7
	case "mute": // an older one that does not know the pipe
		if ready != nil {
			_ = ready.Close()
			ready = nil
		}
		time.Sleep(100 * time.Millisecond)
	case "slow":
		time.Sleep(300 * time.Millisecond)
	}
	socket := flag("--socket")
	_ = os.MkdirAll(filepath.Dir(socket), 0o700)
	if pid, err := os.ReadFile(filepath.Join(d.dir, "pid")); err == nil {
		if _, err := os.Stat("/proc/" + strings.TrimSpace(string(pid)) + "/fd/0"); err == nil {
			tell("error: cannot listen: another daemon serves it\n")
			return 1
		}
		_ = os.Remove(filepath.Join(d.dir, "pid"))
	}
	d.note("pid", strconv.Itoa(os.Getpid()))
	_ = os.Remove(socket)
	l, err := net.Listen("unix", socket)
	if err != nil {
		tell("error: " + err.Error() + "\n")
		return 1
	}
	d.listener = l
	tell("ok\n")
	var wg sync.WaitGroup
	wg.Go(func() {
		<-d.stop
		_ = l.Close()
	})
	end := time.AfterFunc(30*time.Second, d.end) // no test leaves it behind
	defer end.Stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			break
		}
		wg.Go(func() {
			defer conn.Close()
			d.serve(conn)
		})
	}
	d.end()
	wg.Wait()
	return 0
}

type fake struct {
	dir  string
	mu   sync.Mutex // guards the files of dir
	once sync.Once

	listener net.Listener
	stop     chan struct{}
}

func (d *fake) end() { d.once.Do(func() { close(d.stop) }) }

// mode is what the test wants of this daemon.
func (d *fake) mode() string {
	b, _ := os.ReadFile(filepath.Join(d.dir, "mode"))
	return strings.TrimSpace(string(b))
}

func (d *fake) version() string {
	if b, err := os.ReadFile(filepath.Join(d.dir, "version")); err == nil {
		return strings.TrimSpace(string(b))
	}
	return "0.1.0"
}

func (d *fake) note(file, line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := os.OpenFile(filepath.Join(d.dir, file), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, _ = f.WriteString(line + "\n")
		_ = f.Close()
	}
}

func (d *fake) once1(marker string) bool {
	_, err := os.Stat(filepath.Join(d.dir, marker))
	if err == nil {
		return false
	}
	d.note(marker, "")
	return true
}

func (d *fake) serve(conn net.Conn) {
	version := d.version()
	s := control.NewServerConn(conn)
	if d.mode() == "protocol2" {
		_, _ = fmt.Fprintf(conn, `{"keyfob":2,"version":"9.0.0","pid":%d}`+"\n", os.Getpid())
		_, _ = conn.Read(make([]byte, 4096))
		return
	}
	hello, err := s.Handshake(control.Hello{Version: version, PID: os.Getpid()})
	if err != nil {
		return
	}
	for {
		r, err := s.ReadRequest(20 * time.Second)
		if err != nil {
			return
		}
		d.note("asked", r.Method+" "+string(r.Params))
		if r.Method == control.MethodStop {
			_ = s.WriteReply(r.ID, control.Empty{}, nil)
			d.end()
			return
		}
		if d.mode() == "ending" && d.once1("ended") {
			// As a daemon that has been idle for too long just now, and
			// whose end takes a moment.
			_ = d.listener.Close()
			time.Sleep(100 * time.Millisecond)
			d.end()
			return
		}
		result, e := d.answer(s, r, hello, version)
		_ = s.WriteReply(r.ID, result, e)
	}
}

const (
	fakeSecret      = "canarySECRETcanary"
	fakeRecoveryKey = "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE-FFFFF-GGGGG-HHHHH"
)

func (d *fake) answer(s *control.ServerConn, r control.Request, hello control.Hello, version string) (any, *control.Error) {
	var p struct {
		control.Context
		Code string `json:"code"`
	}
	_ = json.Unmarshal(r.Params, &p)
	switch p.Profile {
	case "nope":
		return nil, &control.Error{Code: control.CodeUnknownProfile, Message: "cannot find profile nope", Hint: "keyfob list"}
	case "denied":
		return nil, &control.Error{Code: control.CodeDenied, Message: "cannot get credentials for denied: denied"}
	case "person":
		return nil, &control.Error{Code: control.CodeInteraction, Message: "cannot get credentials for person: an MFA code is needed", Hint: "keyfob login person"}
	case "aws":
		return nil, &control.Error{Code: control.CodeFailed, Message: "cannot assume role X: \x1b[31mAccessDenied\nsecond line"}
	case "mfa":
		if r.Method != control.MethodCredentials && r.Method != control.MethodLogin && r.Method != control.MethodGrantAdd {
			break
		}
		if !p.MayAsk {
			return nil, &control.Error{Code: control.CodeInteraction, Message: "cannot get credentials for mfa: an MFA code is needed", Hint: "keyfob login mfa"}
		}
		ctx, stop := s.Watch(context.Background())
		defer stop()
		_ = s.WriteEvent(control.Event{ID: r.ID, Event: control.EventPrompt, Prompt: &control.Prompt{Interaction: "i1", Kind: "mfa", Profile: "mfa", Serial: "arn:aws:iam::1:mfa/u", Text: "MFA code for arn:aws:iam::1:mfa/u"}})
		a, err := s.ReadAnswer(ctx)
		if err != nil {
			d.note("asked", "prompt left")
			return nil, &control.Error{Code: control.CodeInteraction, Message: "cannot get credentials for mfa: nobody answered"}
		}
		if a.Refused || a.Value != "123456" {
			return nil, &control.Error{Code: control.CodeInteraction, Message: "cannot sign in: the MFA code was not taken", Hint: "keyfob login mfa"}
		}
	}
	name := p.Profile
	if r.Method == control.MethodAnswer {
		var a control.AnswerParams
		_ = json.Unmarshal(r.Params, &a)
		name = "p-" + a.Interaction
	}
	if q, ok := fakePrompts()[name]; ok && r.Method != control.MethodExplain {
		if e := d.prompt(s, r.ID, name, q); e != nil {
			return nil, e
		}
	}
	switch r.Method {
	case control.MethodAnswer:
		return control.Empty{}, nil
	case control.MethodAudit, control.MethodAuditVerify:
		return d.fakeAudit(r)
	case control.MethodConsole, control.MethodWhoami, control.MethodMFAAdd, control.MethodMFAList, control.MethodMFARemove, control.MethodMFACode:
		return fakeIdentity(r, p.Profile)
	case control.MethodRotate, control.MethodPolicy, control.MethodDoctor:
		return fakeOperations(r, p.Profile)
	case control.MethodCredentials:
		return control.CredentialsResult{Version: 1, AccessKeyID: "ASIAEXAMPLE", SecretAccessKey: fakeSecret, SessionToken: "token+/=", Expiration: "2031-01-02T03:04:05Z", AccountID: "123456789012"}, nil
	case control.MethodAdd:
		var a control.AddParams
		_ = json.Unmarshal(r.Params, &a)
		switch {
		case a.Profile == "have" && !a.Force:
			return nil, &control.Error{Code: control.CodeExists, Message: "cannot add the keys: have has keys already", Hint: "keyfob add have --force"}
		case a.Profile == "offline":
			return control.AddResult{Warning: "the keys are stored unchecked: AWS is out of reach"}, nil
		}
		return control.AddResult{Checked: true, ARN: "arn:aws:iam::123456789012:user/u", AccountID: "123456789012"}, nil
	case control.MethodList:
		return control.ListResult{Profiles: []control.ListEntry{
			{Name: "a", Origins: []control.Origin{{Kind: "config", Name: "[profile a]", File: "/c", Line: 3}}, Source: "static-keys", Account: "123456789012", Session: &control.ListSession{AccessKeyID: "ASIAEXAMPLE", Expiration: "2031-01-02T03:04:05Z"}},
			{Name: "a\x1b[31mb", Origins: []control.Origin{}, Error: "cannot use it"},
			{Name: "prod", Origins: []control.Origin{{Kind: "keystore", Name: "prod"}}, Source: "assume-role", KeyAdded: "2025-01-02T03:04:05Z", Missing: "keyfob login prod"},
		}}, nil
	case control.MethodExplain:
		if p.Profile == "broken" {
			return json.RawMessage(`{"profile":"broken","settings":[],"chain":[],"warnings":[],"error":{"message":"cannot use /c:3: a role without a source","file":"/c","line":3,"hint":"add source_profile"}}`), nil
		}
		region := "eu-west-1"
		if p.Region != "" {
			region = p.Region
		}
		return json.RawMessage(`{"profile":"` + p.Profile + `","settings":[{"name":"region","value":"` + region + `","origin":{"kind":"config","name":"[profile a]","file":"/c","line":3},"shadows":[]}],"chain":[{"kind":"static-keys","profile":"a","origin":{"kind":"keystore","name":"a"}}],"warnings":["careful"]}`), nil
	case control.MethodStatus:
		backend := "secret-service"
		if strings.HasPrefix(d.mode(), "passphrase") {
			backend = "passphrase"
		}
		locked := `true,"error":"it is locked"`
		switch d.mode() {
		case "unlocked":
			locked = "false"
		case "new", "passphrase-new":
			locked = `true,"new":true`
		case "no-keyring":
			locked = `true,"new":true,"error":"cannot keep the vault's key in secret-service: no keyring answers","hint":"keyfob stop; keyfob unlock --keystore passphrase"`
		}
		return json.RawMessage(`{"version":"` + version + `","pid":` + strconv.Itoa(os.Getpid()) + `,"uptime_seconds":3723,"keystore":{"backend":"` + backend + `","locked":` + locked + `},"endpoints":[{"kind":"imds","listen":"127.0.0.1:9911","profile":"a"}],"sessions":[{"profile":"a","access_key_id":"ASIAEXAMPLE","account_id":"1","expiration":"2031-01-02T03:04:05Z","next_refresh":"2031-01-02T03:00:00Z","callers":2,"last_error":"no network"}],"interactions":[{"id":"i1","kind":"mfa","profile":"mfa","since":"2026-01-02T03:04:05Z","expires":"2031-01-02T03:04:05Z","waiting":3},{"id":"i2","kind":"confirm","profile":"prod","program":"/usr/bin/terraform","since":"2026-01-02T03:04:05Z","expires":"2031-01-02T03:04:05Z","waiting":1}],"reload_error":"bad file","warnings":["a warning"],"from_the_future":true}`), nil
	case control.MethodLogin:
		return control.LoginResult{Profile: p.Profile, Already: p.Profile == "a", Expiration: "2031-01-02T03:04:05Z"}, nil
	case control.MethodUnlock:
		var u control.UnlockParams
		_ = json.Unmarshal(r.Params, &u)
		if u.Recovery != "" && u.Recovery != fakeRecoveryKey {
			return nil, &control.Error{Code: control.CodeInteraction, Message: "cannot unlock the vault: wrong recovery key"}
		}
		if d.mode() == "passphrase" && u.Recovery == "" && u.Passphrase != "open sesame" {
			return nil, &control.Error{Code: control.CodeInteraction, Message: "cannot unlock the vault: wrong passphrase"}
		}
		return control.Empty{}, nil
	case control.MethodRecoveryKey:
		var u control.RecoveryKeyParams
		_ = json.Unmarshal(r.Params, &u)
		if d.mode() == "passphrase" && u.Passphrase != "open sesame" {
			return nil, &control.Error{Code: control.CodeInteraction, Message: "cannot make a recovery key: wrong passphrase"}
		}
		return control.RecoveryKeyResult{Key: fakeRecoveryKey}, nil
	case control.MethodGrantAdd:
		var g control.GrantParams
		_ = json.Unmarshal(r.Params, &g)
		token := g.TokenFile
		if token == "" {
			token = filepath.Join(d.dir, "token")
		}
		out := control.GrantResult{ID: "g1", Profiles: g.Profiles, URL: "http://127.0.0.1:4321/v1/credentials/" + g.Profiles[0], TokenFile: token, Region: "eu-west-1", Settings: "region = eu-west-1\noutput = json\n"}
		if g.Expires > 0 {
			out.Expires = fmt.Sprintf("in %d", g.Expires)
		}
		if g.Relative {
			out.RelativeURI = "/v2/credentials/abc"
		}
		return out, nil
	case control.MethodGrantList:
		return control.GrantListResult{Grants: []control.GrantResult{{ID: "g1", Profiles: []string{"a", "b"}, URL: "http://127.0.0.1:4321/v1/credentials/a", TokenFile: "/t", Note: "ci"}}}, nil
	case control.MethodGrantRemove:
		if strings.Contains(string(r.Params), "g9") {
			return nil, &control.Error{Code: control.CodeFailed, Message: "cannot revoke the grant g9: there is no such grant", Hint: "keyfob grant list"}
		}
		return control.Empty{}, nil
	case control.MethodVersion:
		if b, err := os.ReadFile(filepath.Join(d.dir, "version-reply")); err == nil {
			return json.RawMessage(b), nil
		}
		return control.VersionResult{Version: version, Protocol: control.Version, PID: os.Getpid(), OnDemand: d.mode() != "service", Exe: "/fake/keyfobd"}, nil
	case control.MethodRemove, control.MethodLogout, control.MethodLock, control.MethodReload:
		return control.Empty{}, nil
	}
	if result, e, ok := d.fakeWizard(r, p.Profile); ok {
		return result, e
	}
	return nil, &control.Error{Code: control.CodeProtocol, Message: "cannot do " + r.Method}
}

func sessionLeader() bool {
	return syscall.Getpgrp() == os.Getpid()
}

// openFiles lists the descriptors that were open at the start, as links.
func openFiles() []string {
	var open []string
	for fd := range 64 {
		if target, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)); err == nil && fd != 3 &&
			!strings.HasPrefix(target, "anon_inode:") && !strings.HasPrefix(target, "/proc") && !strings.HasPrefix(target, "/sys") {
			open = append(open, strconv.Itoa(fd)+" "+target)
		}
	}
	return open
}
