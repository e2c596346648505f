package ops

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/accessanalyzer"
	"github.com/aws/aws-sdk-go-v2/service/accessanalyzer/types"

	"keyfob/internal/awsclient"
	"keyfob/internal/cred"
	"keyfob/profiles"
)

// PolicyFinding is what IAM Access Analyzer says of a policy.
type PolicyFinding struct {
	Type    string // ERROR, SECURITY_WARNING, WARNING, SUGGESTION
	Code    string
	Message string
	Path    string // "Statement[0].Condition", "" for the whole
	Link    string
}

// maxFindings bounds what is shown of one document.
const maxFindings = 100

// ValidatePolicy asks IAM Access Analyzer what it thinks of a policy of a
// kind, signed by c. Errors: *cred.UpstreamError.
func (d Deps) ValidatePolicy(ctx context.Context, settings profiles.Client, c cred.Credentials, kind string, policy json.RawMessage) ([]PolicyFinding, error) {
	const op, what = "ValidatePolicy", "have the policy checked by IAM Access Analyzer"
	ctx, cancel := bounded(ctx)
	defer cancel()
	pool, done := d.pool()
	defer done()
	in := &accessanalyzer.ValidatePolicyInput{PolicyDocument: aws.String(string(policy)), PolicyType: types.PolicyTypeIdentityPolicy}
	if kind == PolicyTrust {
		in.PolicyType, in.ValidatePolicyResourceType = types.PolicyTypeResourcePolicy, types.ValidatePolicyResourceTypeRoleTrust
	}
	findings := []PolicyFinding{}
	for len(findings) < maxFindings {
		var seen awsclient.Seen
		cfg, err := awsclient.Config(ctx, settings, signedBy(c), awsclient.Options{Service: "accessanalyzer", Pool: pool, Seen: &seen})
		var out *accessanalyzer.ValidatePolicyOutput
		if err == nil {
			out, err = accessanalyzer.NewFromConfig(cfg, func(o *accessanalyzer.Options) { o.HTTPSignerV4 = pool.Signer() }).ValidatePolicy(ctx, in)
		}
		d.tellSkew(&seen)
		if err != nil {
			err = failed(op, what, c, err, &seen)
			if forbidden(err) {
				err = cred.WithHint(err, "the profile needs access-analyzer:ValidatePolicy")
			}
			return nil, err
		}
		for _, f := range out.Findings {
			x := PolicyFinding{Type: string(f.FindingType), Code: aws.ToString(f.IssueCode), Message: aws.ToString(f.FindingDetails), Link: aws.ToString(f.LearnMoreLink)}
			if len(f.Locations) > 0 {
				x.Path = pathText(f.Locations[0].Path)
			}
			findings = append(findings, x)
		}
		if aws.ToString(out.NextToken) == "" {
			break
		}
		in.NextToken = out.NextToken
	}
	return findings, nil
}

// pathText is a location as one would write it.
func pathText(path []types.PathElement) string {
	var b strings.Builder
	for _, e := range path {
		switch e := e.(type) {
		case *types.PathElementMemberIndex:
			b.WriteString("[" + strconv.Itoa(int(e.Value)) + "]")
		case *types.PathElementMemberKey:
			b.WriteString("." + e.Value)
		case *types.PathElementMemberValue:
			b.WriteString("." + e.Value)
		}
	}
	return strings.TrimPrefix(b.String(), ".")
}
