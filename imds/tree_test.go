package imds

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"keyfob/internal/cred"
)

func fullServer(t testing.TB) (address, token string, facts Facts) {
	facts = fullFacts(t)
	address = metadataServer(t, func(c *MetadataConfig) { c.Facts = func(string) Facts { return facts } })
	return address, newToken(t, address), facts
}

// TestWholeTree: every listing and value of a machine that has them all.
func TestWholeTree(t *testing.T) {
	t.Parallel()
	address, token, _ := fullServer(t)
	mac := "meta-data/network/interfaces/macs/02:00:5e:00:53:01/"
	for _, c := range []struct{ path, body string }{
		{"", "dynamic/\nmeta-data/\nuser-data"},
		{"meta-data/", "ami-id\nami-launch-index\nami-manifest-path\nblock-device-mapping/\nevents/\nhostname\niam/\nidentity-credentials/\n" +
			"instance-action\ninstance-id\ninstance-life-cycle\ninstance-type\nipv6\nlocal-hostname\nlocal-ipv4\nmac\nmetrics/\nnetwork/\nplacement/\n" +
			"profile\npublic-hostname\npublic-ipv4\npublic-keys/\nreservation-id\nsecurity-groups\nservices/\nsystem\ntags/"},
		{"meta-data/ami-launch-index", "0"},
		{"meta-data/ami-manifest-path", "(unknown)"},
		{"meta-data/autoscaling/target-lifecycle-state", "InService"},
		{"meta-data/block-device-mapping/", "ami\nroot"},
		{"meta-data/block-device-mapping/root", "/dev/xvda"},
		{"meta-data/events/", "maintenance/"},
		{"meta-data/events/maintenance/", "history\nscheduled"},
		{"meta-data/events/maintenance/scheduled", "[]"},
		{"meta-data/instance-action", "none"},
		{"meta-data/instance-life-cycle", "on-demand"},
		{"meta-data/ipv6", "fd00:1:2:3::4"},
		{"meta-data/mac", "02:00:5e:00:53:01"},
		{"meta-data/metrics/", "vhostmd"},
		{"meta-data/metrics/vhostmd", `<?xml version="1.0" encoding="UTF-8"?>`},
		{"meta-data/network/", "interfaces/"},
		{"meta-data/network/interfaces/", "macs/"},
		{"meta-data/network/interfaces/macs/", "02:00:5e:00:53:01/"},
		{mac, "device-number\ninterface-id\nipv4-associations/\nipv6s\nlocal-hostname\nlocal-ipv4s\nmac\nowner-id\npublic-hostname\npublic-ipv4s\n" +
			"security-group-ids\nsecurity-groups\nsubnet-id\nsubnet-ipv4-cidr-block\nsubnet-ipv6-cidr-blocks\nvpc-id\n" +
			"vpc-ipv4-cidr-block\nvpc-ipv4-cidr-blocks\nvpc-ipv6-cidr-blocks"},
		{mac + "device-number", "0"},
		{mac + "device-number/", "0"},
		{mac + "ipv4-associations/", "203.0.113.7"},
		{mac + "ipv4-associations/203.0.113.7", "10.1.2.3"},
		{mac + "ipv6s", "fd00:1:2:3::4"},
		{mac + "mac", "02:00:5e:00:53:01"},
		{"meta-data/network/interfaces/macs/02%3a00%3A5e:00:53:01/mac", "02:00:5e:00:53:01"},
		{mac + "owner-id", testAccount},
		{mac + "local-ipv4s", "10.1.2.3"},
		{mac + "security-groups", "web\nssh"},
		{mac + "subnet-ipv4-cidr-block", "10.1.0.0/20"},
		{mac + "vpc-ipv4-cidr-blocks", "10.1.0.0/16"},
		{mac + "subnet-ipv6-cidr-blocks", "fd00:1:2:3::/64"},
		{mac + "vpc-ipv6-cidr-blocks", "fd00:1:2::/56"},
		{"meta-data/placement/", "availability-zone\navailability-zone-id\nregion"},
		{"meta-data/placement/availability-zone-id", "euc1-az2"},
		{"meta-data/profile", "default-hvm"},
		{"meta-data/public-hostname", "web.example.com"},
		{"meta-data/public-ipv4", "203.0.113.7"},
		{"meta-data/public-keys/", "0=laptop\n1=second"},
		{"meta-data/public-keys/0/", "openssh-key"},
		{"meta-data/public-keys/1", "openssh-key"},
		{"meta-data/public-keys/0/openssh-key", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEXAMPLE laptop"},
		{"meta-data/security-groups", "web\nssh"},
		{"meta-data/system", "nitro"},
		{"meta-data/tags/", "instance/"},
		{"meta-data/tags/instance/", "Name\ncost:center+a=b,c.d@e_f-g\nempty"},
		{"meta-data/tags/instance/Name", "build box"},
		{"meta-data/tags/instance/cost:center+a=b,c.d@e_f-g", "42"},
		{"meta-data/tags/instance/cost%3acenter%2Ba%3Db%2Cc.d%40e_f-g", "42"},
		{"meta-data/tags/instance/empty", ""},
	} {
		for _, version := range []string{"/latest/", "/2021-07-15/", "//latest/"} {
			paths := []string{version + c.path}
			if p := strings.TrimSuffix(paths[0], "/"); p != paths[0] {
				paths = append(paths, p)
			}
			for _, path := range paths {
				a := get(t, address, path, withToken(token))
				if a.status != 200 || a.body != c.body || a.header.Get("Content-Type") != "text/plain" {
					t.Errorf("%s: %d %q, want %q", path, a.status, a.body, c.body)
				}
				h := raw(t, address, "HEAD", request("HEAD", path, address, withToken(token)))
				if h.status != 200 || h.body != "" || h.header.Get("Content-Length") != fmt.Sprint(len(c.body)) {
					t.Errorf("HEAD %s: %+v", path, h)
				}
			}
		}
	}
	for path, form := range map[string]string{
		"ami-id": `^ami-[0-9a-f]{17}$`, "instance-id": `^i-[0-9a-f]{17}$`, "reservation-id": `^r-[0-9a-f]{17}$`,
		mac[len("meta-data/"):] + "interface-id": `^eni-[0-9a-f]{17}$`, mac[len("meta-data/"):] + "vpc-id": `^vpc-[0-9a-f]{17}$`,
		mac[len("meta-data/"):] + "subnet-id":          `^subnet-[0-9a-f]{17}$`,
		mac[len("meta-data/"):] + "security-group-ids": "^sg-[0-9a-f]{17}\nsg-[0-9a-f]{17}$",
	} {
		if a := get(t, address, "/latest/meta-data/"+path, withToken(token)); !regexp.MustCompile(form).MatchString(a.body) {
			t.Errorf("%s: %d %q", path, a.status, a.body)
		}
	}
	for _, path := range []string{
		"meta-data/tags/instance/not%20shown", "meta-data/tags/instance/a%2Fb", "meta-data/tags/instance/a/b", "meta-data/tags/instance/_index",
		"meta-data/tags/instance/..", "meta-data/tags/instance/%2e%2e", "meta-data/tags/instance/Nam", "meta-data/tags/instance/Name/x", "meta-data/tags/instance//",
		"meta-data/tags/instance/Name//", "meta-data/tags/instance/./Name", "meta-data/tags/", "meta-data/tags/other",
		"meta-data/public-keys/2/", "meta-data/public-keys/0=laptop", "meta-data/public-keys/0/x", "meta-data/public-keys/0/../0/openssh-key",
		"meta-data/network/interfaces/macs/02:00:5e:00:53:02/", mac + "network-card-index", mac + "/device-number", mac + "ipv4-associations/203.0.113.8",
		"dynamic/instance-identity/signature", "dynamic/instance-identity/pkcs7", "dynamic/instance-identity/rsa2048", "dynamic/instance-identity/dsa2048",
		"meta-data/spot/instance-action", "meta-data/events/recommendations/rebalance", "meta-data/identity-credentials/ec2/security-credentials/ec2-instance",
		"meta-data/kernel-id", "meta-data/ramdisk-id", "meta-data/ancestor-ami-ids", "meta-data/product-codes", "meta-data/placement/group-name",
	} {
		want := 404
		if path == "meta-data/tags/" {
			want = 200
		}
		if a := get(t, address, "/latest/"+path, withToken(token)); a.status != want {
			t.Errorf("%s: %d %q", path, a.status, a.body)
		}
	}
}

// TestVersions: every version that is listed answers as latest does.
func TestVersions(t *testing.T) {
	t.Parallel()
	address, token, _ := fullServer(t)
	list := get(t, address, "/", withToken(token)).body
	want := get(t, address, "/latest/meta-data/", withToken(token)).body
	for _, version := range strings.Split(list, "\n") {
		for _, path := range []string{"/" + version + "/meta-data/", "/" + version + "/meta-data"} {
			if a := get(t, address, path, withToken(token)); a.status != 200 || a.body != want {
				t.Errorf("%s: %d %q", path, a.status, a.body)
			}
		}
	}
	for _, version := range []string{"2021-03-24", "2009-04-05", "1.1", "1", "Latest", "0000-00-00"} {
		if a := get(t, address, "/"+version+"/meta-data/", withToken(token)); a.status != 404 {
			t.Errorf("%s: %d", version, a.status)
		}
	}
}

// TestHeaders: what EC2 sends beside the answer.
func TestHeaders(t *testing.T) {
	t.Parallel()
	address, token, _ := fullServer(t)
	for _, path := range []string{"/latest/meta-data/", "/latest/meta-data/instance-id", "/latest/dynamic/instance-identity/document", "/latest/meta-data/iam/info"} {
		a := get(t, address, path, withToken(token))
		if a.header.Get("Server") != "EC2ws" || a.header.Get("Accept-Ranges") != "none" || a.header.Get(headerTTL) == "" {
			t.Errorf("%s: %v", path, a.header)
		}
		if _, err := http.ParseTime(a.header.Get("Last-Modified")); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	// Programs look for EC2 before they have a token.
	if a := get(t, address, "/latest"); a.status != 401 || a.header.Get("Server") != "EC2ws" {
		t.Errorf("without a token: %+v", a)
	}
	// A repeated answer has the headers of the first.
	c := dial(t, address)
	defer c.Close()
	var first answer
	for i := range 4 {
		a := c.send(t, "GET", request("GET", credentialsPath, address, withToken(token)))
		if i == 0 {
			first = a
		}
		if len(a.header) != len(first.header) || a.header.Get("Server") != "EC2ws" || a.status != 200 {
			t.Errorf("answer %d: %v, the first: %v", i, a.header, first.header)
		}
	}
}

// TestUserData: the file's bytes, whatever they are, as they are now.
func TestUserData(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "user-data")
	log, lines := newLog(t)
	facts := testFacts("")
	facts.UserDataFile = name
	address := metadataServer(t, func(c *MetadataConfig) { c.Facts = func(string) Facts { return facts }; c.Log = log })
	none := metadataServer(t, nil)
	token := newToken(t, address)
	fetch := func(headers ...string) answer {
		return get(t, address, "/latest/user-data", append(headers, withToken(token))...)
	}
	every := make([]byte, 70000)
	for i := range every {
		every[i] = byte(i * 7)
	}
	for _, data := range []string{"#!/bin/sh\necho hello\n", "no line feed at the end", "\n", "\x1f\x8b\x08\x00gzip\x00", string(every)} {
		if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		a := fetch()
		if a.status != 200 || a.body != data || a.header.Get("Content-Type") != "application/octet-stream" || a.header.Get("Content-Length") != fmt.Sprint(len(data)) ||
			a.header.Get("Server") != "EC2ws" || a.header.Get(headerTTL) == "" {
			t.Errorf("%.20q: %d %.20q %v", data, a.status, a.body, a.header)
		}
		h := raw(t, address, "HEAD", request("HEAD", "/latest/user-data", address, withToken(token)))
		if h.status != 200 || h.body != "" || h.header.Get("Content-Length") != fmt.Sprint(len(data)) {
			t.Errorf("HEAD: %+v", h)
		}
	}
	if a := fetch("Range: bytes=7-13"); a.status != 206 || a.body != string(every[7:14]) {
		t.Errorf("a range: %d %q", a.status, a.body)
	}
	if a := fetch("If-Modified-Since: " + time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)); a.status != 304 || a.body != "" {
		t.Errorf("not modified: %+v", a)
	}
	is404 := func(what, address string) {
		t.Helper()
		a := get(t, address, "/latest/user-data", withToken(newToken(t, address)))
		if a.status != 404 || !strings.Contains(a.body, "404 - Not Found") || a.header.Get("Content-Type") != "text/html" {
			t.Errorf("%s: %+v", what, a)
		}
	}
	is404("none set", none)
	if a := get(t, none, "/latest/", withToken(newToken(t, none))); strings.Contains(a.body, "user-data") {
		t.Errorf("listed, and not there: %q", a.body)
	}
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	is404("empty", address)
	if err := os.WriteFile(name, make([]byte, maxUserData+1), 0o600); err != nil {
		t.Fatal(err)
	}
	is404("too large", address)
	os.Remove(name)
	is404("gone", address)
	if err := os.Mkdir(name, 0o700); err != nil {
		t.Fatal(err)
	}
	is404("a directory", address)
	for _, want := range []string{"cannot serve user data", "no such file", "no regular file"} {
		if !strings.Contains(lines.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, lines)
		}
	}
}

