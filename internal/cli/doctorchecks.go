package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"keyfob/internal/control"
	"keyfob/internal/settings"
	"keyfob/profiles"
)

// settingsFile looks at keyfob's own.
func (e *examination) settingsFile(s *settings.Settings) {
	switch {
	case e.badFile != nil:
		e.add(control.Check{ID: "settings", Group: "files", State: control.CheckFailed, Message: e.badFile.Error(), Hint: hintOf(e.badFile)})
	case s.ConfigFound:
		e.ok("files", "settings", "settings are read from "+s.ConfigFile)
		e.permissions(s.ConfigFile, "settings.private", 0o022, "others may write to it", "chmod go-w ")
	default:
		e.ok("files", "settings", "there is no "+s.ConfigFile+": every setting has its default")
	}
}

// permissions warns of a file that others may read or write.
func (e *examination) permissions(path, id string, bits os.FileMode, why, mend string) {
	st, err := os.Stat(path)
	if err != nil || runtime.GOOS == "windows" || st.Mode().Perm()&bits == 0 {
		return
	}
	e.add(control.Check{ID: id, Group: "files", State: control.CheckWarning, Message: why, File: path, Fix: mend + quoted(path)})
}

// quoted is a word for a POSIX shell.
func quoted(word string) string {
	if word != "" && !strings.ContainsFunc(word, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:@%,=", r)
	}) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// awsFiles looks at the AWS files: can they be read, who else may, and what in
// them keeps programs from asking keyfob.
func (e *examination) awsFiles(s *settings.Settings) {
	set, err := e.readProfiles()
	if err != nil {
		return
	}
	names := map[profiles.OriginKind]string{profiles.FromConfig: "files.config", profiles.FromCredentials: "files.credentials", profiles.FromKeyfob: "files.keyfob"}
	for _, f := range set.Files() {
		switch {
		case f.Err != nil:
			e.add(control.Check{ID: names[f.Kind], Group: "files", State: control.CheckFailed, Message: f.Err.Message, File: f.Err.File, Line: f.Err.Line, Hint: f.Err.Help})
		case f.Exists:
			e.ok("files", names[f.Kind], f.Path+" is readable, and all of it is grammar")
		case f.Path != "":
			e.ok("files", names[f.Kind], f.Path+" is not there")
		}
	}
	e.permissions(s.AWSCredentials, "files.credentials.private", 0o077, "others may read it", "chmod 600 ")
	e.permissions(s.AWSConfigFile, "files.config.private", 0o022, "others may write to it: a credential_process there is run", "chmod go-w ")
	e.permissions(s.ProfilesFile, "files.keyfob.private", 0o022, "others may write to it", "chmod go-w ")
	e.permissions(s.DataDir, "data-dir.private", 0o077, "others may look into keyfob's directory", "chmod 700 ")
	for _, k := range set.PlainKeys() {
		e.add(control.Check{ID: "files.plain-keys", Group: "files", State: control.CheckWarning, About: k.Profile,
			Message: "profile " + k.Profile + " has a long-lived key in plain text", File: k.Origin.File, Line: k.Origin.Line, Fix: "keyfob import " + quoted(k.Profile)})
	}
	e.lines(set)
}

// otherTools are programs that credential_process lines of others run.
var otherTools = []string{"aws-vault", "aws-sso", "granted", "assume", "saml2aws", "awsume", "aws-runas", "leapp", "aws-okta", "gimme-aws-creds", "aws_signing_helper", "okta-aws-cli"}

