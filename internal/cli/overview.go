package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"keyfob/internal/control"
	"keyfob/profiles"
)

// overviewWait bounds what the overview waits for: it never hangs.
const overviewWait = 3 * time.Second

// overview is what keyfob alone shows, and its JSON form.
type overview struct {
	Version  string                `json:"version"`
	Daemon   *control.StatusResult `json:"daemon,omitempty"` // that runs
	Problem  string                `json:"problem,omitempty"`
	Profiles int                   `json:"profiles"`
	SignedIn int                   `json:"signed_in"`
	Missing  map[string]string     `json:"missing,omitempty"` // profile: the command that it waits for
	Next     []nextStep            `json:"next"`
	plain    []profiles.PlainKey   // long-lived keys in the AWS files
	names    []string              // of profiles
	works    func(name string) bool
	waiting  []control.InteractionStatus
}

type nextStep struct {
	Command string `json:"command"`
	Why     string `json:"why"`
}

// overview is `keyfob`: what is set up, and the next step. It starts no
// daemon, so that it changes nothing and asks for nothing; without one, the
// files say what there is.
func (a *app) overview(invocation) int {
	o := overview{Version: a.Version}
	if err := a.survey(&o); err != nil {
		return a.fail("show what is set up", err)
	}
	o.Next = o.steps()
	if a.opts.json {
		return a.printJSON(o)
	}
	return a.print(o.text(a.lookOf(a.Stdout)))
}

// survey finds out what is set up.
func (a *app) survey(o *overview) error {
	s, err := a.settings()
	if err != nil {
		return err
	}
	set, err := a.readProfiles(vaultProfiles(s.DataDir)...)
	if err != nil {
		return err
	}
	o.plain, o.names = set.PlainKeys(), set.Names()
	o.works = func(name string) bool {
		p, err := set.Resolve(profiles.Query{Profile: name, ProfileOrigin: profiles.Origin{Kind: profiles.FromFlag}})
		return err == nil && p.Err == nil
	}
	o.Profiles = len(o.names)
	if err := set.Err(); err != nil {
		o.Problem = err.Message
	}
	if a.badFile != nil {
		o.Problem = a.badFile.Error()
	}
	ctx, cancel := context.WithTimeout(context.Background(), overviewWait)
	defer cancel()
	client, err := a.dial(ctx)
	if errors.Is(err, control.ErrNotRunning) {
		return nil
	}
	var st control.StatusResult
	var known control.ListResult
	if err == nil {
		err = client.Call(ctx, control.MethodStatus, control.Empty{}, &st, nil)
	}
	if err == nil {
		o.Daemon, o.waiting = &st, st.Interactions
		err = client.Call(ctx, control.MethodList, a.environment(), &known, nil)
	}
	if err != nil {
		o.Problem = err.Error()
		return nil
	}
	o.names, o.Missing = nil, map[string]string{}
	failing := map[string]bool{}
	o.works = func(name string) bool { return !failing[name] }
	for _, p := range known.Profiles {
		failing[p.Name] = p.Error != ""
		o.names = append(o.names, p.Name)
		if p.Session != nil && sessionCell(p.Session.Expiration, time.Now()).text != "ended" {
			o.SignedIn++
		}
		if p.Missing != "" {
			o.Missing[p.Name] = p.Missing
		}
	}
	o.Profiles = len(o.names)
	return nil
}

// steps are the next things to do, the most urgent first: two at most, so
// that they are read.
func (o *overview) steps() []nextStep {
	var steps []nextStep
	add := func(command, why string) {
		if len(steps) < 2 {
			steps = append(steps, nextStep{command, why})
		}
	}
	for _, i := range o.waiting {
		if i.Kind == control.PromptConfirm {
			add("keyfob answer "+i.ID, "a program waits for your yes to "+i.Profile)
		} else {
			add("keyfob login "+quoted(i.Profile), "somebody waits for you to sign in")
		}
	}
	if d := o.Daemon; d != nil && d.Keystore.Locked {
		why := "the vault is locked"
		if hint := d.Keystore.Hint; hint != "" && hint != "keyfob unlock" {
			why += ": " + hint
		}
		add("keyfob unlock", why)
	}
	if o.Problem != "" {
		add("keyfob doctor", "it says what is wrong, and what mends it")
	}
	if o.Profiles == 0 {
		add("keyfob configure", "set up a first profile, asked step by step")
		add("keyfob add NAME", "or keep an access key in the vault")
		return steps
	}
	if len(o.plain) > 0 {
		add("keyfob import", fmt.Sprintf("%s in plain text in your AWS files", count(len(o.plain), "long-lived key lies", "long-lived keys lie")))
	}
	for _, name := range o.names {
		if command := o.Missing[name]; command != "" {
			add(command, "before "+name+" works")
			break
		}
	}
	add("keyfob list", "the profiles, and what each one waits for")
	for _, name := range o.names {
		if o.Missing[name] == "" && o.works(name) {
			add("keyfob exec "+quoted(name)+" -- aws sts get-caller-identity", "run a program with credentials")
			return steps
		}
	}
	add("keyfob doctor", "no profile works yet: it says why, and what mends it")
	return steps
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func (o *overview) text(l look) string {
	daemon, vault := "not running; it starts by itself when it is needed", ""
	if d := o.Daemon; d != nil {
		daemon = fmt.Sprintf("keyfobd %s, pid %d, up %s", d.Version, d.PID, roughly(time.Duration(d.UptimeSeconds)*time.Second))
		vault = d.Keystore.Backend + ", unlocked"
		if d.Keystore.Locked {
			vault = d.Keystore.Backend + ", locked"
			if d.Keystore.Error != "" {
				vault += ": " + d.Keystore.Error
			}
		}
	}
	counted := fmt.Sprint(o.Profiles)
	if o.Daemon != nil && o.Profiles > 0 {
		counted += fmt.Sprintf(": %d with a session", o.SignedIn)
		if n := len(o.Missing); n > 0 {
			counted += ", " + count(n, "wants something of you", "want something of you")
		}
	}
	var b strings.Builder
	b.WriteString(l.paint(bold, "keyfob "+oneLine(o.Version)) + " keeps AWS credentials fresh for the programs of this machine\n\n")
	for _, row := range [][2]string{{"daemon", daemon}, {"vault", vault}, {"profiles", counted}, {"problem", o.Problem}} {
		if row[1] != "" {
			b.WriteString(fmt.Sprintf("  %-9s ", row[0]) + oneLine(row[1]) + "\n")
		}
	}
	b.WriteString("\nnext\n")
	for _, s := range o.Next {
		b.WriteString("  " + l.paint(bold, oneLine(s.Command)) + "\n      " + oneLine(s.Why) + "\n")
	}
	b.WriteString("\nkeyfob help lists the commands.\n")
	return b.String()
}
