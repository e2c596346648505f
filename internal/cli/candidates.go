package cli

import (
	"context"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"keyfob/internal/control"
	"keyfob/internal/settings"
	"keyfob/profiles"
)

// candidate is a word that could come next, and what is shown beside it.
type candidate struct{ word, told string }

func candidates(words ...string) []candidate {
	all := make([]candidate, len(words))
	for i, w := range words {
		all[i].word = w
	}
	return all
}

// complete is the hidden command that the scripts run: the words typed so
// far, the last of which is being completed. It prints one candidate a line
// and never fails.
func (a *app) complete(in invocation) int { return a.offer(in.rest, false) }

// describe is complete with a tab and a description behind each word.
func (a *app) describe(in invocation) int { return a.offer(in.rest, true) }

func (a *app) offer(words []string, told bool) int {
	if len(words) == 0 {
		words = []string{""}
	}
	typed := words[len(words)-1]
	if typed == `""` {
		typed = ""
	}
	var b strings.Builder
	for _, c := range a.candidates(words[:len(words)-1], typed) {
		if !strings.HasPrefix(c.word, typed) || c.word != oneLine(c.word) {
			continue
		}
		b.WriteString(c.word)
		if told && c.told != "" {
			b.WriteString("\t" + oneLine(c.told))
		}
		b.WriteByte('\n')
	}
	return a.print(b.String())
}

// candidates are the words that could stand where typed does.
func (a *app) candidates(before []string, typed string) []candidate {
	all := commands()
	var cmd *command
	var word string
	given, wants := 0, "" // arguments so far; the flag whose value is typed
	fs := a.flagSet(nil)
	for _, w := range before {
		switch {
		case wants != "":
			_ = fs.Set(wants, w)
			wants = ""
		case strings.HasPrefix(w, "--"):
			name, value, joined := strings.Cut(w[2:], "=")
			f := fs.Lookup(name)
			if f == nil {
				continue
			}
			if joined {
				_ = fs.Set(name, value)
			} else if !isSwitch(f) {
				wants = name
			}
		case cmd != nil && given == 0 && find(all, cmd.name+" "+w) != nil:
			cmd = find(all, cmd.name+" "+w)
			fs = a.flagSet(cmd)
		case cmd != nil:
			given++
		default:
			name := strings.TrimSpace(word + " " + w)
			if cmd = find(all, name); cmd != nil {
				fs = a.flagSet(cmd)
			} else {
				word = name
			}
		}
	}
	name := ""
	if cmd != nil {
		name = cmd.name
	}
	switch {
	case wants != "":
		return a.values(name, wants)
	case strings.HasPrefix(typed, "--") && strings.Contains(typed, "="):
		flag, _, _ := strings.Cut(typed[2:], "=")
		values := a.values(name, flag)
		for i := range values {
			values[i].word = "--" + flag + "=" + values[i].word
		}
		return values
	case strings.HasPrefix(typed, "-"):
		return flagNames(fs)
	case cmd == nil:
		return nextWords(all, word)
	}
	return a.arguments(all, cmd, before, given)
}