// lines looks at each profile's credential_process.
func (e *examination) lines(set *profiles.Set) {
	asking, refusing := 0, 0
	names := set.Names()
	for n, report := range set.ShadowAll(names) {
		name := names[n]
		ours := false
		var not []string
		var why *profiles.ClientShadow
		for i, c := range report.Clients {
			if c.Keyfob {
				ours = true
				continue
			}
			short, _, _ := strings.Cut(c.Name, " (")
			not = append(not, short)
			if why == nil {
				why = &report.Clients[i]
			}
		}
		if ours {
			asking++
		}
		line, has := set.ProcessLine(name)
		if has && !ours && !line.Keyfob {
			if tool := runsTool(line.Program); tool != "" {
				e.add(control.Check{ID: "files.other-tool", Group: "files", State: control.CheckOK, About: name,
					Message: "profile " + name + " gets its credentials from " + tool, File: line.Origin.File, Line: line.Origin.Line, Hint: "keyfob configure " + quoted(name) + " takes it over"})
			}
		}
		if !line.Keyfob || why == nil {
			continue
		}
		refusing++
		reason := not[0] + " refuses: " + why.Refuses
		at := line.Origin
		if why.Refuses == "" && len(why.Chain) > 0 {
			base := why.Chain[0]
			reason = not[0] + " finds " + string(base.Kind) + " first"
			if base.Kind == profiles.KindProcess {
				reason = not[0] + " assumes a role of its own with what keyfob gives"
			}
			if base.Origin.File != "" && base.Kind != profiles.KindProcess {
				at = base.Origin
			}
		} else if why.Origin != nil && why.Origin.File != "" {
			at = *why.Origin
		}
		e.add(control.Check{ID: "files.shadowed", Group: "files", State: control.CheckWarning, About: name, File: at.File, Line: at.Line,
			Message: "profile " + name + " asks keyfob, but not with " + strings.Join(not, ", ") + ": " + reason, Fix: "keyfob explain " + quoted(name) + " --shadow"})
	}
	if asking > refusing {
		e.ok("files", "files.lines", fmt.Sprintf("%d profiles ask keyfob by credential_process", asking))
	}
}

func runsTool(program string) string {
	base := strings.TrimSuffix(filepath.Base(program), ".exe")
	for _, t := range otherTools {
		if base == t {
			return t
		}
	}
	return ""
}