// TestMadeUp: ids are the machine's, the same each time, and settings win.
func TestMadeUp(t *testing.T) {
	t.Parallel()
	ids := func(f Facts, m machine) []string {
		f.fill(&m)
		return []string{f.instanceID(), f.imageID(), f.reservationID(), f.vpcID(), f.subnetID(), f.interfaceID(), f.securityGroupIDs()[0], f.MAC}
	}
	one, two := testMachine, testMachine
	two.id = strings.Repeat("f", 32)
	first := ids(Facts{}, one)
	renamed := one
	renamed.hostname = "renamed"
	if again := ids(Facts{}, renamed); strings.Join(again, " ") != strings.Join(first, " ") {
		t.Errorf("a new host name changes the ids: %v, %v", first, again)
	}
	seen := map[string]bool{}
	for i, id := range ids(Facts{}, two) {
		if id == first[i] && i != len(first)-1 {
			t.Errorf("two machines have the id %s", id)
		}
		digits := id[strings.IndexByte(id, '-')+1:]
		if seen[digits] {
			t.Errorf("two ids are %s", digits)
		}
		seen[digits] = true
		if strings.Contains(id, one.id) || strings.Contains(id, two.id[:17]) {
			t.Errorf("the machine's id shows: %s", id)
		}
	}
	f := Facts{InstanceID: "i-1", ImageID: "ami-2", ReservationID: "r-3", VPCID: "vpc-4", SubnetID: "subnet-5", MAC: "02:00:00:00:00:09"}
	got := ids(f, one)
	for i, want := range []string{"i-1", "ami-2", "r-3", "vpc-4", "subnet-5"} {
		if got[i] != want {
			t.Errorf("setting %s: %s", want, got[i])
		}
	}
	if got[7] != f.MAC {
		t.Errorf("MAC is %s", got[7])
	}
	if mac := ids(Facts{MAC: "02:AB:00:00:00:0C"}, one)[7]; mac != "02:ab:00:00:00:0c" {
		t.Errorf("MAC is %s", mac)
	}
	// A machine without hardware has a MAC of its own making, locally administered.
	bare := machine{id: one.id, ipv4: "10.0.0.1"}
	if mac := ids(Facts{}, bare)[7]; !regexp.MustCompile(`^02(:[0-9a-f]{2}){5}$`).MatchString(mac) {
		t.Errorf("MAC is %q", mac)
	}
}

