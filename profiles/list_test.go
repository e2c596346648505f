package profiles

import (
	"strings"
	"testing"
)

// A profile that is there for programs, which get another one's credentials
// by it, is in order when that one is.
func TestListOfProfilesThatHandOver(t *testing.T) {
	const keyfob = "credential_process = /opt/a/keyfob "
	w := world{home: "/h", config: "[profile base]\nregion = eu-west-1\naws_access_key_id = AKIA\naws_secret_access_key = s\n" +
		"[profile one]\n" + keyfob + "credential-process --profile base\n" +
		"[profile two]\n" + keyfob + "--socket /x credential-process base\n" +
		"[profile three]\ncredential_process = \"/opt/a b/keyfob\" credential-process --profile=base --region us-east-1\n" +
		"[profile gone]\n" + keyfob + "credential-process --profile nobody\n" +
		"[profile bad]\n" + keyfob + "credential-process --profile broken\n" +
		"[profile broken]\nrole_arn = arn:aws:iam::1:role/x\n" +
		"[profile self]\n" + keyfob + "credential-process --profile self\n" +
		"[profile none]\n" + keyfob + "credential-process\n"}
	s, _ := w.load(t)
	for _, l := range s.List() {
		want, source := "", KindProcess
		switch l.Name {
		case "gone":
			want = "there is no such profile"
		case "bad", "broken":
			want = "role_arn"
		case "self", "none":
			want = "keyfob itself"
		}
		if l.Name == "base" {
			source = KindStaticKeys
		}
		if want == "" && (l.Err != nil || l.Source != source) || want != "" && (l.Err == nil || !strings.Contains(l.Err.Error(), want)) {
			t.Errorf("%s: source %q, error %v", l.Name, l.Source, l.Err)
		}
	}
}
