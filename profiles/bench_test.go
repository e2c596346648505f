package profiles

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// bigConfig is a config file of 10,000 lines and 1,000 profiles.
func bigConfig() string {
	var b strings.Builder
	b.WriteString("# ours\n#\n# do not edit\n\n[profile user]\naws_access_key_id = A\naws_secret_access_key = B\n[sso-session s]\nsso_region = r\nsso_start_url = u\n")
	for i := range 999 {
		fmt.Fprintf(&b, "# team %d\n[profile team-%d]\nregion = eu-west-1\noutput = json\nrole_arn = arn:aws:iam::%012d:role/developer\nsource_profile = user\nmfa_serial = %s\ns3 =\n  addressing_style = path\n\n", i, i, i, testMFA)
	}
	return b.String()
}

func bigSet(t testing.TB) (*Set, Input) {
	_, dir := world{config: bigConfig()}.load(t)
	in := Input{ConfigFile: dir + "/config", CredentialsFile: dir + "/credentials", KeyfobFile: dir + "/profiles", Env: map[string]string{"AWS_REGION": "eu-west-1"}}
	return Load(in), in
}

func TestManyProfiles(t *testing.T) {
	s, in := bigSet(t)
	if n := len(s.Names()); n != 1000 {
		t.Fatalf("%d profiles", n)
	}
	p := mustResolve(t, s, byFlag("team-998"))
	if p.Err != nil || p.Chain[2].Origin.Line != 9995 {
		t.Fatalf("%v, line %d", p.Err, p.Chain[2].Origin.Line)
	}
	// far above what a slow machine needs, far below what people notice
	start := time.Now()
	mustResolve(t, Load(in), byFlag("team-500"))
	if d := time.Since(start); d > 500*time.Millisecond {
		t.Errorf("Load and Resolve took %v", d)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	kept := Load(in)
	runtime.GC()
	runtime.ReadMemStats(&after)
	info, err := os.Stat(in.ConfigFile)
	if err != nil {
		t.Fatal(err)
	}
	used := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("a file of %d KiB is kept in %d KiB", info.Size()>>10, used>>10)
	if used > 2<<20 {
		t.Errorf("1,000 profiles are kept in %d bytes", used)
	}
	runtime.KeepAlive(kept)
	if n := len(s.List()); n != 1000 {
		t.Errorf("%d listed", n)
	}
}

func TestConcurrentUse(t *testing.T) {
	s, _ := bigSet(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 50 {
				n := s
				if j%2 == 0 {
					n = s.WithVault(map[string]VaultKey{"user": {}})
				}
				if p, err := n.Resolve(byFlag(fmt.Sprintf("team-%d", i*50+j))); err != nil || p.Err != nil {
					t.Errorf("%v %v", err, p.Err)
				}
				_ = n.Names()
				_ = n.Has("user")
			}
		})
	}
	wg.Wait()
}

func BenchmarkLoad(b *testing.B) {
	_, in := bigSet(b)
	b.ReportAllocs()
	for b.Loop() {
		Load(in)
	}
}

func BenchmarkLoadAndResolve(b *testing.B) {
	_, in := bigSet(b)
	b.ReportAllocs()
	for b.Loop() {
		mustResolve(b, Load(in), byFlag("team-500"))
	}
}

func BenchmarkResolve(b *testing.B) {
	s, _ := bigSet(b)
	q := byFlag("team-500")
	b.ReportAllocs()
	for b.Loop() {
		mustResolve(b, s, q)
	}
}

func BenchmarkList(b *testing.B) {
	s, _ := bigSet(b)
	b.ReportAllocs()
	for b.Loop() {
		s.List()
	}
}
