//go:build unix

package process

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
	"keyfob/internal/source/command"
	"keyfob/internal/source/sts"
	"keyfob/profiles"
)

const (
	id     = "ASIAIOSFODNN7EXAMPLE"
	secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYCANARYSECRET"
	token  = "FwoGZXIvYXdzEBYaDCANARYTOKEN//////////wEaDHqa0AP"
)

type world struct {
	logs *bytes.Buffer
	deps Deps
}

func newWorld() *world {
	w := &world{logs: &bytes.Buffer{}}
	log := logrus.New()
	log.SetOutput(w.logs)
	log.SetLevel(logrus.TraceLevel)
	w.deps = Deps{Log: logrus.NewEntry(log), Run: command.New(command.Config{
		Environ: []string{"PATH=" + os.Getenv("PATH"), "HOME=/"}, Timeout: 10 * time.Second, Log: logrus.NewEntry(log),
	})}
	return w
}

func link(line string) profiles.Link {
	return profiles.Link{Kind: profiles.KindProcess, Profile: "dev", Origin: profiles.Origin{Kind: profiles.FromConfig, File: "/aws/config", Line: 7},
		Params: map[string]string{"credential_process": line}}
}

// printing is the line of a tool that prints a text.
func printing(t *testing.T, text string) profiles.Link {
	t.Helper()
	file := filepath.Join(t.TempDir(), "answer")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return link("cat '" + file + "'; echo warning " + secret + " >&2")
}

func (w *world) fetch(t *testing.T, l profiles.Link) (cred.Credentials, error) {
	t.Helper()
	s, err := New(l, w.deps)
	if err != nil {
		t.Fatal(err)
	}
	if s.Interactive() {
		t.Error("it needs a person")
	}
	c, err := s.Fetch(t.Context(), cred.Input{Profile: "dev"})
	seen := w.logs.String()
	for e := err; e != nil; e = errors.Unwrap(e) {
		seen += e.Error() + cred.HintOf(e)
	}
	for _, x := range []string{secret, token, "CANARY"} {
		if strings.Contains(seen, x) {
			t.Errorf("%s is shown in %s", x, seen)
		}
	}
	return c, err
}

func document(members ...string) string {
	all := map[string]string{"Version": "1", "AccessKeyId": `"` + id + `"`, "SecretAccessKey": `"` + secret + `"`, "SessionToken": `"` + token + `"`,
		"Expiration": `"` + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + `"`}
	for i := 0; i < len(members); i += 2 {
		if members[i+1] == "" {
			delete(all, members[i])
		} else {
			all[members[i]] = members[i+1]
		}
	}
	var parts []string
	for name, value := range all {
		parts = append(parts, `"`+name+`":`+value)
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func TestAnswersAreTaken(t *testing.T) {
	t.Parallel()
	end := time.Now().Add(90 * time.Minute).UTC().Truncate(time.Second)
	for name, text := range map[string]string{
		"plain":      document("Expiration", `"`+end.Format(time.RFC3339)+`"`) + "\n",
		"account":    document("Expiration", `"`+end.Format(time.RFC3339)+`"`, "AccountId", `"111122223333"`),
		"offset":     document("Expiration", `"`+end.In(time.FixedZone("", 5400)).Format(time.RFC3339)+`"`),
		"fraction":   document("Expiration", `"`+end.Format("2006-01-02T15:04:05.000000Z07:00")+`"`),
		"BOM, lines": "\ufeff\r\n" + strings.ReplaceAll(document("Expiration", `"`+end.Format(time.RFC3339)+`"`), ",", ",\r\n") + "\r\n",
		"more":       document("Expiration", `"`+end.Format(time.RFC3339)+`"`, "Region", `{"a":[1]}`, "AccountId", "12"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			c, err := w.fetch(t, printing(t, text))
			if err != nil {
				t.Fatal(err)
			}
			if c.AccessKeyID != id || c.SecretAccessKey.Reveal() != secret || c.SessionToken.Reveal() != token || !c.Expires.Equal(end) {
				t.Errorf("%+v", c)
			}
			if want := map[string]string{"account": "111122223333"}[name]; c.AccountID != want {
				t.Errorf("account %q", c.AccountID)
			}
			if noted := strings.Contains(w.logs.String(), "AccountId is not"); noted != (name == "more") {
				t.Errorf("log: %s", w.logs)
			}
		})
	}
}

func TestSessionWithoutEndLastsAnHour(t *testing.T) {
	t.Parallel()
	for _, text := range []string{document("Expiration", ""), document("Expiration", "null")} {
		c, err := newWorld().fetch(t, printing(t, text))
		if left := time.Until(c.Expires); err != nil || left < 59*time.Minute || left > time.Hour {
			t.Errorf("%v %v", c.Expires, err)
		}
	}
}

func TestLongLivedKeysStayWhereARoleIsAbove(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		document("AccessKeyId", `"AKIAIOSFODNN7EXAMPLE"`, "SessionToken", "", "Expiration", ""),
		document("AccessKeyId", `"AKIAIOSFODNN7EXAMPLE"`, "SessionToken", `""`),
		document("AccessKeyId", `"AKIAIOSFODNN7EXAMPLE"`, "SessionToken", "null", "Expiration", "null"),
	} {
		c, err := newWorld().fetch(t, printing(t, text))
		if err != nil || !c.Expires.IsZero() || !c.SessionToken.IsZero() || c.SecretAccessKey.Reveal() != secret {
			t.Errorf("%+v %v", c, err)
		}
	}
}