// variables looks at the caller's variables: which would be used in place
// of keyfob.
func (e *examination) variables(s *settings.Settings) {
	const group = "environment"
	before := len(e.checks)
	if e.rawenv(execFilesVar) != "" {
		e.ok(group, "environment.exec", "this is the environment of keyfob exec")
		return
	}
	set, err := e.readProfiles()
	if v := e.profileVar(); v != "" && err == nil {
		if name := e.getenv(v); !set.Has(name) {
			e.add(control.Check{ID: "environment.profile", Group: group, State: control.CheckWarning, About: v,
				Message: v + " names " + name + ", and no file has such a profile", Fix: "unset " + v})
		}
	}
	if a, b := e.getenv("AWS_PROFILE"), e.getenv("AWS_DEFAULT_PROFILE"); a != "" && b != "" && a != b {
		e.add(control.Check{ID: "environment.two-profiles", Group: group, State: control.CheckWarning, About: "AWS_DEFAULT_PROFILE",
			Message: "AWS_PROFILE is " + a + " and AWS_DEFAULT_PROFILE is " + b + ": boto3 obeys the second, everything else the first", Fix: "unset AWS_DEFAULT_PROFILE"})
	}
	for _, v := range []struct{ name, why, fix string }{
		{"AWS_ACCESS_KEY_ID", "most SDKs use this key and no profile", "unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN"},
		{"AWS_WEB_IDENTITY_TOKEN_FILE", "SDKs assume a role with this token", "unset AWS_WEB_IDENTITY_TOKEN_FILE AWS_ROLE_ARN"},
		{"AWS_CONTAINER_CREDENTIALS_FULL_URI", "SDKs ask this address where no profile gives credentials", "unset AWS_CONTAINER_CREDENTIALS_FULL_URI"},
		{"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "SDKs ask the container's address where no profile gives credentials", "unset AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"},
	} {
		if e.getenv(v.name) != "" {
			e.add(control.Check{ID: "environment.shadow", Group: group, State: control.CheckWarning, About: v.name, Message: v.name + " is set: " + v.why, Fix: v.fix})
		}
	}
	e.proxies()
	if strings.EqualFold(e.getenv("AWS_EC2_METADATA_DISABLED"), "true") {
		for _, p := range s.Endpoints {
			if p.Kind == "imds" {
				e.add(control.Check{ID: "environment.metadata-disabled", Group: group, State: control.CheckWarning, About: "AWS_EC2_METADATA_DISABLED",
					Message: "AWS_EC2_METADATA_DISABLED is true: SDKs here do not ask the metadata endpoint on " + p.Listen, Fix: "unset AWS_EC2_METADATA_DISABLED"})
				break
			}
		}
	}
	if len(e.checks) == before {
		e.ok(group, "environment", "no variable keeps programs from using their profile")
	}
}

// metadataHosts are asked for credentials, and must not be asked through a
// proxy: botocore does that (http_proxy holds for 169.254.169.254 too).
var metadataHosts = []string{"169.254.169.254", "169.254.170.2", "127.0.0.1", "localhost"}

func (e *examination) proxies() {
	proxy := ""
	for _, name := range []string{"http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"} {
		if e.getenv(name) != "" {
			proxy = name
			break
		}
	}
	if proxy == "" {
		return
	}
	exempt := e.getenv("no_proxy")
	if exempt == "" {
		exempt = e.getenv("NO_PROXY")
	}
	has := map[string]bool{}
	for _, h := range strings.Split(exempt, ",") {
		has[strings.TrimSpace(h)] = true
	}
	var lacking []string
	for _, h := range metadataHosts {
		if !has[h] && !has["*"] && !(strings.HasPrefix(h, "169.254.") && has["169.254.0.0/16"]) {
			lacking = append(lacking, h)
		}
	}
	if len(lacking) == 0 {
		return
	}
	value := strings.Join(lacking, ",")
	if exempt != "" {
		value = exempt + "," + value
	}
	e.add(control.Check{ID: "environment.no-proxy", Group: "environment", State: control.CheckWarning, About: proxy,
		Message: proxy + " is set, and NO_PROXY has not " + strings.Join(lacking, ", ") + ": some SDKs ask the proxy for credentials",
		Fix:     "export NO_PROXY=" + quoted(value) + " no_proxy=" + quoted(value)})
}

// daemonItself looks for keyfobd, and has it look at the rest. Where none can be
// had that is one failed check, with the reason.
func (e *examination) daemonItself(s *settings.Settings) {
	const group = "daemon"
	program, err := findDaemon()
	if err != nil {
		e.add(control.Check{ID: "daemon.program", Group: group, State: control.CheckFailed, Message: err.Error(), Hint: hintOf(err)})
	} else {
		e.ok(group, "daemon.program", "keyfobd is "+program)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startWait+stopWait)
	defer cancel()
	begin := time.Now()
	client, err := e.connect(ctx)
	if err != nil {
		e.add(control.Check{ID: "daemon.running", Group: group, State: control.CheckFailed, Message: err.Error(), Hint: hintOf(err)})
		return
	}
	var v control.VersionResult
	if err := client.Call(ctx, control.MethodVersion, control.Empty{}, &v, nil); err != nil {
		e.add(control.Check{ID: "daemon.running", Group: group, State: control.CheckFailed, Message: err.Error(), Hint: hintOf(err)})
		return
	}
	e.ok(group, "daemon.running", fmt.Sprintf("it answers on %s after %s (pid %d)", e.socket, briefly(time.Since(begin)), v.PID))
	if mend := e.otherVersion(v); mend != "" {
		e.warning(group, "daemon.version", "keyfob is "+e.Version+" and keyfobd is "+v.Version, mend)
	} else {
		e.ok(group, "daemon.version", "keyfob and keyfobd are both "+v.Version)
	}
	if e.spawn == nil && v.Exe != "" && program != "" && !sameFile(v.Exe, program) {
		e.warning(group, "daemon.other", "the one that runs is "+v.Exe+", another than this keyfob would start", "keyfob stop")
	}
	if err := e.askDaemon(); err != nil {
		e.add(control.Check{ID: "daemon.answers", Group: group, State: control.CheckFailed, Message: err.Error(), Hint: hintOf(err)})
	}
}

func sameFile(a, b string) bool {
	x, errA := os.Stat(a)
	y, errB := os.Stat(b)
	return errA != nil || errB != nil || os.SameFile(x, y)
}

// hintOf is the hint of any of the errors that fail knows.
func hintOf(err error) string {
	var own *problem
	var wire *control.Error
	var hinted interface{ Hint() string }
	switch {
	case errors.As(err, &own):
		return own.hint
	case errors.As(err, &wire):
		return wire.Hint
	case errors.As(err, &hinted):
		return hinted.Hint()
	}
	return ""
}
