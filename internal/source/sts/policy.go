package sts

import (
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"keyfob/internal/cred"
	"keyfob/profiles"
)

// list splits a,b,c and drops spaces and empty members.
func list(s string) []string {
	var out []string
	for _, x := range strings.Split(s, ",") {
		if x = strings.TrimSpace(x); x != "" {
			out = append(out, x)
		}
	}
	return out
}

// sessionTags reads k=v,k=v.
func sessionTags(link profiles.Link) ([]types.Tag, error) {
	var out []types.Tag
	seen := map[string]bool{}
	for _, kv := range list(link.Params["session_tags"]) {
		k, v, ok := strings.Cut(kv, "=")
		k, v = strings.TrimSpace(k), strings.TrimSpace(v)
		if !ok || k == "" {
			return nil, unusable(link.Profile, fmt.Sprintf("session_tags has %q, which is not KEY=VALUE", kv), "session_tags = KEY=VALUE,KEY=VALUE", nil)
		}
		if fold := strings.ToLower(k); seen[fold] { // AWS compares tag keys without case
			return nil, unusable(link.Profile, fmt.Sprintf("session_tags has %q twice", k), "", nil)
		} else {
			seen[fold] = true
		}
		out = append(out, types.Tag{Key: aws.String(k), Value: aws.String(v)})
	}
	return out, nil
}

// sessionPolicy is the link's session policy as AssumeRole takes it.
func sessionPolicy(link profiles.Link) (inline string, managed []types.PolicyDescriptorType, err error) {
	inline, arns, err := link.SessionPolicy()
	if err != nil {
		return "", nil, &settingsError{msg: err.Error(), help: cred.HintOf(err), err: err}
	}
	for _, arn := range arns {
		managed = append(managed, types.PolicyDescriptorType{Arn: aws.String(arn)})
	}
	return inline, managed, nil
}