func TestLongLivedKeysBecomeASessionWhereTheyAreHandedOut(t *testing.T) {
	t.Parallel()
	aws, url := fakeawstest.Start(t)
	key, secretKey := aws.AddUser(fakeaws.UserSpec{Name: "alice"})
	w := newWorld()
	pool := awsclient.NewPool(awsclient.PoolConfig{})
	t.Cleanup(pool.CloseIdle)
	w.deps.STS = sts.Deps{Pool: pool}
	l := printing(t, document("AccessKeyId", `"`+key+`"`, "SecretAccessKey", `"`+secretKey+`"`, "SessionToken", "", "Expiration", ""))
	l.Params["hand_out"] = "true"
	l.Client = profiles.Client{Region: "eu-west-1", EndpointURL: map[string]string{"sts": url}}
	c, err := w.fetch(t, l)
	if err != nil || !c.Temporary() || time.Until(c.Expires) < 11*time.Hour {
		t.Fatalf("%+v %v", c, err)
	}
	aws.SetFaults(fakeaws.Fault{Kind: fakeaws.Throttle, Action: "GetSessionToken", Count: 1})
	if _, err := w.fetch(t, l); err == nil || !errors.Is(err, cred.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	// A session is handed out as it is.
	l = printing(t, document())
	l.Params["hand_out"] = "true"
	if c, err := w.fetch(t, l); err != nil || c.AccessKeyID != id {
		t.Errorf("%+v %v", c, err)
	}
}

func TestFaultsAreToldInWords(t *testing.T) {
	t.Parallel()
	w := newWorld()
	for name, c := range map[string]struct {
		text, want string
	}{
		"nothing":        {"", "printed nothing"},
		"blank":          {" \n\n", "printed nothing"},
		"warning before": {"WARNING: old python " + secret + "\n" + document(), "prints something else before its JSON object"},
		"text":           {"please sign in", "printed no JSON object"},
		"list":           {"[" + document() + "]", "prints something else before its JSON object"},
		"after":          {document() + "\nbye", "prints something else after its JSON object"},
		"two":            {document() + document(), "prints something else after its JSON object"},
		"half":           {document()[:60], "printed half a JSON object"},
		"broken":         {strings.Replace(document(), ",", ";", 1), "printed broken JSON (at byte"},
		"UTF-16":         {"\xff\xfe{\x00", "prints UTF-16"},
		"no version":     {document("Version", ""), "gives no Version"},
		"version 2":      {document("Version", "2"), "gives Version 2, and only 1 is known"},
		"version text":   {document("Version", `"1"`), "gives a Version that is not the number 1"},
		"version 1.0":    {document("Version", `1.0`), "gives a Version that is not the number 1"},
		"no key":         {document("AccessKeyId", ""), "gives no AccessKeyId"},
		"empty key":      {document("AccessKeyId", `""`), "gives an empty AccessKeyId"},
		"key a number":   {document("AccessKeyId", `7`), "gives a AccessKeyId that is not a text"},
		"spelling":       {document("AccessKeyId", "", "accessKeyId", `"`+id+`"`), "spells AccessKeyId as accessKeyId"},
		"no secret":      {document("SecretAccessKey", ""), "gives no SecretAccessKey"},
		"null secret":    {document("SecretAccessKey", "null"), "gives no SecretAccessKey"},
		"secret's end":   {document("SecretAccessKey", `"`+secret+`\n"`), "gives a SecretAccessKey with a space, a line end"},
		"no token":       {document("SessionToken", ""), "gives a temporary key and no SessionToken"},
		"token's line":   {document("SessionToken", `"`+token+`\r\n"`), "gives a SessionToken with a space, a line end"},
		"no time":        {document("Expiration", `""`), "gives an empty Expiration"},
		"epoch":          {document("Expiration", "1767323045"), "gives an Expiration that is not a text"},
		"other time":     {document("Expiration", `"Fri Jan 2 2032"`), "not in the form of RFC 3339"},
		"no zone":        {document("Expiration", `"2032-01-02T03:04:05"`), "gives an Expiration without a time zone"},
	} {
		_, err := w.fetch(t, printing(t, c.text))
		var u *cred.UpstreamError
		if !errors.As(err, &u) || !u.Refused || u.Help == "" {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !strings.HasPrefix(u.Error(), "cannot get credentials for profile dev: its credential_process (/aws/config:7) ") || !strings.Contains(u.Error(), c.want) || strings.ContainsAny(u.Error(), "\n") {
			t.Errorf("%s: %q, want %q", name, u.Error(), c.want)
		}
	}
}

func TestExpiredAnswerIsAnError(t *testing.T) {
	t.Parallel()
	w := newWorld()
	_, err := w.fetch(t, printing(t, document("Expiration", `"2020-01-02T03:04:05+01:00"`)))
	var u *cred.UpstreamError
	if !errors.As(err, &u) || u.Refused || !errors.Is(err, cred.ErrUnavailable) || !strings.HasSuffix(u.Error(), "gives credentials that ended at 2020-01-02T02:04:05Z") {
		t.Errorf("%v", err)
	}
	// It is AWS's clock that counts.
	w.deps.Skew = func() time.Duration { return 2 * time.Hour }
	if _, err := w.fetch(t, printing(t, document())); err == nil || !strings.Contains(err.Error(), "ended at") {
		t.Errorf("%v", err)
	}
	w.deps.Skew = func() time.Duration { return -2 * time.Hour }
	ago := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	if _, err := w.fetch(t, printing(t, document("Expiration", `"`+ago+`"`))); err != nil {
		t.Errorf("%v", err)
	}
}

func TestProgramsThatFail(t *testing.T) {
	t.Parallel()
	w := newWorld()
	for line, c := range map[string]struct {
		want    string
		refused bool
	}{
		"echo '" + token + "'; exit 4":       {"ended with exit code 4", false},
		"/not/there --secret " + secret:      {"ended with exit code 127: the shell found no such program", true},
		"yes " + secret:                      {"wrote more than 1048576 bytes and was ended", true},
		"kill -9 $$":                         {"was ended by signal killed", false},
		"read x && echo asked || exit 5":     {"ended with exit code 5", false},
		"echo x </dev/tty && exit 9; exit 6": {"ended with exit code 6", false},
	} {
		_, err := w.fetch(t, link(line))
		var u *cred.UpstreamError
		if !errors.As(err, &u) || u.Refused != c.refused || !strings.HasPrefix(u.Error(), "cannot get credentials for profile dev: its credential_process (/aws/config:7) ") || !strings.HasSuffix(u.Error(), c.want) {
			t.Errorf("%s: %v", line, err)
		}
	}
	w.deps.Run = command.New(command.Config{Environ: []string{"PATH=" + os.Getenv("PATH")}, Timeout: 200 * time.Millisecond})
	_, err := w.fetch(t, link("sleep 1000"))
	var u *cred.UpstreamError
	if !errors.As(err, &u) || u.Refused || !strings.HasSuffix(u.Error(), "did not end within 200ms") || !strings.Contains(u.Help, "process_timeout") {
		t.Errorf("%v", err)
	}
	s, _ := New(link("true"), w.deps)
	if limit := s.(interface{ Limit() time.Duration }).Limit(); limit != 200*time.Millisecond {
		t.Errorf("limit %s", limit)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Fetch(ctx, cred.Input{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// A wrapper that comes back to keyfob is told so at once: keyfob refuses
// where KEYFOB_CALL_DEPTH is set.
func TestWrapperAroundKeyfobEndsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld()
	began := time.Now()
	_, err := w.fetch(t, link(`[ "${KEYFOB_CALL_DEPTH:-0}" != 0 ] && { echo loop >&2; exit 1; }; sleep 1000`))
	if err == nil || !strings.HasSuffix(err.Error(), "exit code 1") || time.Since(began) > 5*time.Second {
		t.Errorf("%v", err)
	}
}

func TestUnusableLinks(t *testing.T) {
	t.Parallel()
	w := newWorld()
	other := link("true")
	other.Kind = profiles.KindSSO
	for _, l := range []profiles.Link{other, link("")} {
		if _, err := New(l, w.deps); !errors.Is(err, cred.ErrConfig) {
			t.Errorf("%v", err)
		}
	}
	if _, err := New(link("true"), Deps{}); !errors.Is(err, cred.ErrConfig) {
		t.Errorf("%v", err)
	}
}
