package cli

import (
	"encoding/json"
	"strings"

	"keyfob/internal/control"
)

// credentialProcess is `keyfob credential-process` where fast left it to us.
func (a *app) credentialProcess(in invocation) int {
	const what = "get credentials"
	document, err := a.credentials(in, "credential-process")
	if err != nil {
		return a.fail(what, err)
	}
	return a.printDocument(document)
}

// refuseLoop ends at once what would wait for itself: a profile's
// credential_process that asks keyfob for the same profile.
func (a *app) refuseLoop() error {
	if !a.inLoop() {
		return nil
	}
	return failure("cannot get credentials: the credential_process of a profile runs keyfob again", "a profile can't be its own source: see `keyfob explain`")
}

// credentials gets the credential_process document for the command via.
func (a *app) credentials(in invocation, via string) (json.RawMessage, error) {
	if err := a.refuseLoop(); err != nil {
		return nil, err
	}
	c, err := a.context(in)
	if err != nil {
		return nil, err
	}
	p := control.CredentialsParams{Context: c}
	if p.SessionPolicy, err = a.sessionPolicy(); err != nil {
		return nil, err
	}
	ctx, cancel := a.within(processWait, c.MayAsk)
	defer cancel()
	if via != "credential-process" {
		p.Via = via
	}
	var document json.RawMessage
	err = a.call(ctx, control.MethodCredentials, p, &document, a.handler(via))
	return document, err
}

// env is `keyfob env`.
func (a *app) env(in invocation) int {
	const what = "print the environment"
	shell := a.opts.shell
	if a.opts.json {
		shell = "json"
	}
	print, ok := shellPrinter(shell)
	if !ok {
		return a.fail(what, amongWords("--shell", shell, append(shells, "sh", "pwsh")))
	}
	document, err := a.credentials(in, "env")
	if err != nil {
		return a.fail(what, err)
	}
	var k control.CredentialsResult
	if err := json.Unmarshal(document, &k); err != nil || k.AccessKeyID == "" {
		return a.fail(what, failure("keyfobd's answer holds no credentials", ""))
	}
	vars := []variable{
		{"AWS_ACCESS_KEY_ID", k.AccessKeyID},
		{"AWS_SECRET_ACCESS_KEY", k.SecretAccessKey},
		{"AWS_SESSION_TOKEN", k.SessionToken},
		{"AWS_CREDENTIAL_EXPIRATION", k.Expiration},
	}
	if region := a.region(in); region != "" {
		vars = append(vars, variable{"AWS_REGION", region}, variable{"AWS_DEFAULT_REGION", region})
	}
	text, err := print(vars)
	if err != nil {
		return a.fail(what, err)
	}
	if _, err := a.Stdout.WriteString(text); err != nil {
		return a.fail(what, err)
	}
	return exitDone
}

// region is the region of the profile as explain shows it, "" where there is
// none.
func (a *app) region(in invocation) string {
	if a.opts.region != "" {
		return a.opts.region
	}
	c, err := a.context(in)
	if err != nil {
		return ""
	}
	ctx, cancel := a.within(quickWait, false)
	defer cancel()
	var x struct {
		Settings []struct{ Name, Value string } `json:"settings"`
	}
	if err := a.call(ctx, control.MethodExplain, control.ProfileParams{Context: c}, &x, a.handler("explain")); err != nil {
		return ""
	}
	for _, s := range x.Settings {
		if s.Name == "region" {
			return s.Value
		}
	}
	return ""
}

type variable struct{ name, value string }

// shells are what env prints for.
var shells = []string{"bash", "zsh", "fish", "powershell", "cmd", "dotenv", "json"}

// shellPrinter returns what prints variables for a shell. An empty value
// unsets, so that nothing is left of an earlier session.
func shellPrinter(shell string) (func([]variable) (string, error), bool) {
	lines := func(set func(variable) string, unset func(name string) string) func([]variable) (string, error) {
		return func(vars []variable) (string, error) {
			var b strings.Builder
			for _, v := range vars {
				if v.value == "" {
					b.WriteString(unset(v.name))
				} else {
					b.WriteString(set(v))
				}
			}
			return b.String(), nil
		}
	}
	switch shell {
	case "bash", "sh", "zsh":
		return lines(
			func(v variable) string {
				return "export " + v.name + "='" + strings.ReplaceAll(v.value, "'", `'\''`) + "'\n"
			},
			func(name string) string { return "unset " + name + "\n" }), true
	case "fish":
		quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
		return lines(
			func(v variable) string { return "set -gx " + v.name + " '" + quote.Replace(v.value) + "'\n" },
			func(name string) string { return "set -e " + name + "\n" }), true
	case "powershell", "pwsh":
		// PowerShell takes typographic quotes for ' too. Piped into
		// Invoke-Expression, each line is a script of its own.
		quote := strings.NewReplacer("'", "''", "\u2018", "\u2018\u2018", "\u2019", "\u2019\u2019", "\u201a", "\u201a\u201a", "\u201b", "\u201b\u201b")
		return func(vars []variable) (string, error) {
			for _, v := range vars {
				if strings.ContainsAny(v.value, "\r\n\x00") {
					return "", failure("cannot print "+v.name+" for PowerShell: it has a line break", "--shell json")
				}
			}
			return lines(
				func(v variable) string {
					return "$Env:" + v.name + " = '" + quote.Replace(v.value) + "'\n"
				},
				func(name string) string { return "Remove-Item -ErrorAction SilentlyContinue Env:" + name + "\n" })(vars)
		}, true
	case "cmd":
		return func(vars []variable) (string, error) {
			for _, v := range vars {
				if strings.ContainsAny(v.value, "\"%!^&|<>\r\n") {
					return "", failure("cannot print "+v.name+" for cmd: it has characters that cmd can't quote", "--shell powershell")
				}
			}
			return lines(
				func(v variable) string { return `set "` + v.name + "=" + v.value + "\"\r\n" },
				func(name string) string { return `set "` + name + "=\"\r\n" })(vars)
		}, true
	case "dotenv":
		return func(vars []variable) (string, error) {
			for _, v := range vars {
				if strings.ContainsAny(v.value, "'\"\\\r\n #$`") {
					return "", failure("cannot print "+v.name+" as a line of an environment file: it has characters that such files can't quote alike", "--shell json")
				}
			}
			return lines(
				func(v variable) string { return v.name + "=" + v.value + "\n" },
				func(string) string { return "" })(vars)
		}, true
	case "json":
		return func(vars []variable) (string, error) {
			m := make(map[string]string, len(vars))
			for _, v := range vars {
				if v.value != "" {
					m[v.name] = v.value
				}
			}
			b, err := json.MarshalIndent(m, "", "  ")
			return string(b) + "\n", err
		}, true
	}
	return nil, false
}