// TestMachine: this machine is asked, and not for each request.
func TestMachine(t *testing.T) {
	t.Parallel()
	m := readMachine()
	host, _ := os.Hostname()
	if m.hostname != host {
		t.Errorf("host name is %q", m.hostname)
	}
	if m.ipv4 != "" && (block(m.ipv4, 32) == "" || strings.HasPrefix(m.ipv4, "127.")) {
		t.Errorf("address is %q", m.ipv4)
	}
	if m.ipv6 != "" && block(m.ipv6, 128) == "" {
		t.Errorf("address is %q", m.ipv6)
	}
	if again := readMachine(); again != m {
		t.Errorf("%+v, then %+v", m, again)
	}
	reads := 0
	kept := machines{read: func() machine { reads++; return testMachine }}
	for range 100 {
		kept.get()
	}
	if reads != 1 {
		t.Errorf("read %d times", reads)
	}
}

// TestListedAnswers: whatever is listed answers, also while credentials can't
// be had: cloud-init gives up everything for one failure. (It leaves
// security-credentials out.)
func TestListedAnswers(t *testing.T) {
	t.Parallel()
	full := fullFacts(t)
	unknown := full
	unknown.AccountID = ""
	bare := Facts{}
	for name, c := range map[string]struct {
		facts  Facts
		locked bool
		learn  bool // the vault is locked after credentials were served
		least  int  // paths
	}{
		"everything":          {full, false, false, 80},
		"account not told":    {unknown, false, false, 80},
		"locked":              {full, true, false, 80},
		"locked and not told": {unknown, true, false, 75},
		"locked afterwards":   {unknown, true, true, 80},
		"nothing":             {bare, true, false, 30},
	} {
		broker := newBroker()
		address := metadataServer(t, func(m *MetadataConfig) {
			m.Broker, m.Facts = broker, func(string) Facts { return c.facts }
			if name == "nothing" {
				m.machine = func() machine { return machine{} }
			}
		})
		token := newToken(t, address)
		if c.learn {
			get(t, address, credentialsPath, withToken(token))
		}
		if c.locked {
			broker.get = func(context.Context, cred.Request) (*cred.Snapshot, error) { return nil, cred.ErrLocked }
		}
		walked := 0
		var walk func(path string)
		walk = func(path string) {
			a := get(t, address, path, withToken(token))
			walked++
			if a.status != 200 {
				t.Errorf("%s: listed, but %s is %d", name, path, a.status)
			}
			if !strings.HasSuffix(path, "/") {
				return
			}
			for _, child := range strings.Split(a.body, "\n") {
				number, _, key := strings.Cut(child, "=")
				switch {
				case child == "":
					t.Errorf("%s: %s lists an empty name", name, path)
				case child == "security-credentials/":
				case key && strings.HasSuffix(path, "public-keys/"):
					walk(path + number + "/")
				default:
					walk(path + child)
				}
			}
		}
		walk("/latest/")
		if walked < c.least {
			t.Errorf("%s: the walk found %d paths", name, walked)
		}
	}
}
