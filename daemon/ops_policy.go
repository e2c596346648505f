package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"keyfob/internal/control"
	"keyfob/internal/cred"
	"keyfob/internal/ops"
	"keyfob/profiles"
)

// policyLook bounds the look at whose the keys of a chain are.
const policyLook = 5 * time.Second

// policy makes the IAM policies that a profile's chain needs. It needs no
// session; whose the long-lived keys are is asked where they can be read, and
// AWS is asked for its opinion where the caller wants that.
func (d *daemon) policy(c *call) (any, error) {
	p, err := decode[control.PolicyParams](c)
	if err != nil {
		return nil, err
	}
	if err := d.checkContext(p.Context); err != nil {
		return nil, err
	}
	prof, err := d.resolved(c, p.Context)
	if err != nil {
		return nil, err
	}
	r := d.request(c, p.Context, cred.ViaWhoami)
	if err := d.check(r.Caller, r.Profile, r.Via); err != nil {
		d.refusal(r, err)
		return nil, about(err, r.Profile)
	}
	if prof.Err != nil {
		return nil, prof.Err
	}
	q := ops.PolicyRequest{Profile: r.Profile, Kind: p.Kind, Chain: prof.Chain}
	if c.admin {
		q.Token = tokenFile
	} else { // the machine's files are not for everybody, nor what explain does not show
		q.Chain = usersChain(prof.Chain)
	}
	q.User, q.Account = d.userOf(c.ctx, prof.Chain)
	docs, err := ops.Policies(q)
	if errors.Is(err, ops.ErrInput) {
		return nil, &control.Error{Code: control.CodeUsage, Message: oneText(err.Error()), Hint: hintOf(err)}
	}
	if err != nil {
		return nil, err
	}
	out := control.PolicyResult{Documents: []control.PolicyDocument{}}
	for _, doc := range docs {
		out.Documents = append(out.Documents, control.PolicyDocument{For: doc.For, Profile: doc.Profile, Document: doc.Document, Notes: doc.Notes})
	}
	if p.Validate {
		if err := d.validatePolicies(c, p, r, prof, out.Documents); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// usersChain is a chain as who is no administrator may know it.
func usersChain(chain []profiles.Link) []profiles.Link {
	chain = slices.Clone(chain)
	for i := range chain {
		chain[i].Params = maps.Clone(chain[i].Params)
		for name, instead := range map[string]string{"web_identity_token_file": "of this profile", "external_id": "EXTERNAL-ID"} {
			if chain[i].Params[name] != "" {
				chain[i].Params[name] = instead
			}
		}
	}
	return chain
}

// validatePolicies fills in what IAM Access Analyzer says, signed as the
// profile.
func (d *daemon) validatePolicies(c *call, p control.PolicyParams, r cred.Request, prof *profiles.Profile, docs []control.PolicyDocument) error {
	snap, err := d.getAsking(c, r)
	if err != nil {
		d.refusal(r, err)
		return about(err, r.Profile)
	}
	client := prof.Chain[len(prof.Chain)-1].Client
	if region := consoleRegion(p.Context, prof); region != "" && client.Region == "" {
		client.Region = region
	}
	for i := range docs {
		found, err := d.opsDeps().ValidatePolicy(c.ctx, client, snap.Credentials, p.Kind, docs[i].Document)
		if err != nil {
			return err
		}
		for _, f := range found {
			docs[i].Findings = append(docs[i].Findings, control.PolicyFinding{Type: f.Type, Code: f.Code, Message: f.Message, Path: f.Path, Link: f.Link})
		}
	}
	return nil
}

// userOf is whose the long-lived keys of a chain are, as far as that can be
// known without a person: AWS tells anybody who has the keys.
func (d *daemon) userOf(ctx context.Context, chain []profiles.Link) (arn, account string) {
	read := d.longLived(chain)
	if read == nil || inVault(chain) && d.vault.Status().Locked {
		return "", ""
	}
	ctx, cancel := context.WithTimeout(ctx, policyLook)
	defer cancel()
	keys, err := read(ctx)
	if err != nil {
		return "", ""
	}
	who, err := d.stsDeps().Identity(ctx, chain[0].Client, keys)
	if err != nil {
		d.log.WithError(err).Debug("policy does not see whose the keys are")
		return "", keys.AccountID
	}
	return who.ARN, who.AccountID
}

// maxToken is what an identity token may have, and more.
const maxToken = 64 << 10

// tokenFile reads a web identity token.
func tokenFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // reading a FIFO would wait for its writer
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxToken))
}
