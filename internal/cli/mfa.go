package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"keyfob/internal/control"
)

// mfaParams names the device of the command: by its serial number, else by
// the profile that has it as mfa_serial.
func (a *app) mfaParams(in invocation) (p control.MFAParams, err error) {
	if len(in.args) > 0 {
		if a.flags.Profile != "" {
			return p, usage(fmt.Sprintf("cannot use both the device %s and --profile %s", in.args[0], a.flags.Profile), "")
		}
		p.Serial = in.args[0]
		p.Context = a.environment().Context
		return p, nil
	}
	p.Context, err = a.context(in)
	return p, err
}

// mfaAdd is `keyfob mfa add`.
func (a *app) mfaAdd(in invocation) int {
	const what = "keep the seed"
	// Neither is quoted: it may be the seed.
	switch {
	case len(in.args) > 1:
		return a.fail(what, usage("cannot take the seed as an argument: other users of this machine can see it there", "it is asked for, or read from standard input"))
	case len(in.args) == 1 && !strings.HasPrefix(in.args[0], "arn:"):
		return a.fail(what, usage("cannot keep a seed for that: it is not the ARN of a virtual MFA device", "keyfob mfa add arn:aws:iam::ACCOUNT:mfa/NAME"))
	}
	p, err := a.mfaParams(in)
	if err != nil {
		return a.fail(what, err)
	}
	if p.Seed, err = a.readSeed(); err != nil {
		return a.fail(what, err)
	}
	ctx, cancel := a.within(quickWait, false)
	defer cancel()
	var r control.MFAAddResult
	if err := a.call(ctx, control.MethodMFAAdd, p, &r, a.handler("mfa")); err != nil {
		return a.fail(what, err)
	}
	if a.opts.json {
		return a.printJSON(r)
	}
	code := a.print(oneLine("added "+r.Serial) + "\n")
	if len(r.Codes) == 2 && code == exitDone {
		a.notice("where the device is new, AWS enables it with the codes " + strings.Join(r.Codes, " and "))
	}
	return code
}

// readSeed asks for a TOTP seed, or reads it as one line of a standard input
// that is no terminal. Its errors quote nothing of what was read.
func (a *app) readSeed() (seed string, err error) {
	if a.stdinIsTerminal() {
		seed, err = askTerminal(context.Background(), "Seed of the MFA device (base32, or its otpauth:// address): ", false)
		if errors.Is(err, errNoTerminal) {
			err = person("cannot ask for the seed: there is no terminal", "give it as one line on standard input")
		}
	} else {
		seed, err = (&lineSource{from: a.Stdin}).next()
	}
	if err != nil {
		return "", err
	}
	if seed = strings.TrimSpace(seed); seed == "" {
		return "", failure("cannot keep the seed: it is empty", "one line: base32 as AWS shows it, or the otpauth:// address of its QR code")
	}
	return seed, nil
}

// mfaList is `keyfob mfa list`.
func (a *app) mfaList(invocation) int {
	ctx, cancel := a.within(quickWait, false)
	defer cancel()
	var r control.MFAListResult
	if err := a.call(ctx, control.MethodMFAList, a.environment(), &r, a.handler("mfa")); err != nil {
		return a.fail("list the MFA devices", err)
	}
	if r.Devices == nil {
		r.Devices = []control.MFADevice{}
	}
	if a.opts.json {
		return a.printJSON(r)
	}
	if len(r.Devices) == 0 {
		a.notice("the vault has no seeds of MFA devices")
		a.advise("keyfob mfa add SERIAL")
		return exitDone
	}
	rows := [][]string{{"DEVICE", "ADDED"}}
	for _, d := range r.Devices {
		added := d.Added
		if t, err := time.Parse(time.RFC3339, added); err == nil {
			added = t.Local().Format(time.DateTime)
		}
		rows = append(rows, []string{d.Serial, added})
	}
	return a.print(table(rows))
}

// mfaRemove is `keyfob mfa remove`. A seed that is gone can be had from AWS
// only by making the device anew.
func (a *app) mfaRemove(in invocation) int {
	const what = "remove the seed"
	p, err := a.mfaParams(in)
	if err != nil {
		return a.fail(what, err)
	}
	device := p.Serial
	if device == "" {
		device = "the MFA device of " + p.Profile
	}
	line := "keyfob mfa remove " + quoted(p.Serial) + " --yes"
	if p.Serial == "" {
		line = "keyfob mfa remove --profile " + quoted(p.Profile) + " --yes"
	}
	if err := a.confirm("Remove the seed of "+device+" from the vault?", "cannot remove the seed of "+device, line); err != nil {
		return a.fail(what, err)
	}
	return a.plainCall(what, control.MethodMFARemove, p, "removed the seed of "+device, mfaRemoved{p.Serial, profileUnless(p)})
}

// mfaRemoved is `keyfob mfa remove --json`: the device as it was named.
type mfaRemoved struct {
	Serial  string `json:"serial,omitempty"`
	Profile string `json:"profile,omitempty"` // whose mfa_serial it is
}

// profileUnless is the profile that names the device, "" where its serial
// number does.
func profileUnless(p control.MFAParams) string {
	if p.Serial != "" {
		return ""
	}
	return p.Profile
}

// mfaCode is `keyfob mfa code`: the code alone, for programs that want one.
func (a *app) mfaCode(in invocation) int {
	const what = "give a code"
	p, err := a.mfaParams(in)
	if err != nil {
		return a.fail(what, err)
	}
	ctx, cancel := a.within(awsWait, false) // the next code may be half a minute away
	defer cancel()
	var r control.MFACodeResult
	if err := a.call(ctx, control.MethodMFACode, p, &r, a.handler("mfa")); err != nil {
		return a.fail(what, err)
	}
	if a.opts.json {
		return a.printJSON(r)
	}
	return a.print(oneLine(r.Code) + "\n")
}