func isSwitch(f *flag.Flag) bool {
	b, ok := f.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

func flagNames(fs *flag.FlagSet) []candidate {
	var names []candidate
	fs.VisitAll(func(f *flag.Flag) {
		_, text := flag.UnquoteUsage(f)
		names = append(names, candidate{"--" + f.Name, text})
	})
	return names
}

// values are what a flag of the command takes, where that is a list.
func (a *app) values(command, flag string) []candidate {
	switch flag {
	case "profile", "source-profile":
		return a.profileNames()
	case "kind":
		return kindNames()
	case "from":
		return []candidate{{fromCredentials, "the AWS credentials file"}, {fromVault, "aws-vault's keyrings"}, {fromCSV, "a CSV file of the console"}, {fromEnv, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"}}
	case "backend":
		return candidates(foreignBackends...)
	case "credential-source":
		return candidates(credentialSources...)
	case "mfa-serial":
		return append(a.deviceNames(), candidate{none, "ask for no code"})
	case "certificate", "private-key":
		if command == "configure" {
			return a.vaultCertificates()
		}
	case "shell":
		return candidates(shells...)
	case "interactive":
		return candidates("auto", "never", "always")
	case "event":
		return candidates(auditEvents...)
	case "keystore":
		return candidates(settings.Backends...)
	case "log-level":
		return candidates("trace", "debug", "info", "warn", "error")
	case "log-format":
		return candidates("text", "json")
	case "expires", "due":
		return candidates("1d", "7d", "30d", "90d")
	case "since", "until":
		return candidates("1h", "1d", "7d")
	case "duration":
		return candidates("1h", "4h", "12h")
	}
	return nil
}

// arguments are what a command takes after the given ones.
func (a *app) arguments(all []*command, cmd *command, before []string, given int) []candidate {
	one := func(names func() []candidate) []candidate {
		if given > 0 {
			return nil
		}
		return names()
	}
	switch cmd.name {
	case "completion":
		return one(func() []candidate { return candidates(completionShells...) })
	case "help":
		if given == 0 {
			return nextWords(all, "")
		}
		return nextWords(all, before[len(before)-1])
	case "service":
		return one(func() []candidate {
			return candidates("install", "uninstall", "start", "stop", "restart", "status", "logs")
		})
	case "link-local":
		return one(func() []candidate { return candidates("enable", "disable", "status") })
	case "grant remove":
		return a.grantIDs()
	case "answer":
		return one(a.questionIDs)
	case "mfa remove", "mfa code":
		return one(a.deviceNames)
	case "certificate remove":
		return one(a.certificateNames)
	}
	var names []candidate
	if given == 0 {
		names = nextWords(all, cmd.name)
	}
	if cmd.profile && (cmd.max < 0 || given < cmd.max) {
		names = append(names, a.profileNames()...)
	}
	return names
}

// nextWords are the words that go on from word, "" for none yet.
func nextWords(all []*command, word string) []candidate {
	seen := map[string]bool{}
	var names []candidate
	for _, c := range all {
		rest := c.name
		if word != "" {
			var ok bool
			if rest, ok = strings.CutPrefix(c.name, word+" "); !ok {
				continue
			}
		}
		first, second, _ := strings.Cut(rest, " ")
		if c.hidden || seen[first] {
			continue
		}
		seen[first] = true
		told := c.short
		if second != "" {
			told = strings.Join(within(all, strings.TrimSpace(word+" "+first)), ", ")
		}
		names = append(names, candidate{first, told})
	}
	return names
}

// askQuickly asks a daemon that runs. Pressing a key must not start one, nor
// have a keyring ask for its password.
func (a *app) askQuickly(method string, result any) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	client, err := a.dial(ctx)
	return err == nil && client.Call(ctx, method, a.environment(), result, nil) == nil
}

func (a *app) deviceNames() (names []candidate) {
	var r control.MFAListResult
	if a.askQuickly(control.MethodMFAList, &r) {
		for _, d := range r.Devices {
			names = append(names, candidate{word: d.Serial})
		}
	}
	return names
}

func (a *app) grantIDs() (names []candidate) {
	var r control.GrantListResult
	if a.askQuickly(control.MethodGrantList, &r) {
		for _, g := range r.Grants {
			names = append(names, candidate{g.ID, strings.TrimSpace(strings.Join(g.Profiles, ",") + " " + g.Note)})
		}
	}
	return names
}

func (a *app) questionIDs() (names []candidate) {
	var r control.StatusResult
	if a.askQuickly(control.MethodStatus, &r) {
		for _, i := range r.Interactions {
			names = append(names, candidate{i.ID, strings.TrimSpace(i.Kind + " for " + i.Profile + " " + i.Program)})
		}
	}
	return names
}

// vaultCertificates are the certificates as a profile names them.
func (a *app) vaultCertificates() (names []candidate) {
	for _, c := range a.certificateNames() {
		if !strings.ContainsAny(c.word, `/\:`) {
			names = append(names, candidate{"vault:" + c.word, c.told})
		}
	}
	return names
}

func (a *app) certificateNames() (names []candidate) {
	var r control.CertificateListResult
	if a.askQuickly(control.MethodCertificateList, &r) {
		for _, c := range r.Certificates {
			if c.Name != "" {
				names = append(names, candidate{c.Name, c.Subject})
			} else {
				names = append(names, candidate{word: c.Where})
			}
		}
	}
	return names
}

// profileNames are the profiles of the files and of the vault, whose record
// names say which there are. That takes half the time of asking the daemon,
// which would resolve each of them. A daemon that was named, or the system's,
// has profiles of its own: that one is asked.
func (a *app) profileNames() []candidate {
	s, err := a.settings()
	if err != nil {
		return nil
	}
	_, noSocket := os.Stat(s.Socket)
	if s.SocketExplicit || noSocket != nil && s.SystemSocket != "" {
		var r control.ListResult
		if a.askQuickly(control.MethodList, &r) {
			all := make([]candidate, 0, len(r.Profiles))
			for _, p := range r.Profiles {
				all = append(all, candidate{p.Name, p.Source})
			}
			return all
		}
	}
	names := profiles.Load(profiles.Input{
		ConfigFile:      s.AWSConfigFile,
		CredentialsFile: s.AWSCredentials,
		KeyfobFile:      s.ProfilesFile,
		Home:            a.getenv("HOME"),
	}).Names()
	names = append(names, vaultProfiles(s.DataDir)...)
	slices.Sort(names)
	return candidates(slices.Compact(names)...)
}

// vaultProfiles are the profiles that have a key pair in the vault, by the
// names of its files (package keystore, names.go). One too long for a file
// name is not among them.
func vaultProfiles(dataDir string) []string {
	entries, err := os.ReadDir(filepath.Join(dataDir, "vault"))
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		stem, isRecord := strings.CutSuffix(e.Name(), ".rec")
		encoded, isKey := strings.CutPrefix(stem, "key+")
		if !isRecord || !isKey {
			continue
		}
		if name, ok := decodeRecord(encoded); ok {
			names = append(names, name)
		}
	}
	return names
}

// decodeRecord undoes a file name's form: + is /, %xx is a byte.
func decodeRecord(s string) (string, bool) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '+':
			b = append(b, '/')
		case '%':
			if i+3 > len(s) {
				return "", false
			}
			raw, err := hex.DecodeString(s[i+1 : i+3])
			if err != nil {
				return "", false
			}
			b = append(b, raw...)
			i += 2
		default:
			b = append(b, s[i])
		}
	}
	return string(b), true
}
