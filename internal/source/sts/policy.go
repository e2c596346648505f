package sts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

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

// maxPolicyFile bounds what is read; AWS takes 2048 characters.
const maxPolicyFile = 64 << 10

// sessionPolicy reads the profile's session policy, "" for none. White space
// outside strings is dropped: it counts against AWS's limit.
func sessionPolicy(link profiles.Link) (string, error) {
	path := link.Params["session_policy"]
	if path == "" {
		return "", nil
	}
	cannot := func(err error) error {
		return unusable(link.Profile, "cannot read the session policy "+path+": "+reason(err), "correct session_policy, the path of a JSON file", err)
	}
	// A FIFO would hold the fetch for as long as nobody writes to it.
	if info, err := os.Stat(path); err != nil {
		return "", cannot(err)
	} else if !info.Mode().IsRegular() {
		return "", cannot(errors.New("it is not a regular file"))
	}
	f, err := os.Open(path)
	if err != nil {
		return "", cannot(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPolicyFile+1))
	if err != nil {
		return "", cannot(err)
	}
	if len(b) > maxPolicyFile {
		return "", unusable(link.Profile, "the session policy "+path+" is longer than AWS allows (2048 characters)", "", nil)
	}
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	var whole json.RawMessage
	if err := json.Unmarshal(b, &whole); err != nil {
		line := 1
		if syntax, ok := err.(*json.SyntaxError); ok {
			line += bytes.Count(b[:min(int(syntax.Offset), len(b))], []byte("\n"))
		}
		return "", unusable(link.Profile, fmt.Sprintf("the session policy %s:%d is not JSON: %v", path, line, err), "", nil)
	}
	var short bytes.Buffer
	if err := json.Compact(&short, whole); err != nil {
		return "", cannot(err)
	}
	if n := len([]rune(short.String())); n > 2048 {
		return "", unusable(link.Profile, fmt.Sprintf("the session policy %s has %d characters, and AWS allows 2048", path, n), "shorten it, or use session_policy_arns", nil)
	}
	return short.String(), nil
}
