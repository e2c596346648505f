package fakeaws_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"keyfob/internal/fakeaws"
)

const (
	alice   = "arn:aws:iam::111122223333:user/alice"
	aliceTo = "User: " + alice + " is not authorized to perform: "
)

func TestIdentityAndIDs(t *testing.T) {
	s := fakeaws.New()
	id, secret := s.AddUser(fakeaws.UserSpec{})
	out, err := as(t, s, id, secret, "").sts().GetCallerIdentity(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if *out.Arn != alice || *out.Account != "111122223333" || !regexp.MustCompile(`^AIDA[A-Z2-7]{17}$`).MatchString(*out.UserId) {
		t.Errorf("got %s %s %s", *out.Arn, *out.Account, *out.UserId)
	}
	if !regexp.MustCompile(`^AKIA[A-Z2-7]{16}$`).MatchString(id) || len(secret) != 40 {
		t.Errorf("the pair does not look real: %s, secret of %d", id, len(secret))
	}
	role := s.AddRole(fakeaws.RoleSpec{ARN: "arn:aws:iam::444455556666:role/team/x/deploy"})
	in, err := as(t, s, id, secret, "").assume(role, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := *in.AssumedRoleUser.Arn; got != "arn:aws:sts::444455556666:assumed-role/deploy/sess" {
		t.Errorf("assumed %s", got)
	}
	if !regexp.MustCompile(`^ASIA[A-Z2-7]{16}$`).MatchString(*in.Credentials.AccessKeyId) ||
		!regexp.MustCompile(`^AROA[A-Z2-7]{17}:sess$`).MatchString(*in.AssumedRoleUser.AssumedRoleId) {
		t.Errorf("ids: %s %s", *in.Credentials.AccessKeyId, *in.AssumedRoleUser.AssumedRoleId)
	}
	near(t, "expiration", *in.Credentials.Expiration, time.Now().Add(time.Hour))
	got, err := as(t, s, id, secret, "").with(in.Credentials).who()
	if err != nil || got != *in.AssumedRoleUser.Arn {
		t.Errorf("the session is %s, %v", got, err)
	}
	info, err := as(t, s, id, secret, "").sts().GetAccessKeyInfo(context.Background(), &sts.GetAccessKeyInfoInput{AccessKeyId: in.Credentials.AccessKeyId})
	if err != nil || *info.Account != "444455556666" {
		t.Errorf("account of the session's key: %v, %v", info, err)
	}
}

func TestTrustAndPermissions(t *testing.T) {
	const role = "arn:aws:iam::444455556666:role/r"
	denied := aliceTo + "sts:AssumeRole on resource: " + role
	in := func(f func(*sts.AssumeRoleInput)) func(*sts.AssumeRoleInput) { return f }
	ext := in(func(i *sts.AssumeRoleInput) { i.ExternalId = aws.String("x-7") })
	tags := in(func(i *sts.AssumeRoleInput) {
		i.Tags = []types.Tag{{Key: aws.String("team"), Value: aws.String("core")}}
	})
	src := in(func(i *sts.AssumeRoleInput) { i.SourceIdentity = aws.String("alice") })
	for _, c := range []struct {
		name  string
		user  fakeaws.UserSpec
		role  string // default the other account's
		trust []fakeaws.Trust
		in    func(*sts.AssumeRoleInput)
		want  string // message, "" for yes
	}{
		{name: "everybody"},
		{name: "nobody", trust: []fakeaws.Trust{}, want: denied},
		{name: "by account", trust: []fakeaws.Trust{{Principals: []string{"111122223333"}}}},
		{name: "by root", trust: []fakeaws.Trust{{Principals: []string{"arn:aws:iam::111122223333:root"}}}},
		{name: "by arn", trust: []fakeaws.Trust{{Principals: []string{alice}}}},
		{name: "somebody else", trust: []fakeaws.Trust{{Principals: []string{alice + "x", "999999999999"}}}, want: denied},
		{name: "second statement", trust: []fakeaws.Trust{{Principals: []string{"999999999999"}}, {}}},
		{name: "external id", trust: []fakeaws.Trust{{ExternalIDs: []string{"x-7"}}}, in: ext},
		{name: "no external id", trust: []fakeaws.Trust{{ExternalIDs: []string{"x-7"}}}, want: denied},
		{name: "wrong external id", trust: []fakeaws.Trust{{ExternalIDs: []string{"x-8"}}}, in: ext, want: denied},
		{name: "session name", trust: []fakeaws.Trust{{SessionNames: []string{"s*s"}}}},
		{name: "wrong session name", trust: []fakeaws.Trust{{SessionNames: []string{"alice"}}}, want: denied},
		{name: "no mfa", trust: []fakeaws.Trust{{MFA: true}}, want: denied},
		{name: "may assume it", user: fakeaws.UserSpec{MayAssume: []string{"arn:aws:iam::*:role/r"}}},
		{name: "may assume others", user: fakeaws.UserSpec{MayAssume: []string{"arn:aws:iam::*:role/q"}}, want: denied},
		{name: "may assume none", user: fakeaws.UserSpec{MayAssume: []string{}}, want: denied},
		{name: "may assume none, other account, by arn", user: fakeaws.UserSpec{MayAssume: []string{}}, trust: []fakeaws.Trust{{Principals: []string{alice}}}, want: denied},
		{name: "may assume none, own account, by arn", user: fakeaws.UserSpec{MayAssume: []string{}}, role: "arn:aws:iam::111122223333:role/r", trust: []fakeaws.Trust{{Principals: []string{alice}}}},
		{name: "denied", user: fakeaws.UserSpec{Deny: []string{"sts:Assume*"}}, want: aliceTo + "sts:AssumeRole on resource: * with an explicit deny in an identity-based policy"},
		{name: "tags", in: tags},
		{name: "tags not allowed", in: tags, trust: []fakeaws.Trust{{NoTags: true}}, want: aliceTo + "sts:TagSession on resource: " + role},
		{name: "tags denied to the user", in: tags, user: fakeaws.UserSpec{Deny: []string{"sts:TagSession"}}, want: aliceTo + "sts:TagSession on resource: " + role},
		{name: "tag keys", in: tags, trust: []fakeaws.Trust{{TagKeys: []string{"team"}}}},
		{name: "other tag keys", in: tags, trust: []fakeaws.Trust{{TagKeys: []string{"cost"}}}, want: denied},
		{name: "tag value", in: tags, trust: []fakeaws.Trust{{Tags: map[string]string{"team": "co*"}}}},
		{name: "tag missing", trust: []fakeaws.Trust{{Tags: map[string]string{"team": "co*"}}}, want: denied},
		{name: "source identity", in: src, trust: []fakeaws.Trust{{SourceIdentities: []string{"alice"}}}},
		{name: "no source identity", trust: []fakeaws.Trust{{SourceIdentities: []string{"alice"}}}, want: denied},
		{name: "source identity not allowed", in: src, trust: []fakeaws.Trust{{NoSourceIdentity: true}}, want: aliceTo + "sts:SetSourceIdentity on resource: " + role},
		{name: "root", user: fakeaws.UserSpec{Root: true}, want: "Roles may not be assumed by root accounts."},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := fakeaws.New()
			id, secret := s.AddUser(c.user)
			if c.role == "" {
				c.role = role
			}
			s.AddRole(fakeaws.RoleSpec{ARN: c.role, Trust: c.trust})
			out, err := as(t, s, id, secret, "").assume(c.role, c.in)
			if c.want != "" {
				refused(t, err, 403, "AccessDenied", c.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.in != nil && strings.HasPrefix(c.name, "source") && aws.ToString(out.SourceIdentity) != "alice" {
				t.Error("the answer has no SourceIdentity")
			}
		})
	}
	t.Run("no such role", func(t *testing.T) {
		s := fakeaws.New()
		id, secret := s.AddUser(fakeaws.UserSpec{})
		_, err := as(t, s, id, secret, "").assume(role, nil)
		refused(t, err, 403, "AccessDenied", denied)
	})
}

func TestAssumeRoleValidation(t *testing.T) {
	s := fakeaws.New()
	id, secret := s.AddUser(fakeaws.UserSpec{})
	arn := s.AddRole(fakeaws.RoleSpec{MaxSessionDuration: 7200})
	tag := func(k, v string) types.Tag { return types.Tag{Key: &k, Value: &v} }
	pattern := "1 validation error detected: Value 'a b' at '%s' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]*"
	for _, c := range []struct {
		name       string
		in         func(*sts.AssumeRoleInput)
		code, want string
	}{
		{"name pattern", func(i *sts.AssumeRoleInput) { i.RoleSessionName = aws.String("a b") }, "", fmt.Sprintf(pattern, "roleSessionName")},
		{"name short", func(i *sts.AssumeRoleInput) { i.RoleSessionName = aws.String("a") }, "", "1 validation error detected: Value 'a' at 'roleSessionName' failed to satisfy constraint: Member must have length greater than or equal to 2"},
		{"name long", func(i *sts.AssumeRoleInput) { i.RoleSessionName = aws.String(strings.Repeat("a", 65)) }, "", "1 validation error detected: Value '" + strings.Repeat("a", 65) + "' at 'roleSessionName' failed to satisfy constraint: Member must have length less than or equal to 64"},
		{"two wrong", func(i *sts.AssumeRoleInput) { i.RoleSessionName, i.DurationSeconds = aws.String("a"), aws.Int32(1) }, "", "2 validation errors detected: Value 'a' at 'roleSessionName' failed to satisfy constraint: Member must have length greater than or equal to 2; Value '1' at 'durationSeconds' failed to satisfy constraint: Member must have value greater than or equal to 900"},
		{"no role", func(i *sts.AssumeRoleInput) { i.RoleArn = aws.String("arn:aws:iam::111122223333:user/alice") }, "", "arn:aws:iam::111122223333:user/alice is invalid"},
		{"duration long", func(i *sts.AssumeRoleInput) { i.DurationSeconds = aws.Int32(43201) }, "", "1 validation error detected: Value '43201' at 'durationSeconds' failed to satisfy constraint: Member must have value less than or equal to 43200"},
		{"duration over the role's", func(i *sts.AssumeRoleInput) { i.DurationSeconds = aws.Int32(7201) }, "", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."},
		{"code", func(i *sts.AssumeRoleInput) {
			i.SerialNumber, i.TokenCode = aws.String(alice), aws.String("12345")
		}, "", "1 validation error detected: Value '12345' at 'tokenCode' failed to satisfy constraint: Member must have length greater than or equal to 6"},
		{"policy", func(i *sts.AssumeRoleInput) { i.Policy = aws.String("{") }, "MalformedPolicyDocument", "Syntax errors in policy."},
		{"tag twice", func(i *sts.AssumeRoleInput) { i.Tags = []types.Tag{tag("a", "1"), tag("A", "2")} }, "InvalidParameterValue", "Duplicate tag keys found. Please note that Tag keys are case insensitive."},
		{"transitive", func(i *sts.AssumeRoleInput) { i.TransitiveTagKeys = []string{"a"} }, "InvalidParameterValue", "The specified transitive tag key must be included in the requested tags."},
		{"packed", func(i *sts.AssumeRoleInput) {
			for n := range 9 {
				i.Tags = append(i.Tags, tag(fmt.Sprintf("T%d", n), strings.Repeat("a", 250)))
			}
		}, "PackedPolicyTooLarge", "Packed size of session tags consumes 499% of allotted space."},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.code == "" {
				c.code = "ValidationError"
			}
			_, err := as(t, s, id, secret, "").assume(arn, c.in)
			refused(t, err, 400, c.code, c.want)
		})
	}
	if _, err := as(t, s, id, secret, "").assume(arn, func(i *sts.AssumeRoleInput) { i.DurationSeconds = aws.Int32(7200) }); err != nil {
		t.Errorf("the role's own limit is refused: %v", err)
	}
}

func TestChaining(t *testing.T) {
	s := fakeaws.New()
	id, secret := s.AddUser(fakeaws.UserSpec{})
	first := s.AddRole(fakeaws.RoleSpec{Name: "first", MaxSessionDuration: 43200})
	second := s.AddRole(fakeaws.RoleSpec{Name: "second", MaxSessionDuration: 43200, Trust: []fakeaws.Trust{{Principals: []string{first}}}})
	third := s.AddRole(fakeaws.RoleSpec{Name: "third", Trust: []fakeaws.Trust{{Tags: map[string]string{"team": "core"}, SourceIdentities: []string{"al*"}}}})
	long := func(i *sts.AssumeRoleInput) { i.DurationSeconds = aws.Int32(43200) }
	p := as(t, s, id, secret, "")
	_, err := p.assume(second, nil)
	refused(t, err, 403, "AccessDenied", aliceTo+"sts:AssumeRole on resource: "+second)

	one := p.mustAssume(first, func(i *sts.AssumeRoleInput) {
		long(i)
		i.Tags = []types.Tag{{Key: aws.String("team"), Value: aws.String("core")}, {Key: aws.String("own"), Value: aws.String("1")}}
		i.TransitiveTagKeys = []string{"team"}
		i.SourceIdentity = aws.String("alice")
	})
	chained := "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining."
	_, err = one.assume(second, long)
	refused(t, err, 400, "ValidationError", chained)
	two := one.mustAssume(second, nil)
	if _, err = two.assume(third, nil); err != nil { // tag and source identity came along
		t.Errorf("what is transitive got lost: %v", err)
	}
	_, err = two.assume(third, func(i *sts.AssumeRoleInput) {
		i.Tags = []types.Tag{{Key: aws.String("Team"), Value: aws.String("x")}}
	})
	refused(t, err, 400, "InvalidParameterValue", "One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key from the calling session.")
	_, err = two.assume(third, func(i *sts.AssumeRoleInput) { i.SourceIdentity = aws.String("albert") })
	refused(t, err, 403, "AccessDenied", "User: arn:aws:sts::111122223333:assumed-role/second/sess is not authorized to perform: sts:SetSourceIdentity on resource: "+third)

	// A session of GetSessionToken counts as chaining too.
	out, err := p.sts().GetSessionToken(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.with(out.Credentials).assume(first, long)
	refused(t, err, 400, "ValidationError", chained)
	p.with(out.Credentials).mustAssume(first, nil)
}

func TestSessionPolicy(t *testing.T) {
	s := fakeaws.New()
	id, secret := s.AddUser(fakeaws.UserSpec{})
	first := s.AddRole(fakeaws.RoleSpec{Name: "first"})
	second := s.AddRole(fakeaws.RoleSpec{Name: "second"})
	p := as(t, s, id, secret, "")
	doc := func(d string) func(*sts.AssumeRoleInput) {
		return func(i *sts.AssumeRoleInput) { i.Policy = &d }
	}
	denied := "User: arn:aws:sts::111122223333:assumed-role/first/sess is not authorized to perform: sts:AssumeRole on resource: " + second
	_, err := p.mustAssume(first, doc(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*"}}`)).assume(second, nil)
	refused(t, err, 403, "AccessDenied", denied)
	_, err = p.mustAssume(first, doc(`{"Statement":[{"Effect":"Allow","Action":["*"],"Resource":"*"},{"Effect":"Deny","Action":"STS:assumerole","Resource":"*:role/sec*"}]}`)).assume(second, nil)
	refused(t, err, 403, "AccessDenied", denied)
	p.mustAssume(first, doc(`{"Statement":[{"Effect":"Allow","Action":"sts:Assume*","Resource":["arn:aws:iam::111122223333:role/second"]}]}`)).mustAssume(second, nil)
}

func TestSessionToken(t *testing.T) {
	s := fakeaws.New()
	id, secret := s.AddUser(fakeaws.UserSpec{})
	p := as(t, s, id, secret, "")
	get := func(p person, seconds int32) (*sts.GetSessionTokenOutput, error) {
		in := &sts.GetSessionTokenInput{}
		if seconds != 0 {
			in.DurationSeconds = &seconds
		}
		return p.sts().GetSessionToken(context.Background(), in)
	}
	out, err := get(p, 0)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "default life", *out.Credentials.Expiration, time.Now().Add(12*time.Hour))
	if arn, err := p.with(out.Credentials).who(); err != nil || arn != alice {
		t.Errorf("the session is %s, %v", arn, err)
	}
	_, err = get(p.with(out.Credentials), 0)
	refused(t, err, 403, "AccessDenied", "Cannot call GetSessionToken with session credentials")
	_, err = get(p, 899)
	refused(t, err, 400, "ValidationError", "1 validation error detected: Value '899' at 'durationSeconds' failed to satisfy constraint: Member must have value greater than or equal to 900")
	_, err = get(p, 129601)
	refused(t, err, 400, "ValidationError", "1 validation error detected: Value '129601' at 'durationSeconds' failed to satisfy constraint: Member must have value less than or equal to 129600")
	if out, err = get(p, 129600); err != nil {
		t.Fatal(err)
	}
	near(t, "longest life", *out.Credentials.Expiration, time.Now().Add(36*time.Hour))
	rid, rsecret := s.AddUser(fakeaws.UserSpec{Root: true})
	if out, err = get(as(t, s, rid, rsecret, ""), 43200); err != nil {
		t.Fatal(err)
	}
	near(t, "root's life", *out.Credentials.Expiration, time.Now().Add(time.Hour))
}

func TestMFA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fakeaws.New()
		id, secret := s.AddUser(fakeaws.UserSpec{MFA: []fakeaws.MFASpec{{Seed: "JBSWY3DPEHPK3PXP"}}})
		s.AddUser(fakeaws.UserSpec{Name: "bob", MFA: []fakeaws.MFASpec{{}}})
		role := s.AddRole(fakeaws.RoleSpec{Trust: []fakeaws.Trust{{MFA: true, MFAMaxAge: 1800}}})
		serial := "arn:aws:iam::111122223333:mfa/alice"
		p := as(t, s, id, secret, "")
		session := func(serial, code string) (*types.Credentials, error) {
			in := &sts.GetSessionTokenInput{}
			if serial != "" {
				in.SerialNumber = &serial
			}
			if code != "" {
				in.TokenCode = &code
			}
			out, err := p.sts().GetSessionToken(context.Background(), in)
			if err != nil {
				return nil, err
			}
			return out.Credentials, nil
		}
		const wrong = "MultiFactorAuthentication failed with invalid MFA one time pass code."
		const unknown = "MultiFactorAuthentication failed, unable to validate MFA code.  Please verify your MFA serial number is valid and associated with this user."
		code, err := fakeaws.Code("JBSWY3DPEHPK3PXP", time.Now())
		if err != nil || code != s.MFACode(serial) {
			t.Fatalf("code %s, %v; the server says %s", code, err, s.MFACode(serial))
		}
		bad := "000000"
		if bad == code {
			bad = "000001"
		}
		_, err = session(serial, bad)
		refused(t, err, 403, "AccessDenied", wrong)
		_, err = session(serial+"x", code)
		refused(t, err, 403, "AccessDenied", unknown)
		_, err = session("arn:aws:iam::111122223333:mfa/bob", s.MFACode("arn:aws:iam::111122223333:mfa/bob"))
		refused(t, err, 403, "AccessDenied", unknown)
		_, err = session(serial, "")
		refused(t, err, 403, "AccessDenied", "MultiFactorAuthentication failed, must provide both MFA serial number and one time pass code.")

		c, err := session(serial, code)
		if err != nil {
			t.Fatal(err)
		}
		_, err = session(serial, code)
		refused(t, err, 403, "AccessDenied", wrong) // once only
		if _, err = session(serial, s.MFACode(serial)); err != nil {
			t.Errorf("the neighbour's code: %v", err)
		}
		p.with(c).mustAssume(role, nil) // the session carries MFA
		_, err = p.assume(role, nil)    // the keys do not
		refused(t, err, 403, "AccessDenied", aliceTo+"sts:AssumeRole on resource: "+role)
		time.Sleep(time.Minute)
		direct := func(code string) error {
			_, err := p.assume(role, func(i *sts.AssumeRoleInput) { i.SerialNumber, i.TokenCode = &serial, &code })
			return err
		}
		now := s.MFACode(serial)
		if err := direct(now); err != nil {
			t.Errorf("AssumeRole with a code: %v", err)
		}
		refused(t, direct(now), 403, "AccessDenied", wrong)
		old, _ := fakeaws.Code("JBSWY3DPEHPK3PXP", time.Now().Add(-61*time.Second))
		refused(t, direct(old), 403, "AccessDenied", wrong)
		time.Sleep(30 * time.Minute)
		_, err = p.with(c).assume(role, nil) // MFA too long ago
		refused(t, err, 403, "AccessDenied", aliceTo+"sts:AssumeRole on resource: "+role)
	})
}

// The values of RFC 6238, appendix B (SHA-1), cut to six digits.
func TestCodeIsRFC6238(t *testing.T) {
	seed := "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ" // "12345678901234567890"
	for at, want := range map[int64]string{59: "287082", 1111111109: "081804", 1234567890: "005924", 20000000000: "353130"} {
		if got, err := fakeaws.Code(seed, time.Unix(at, 0)); got != want || err != nil {
			t.Errorf("at %d: %s, %v, want %s", at, got, err, want)
		}
	}
}

func TestExpiryAndRevocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fakeaws.New()
		id, secret := s.AddUser(fakeaws.UserSpec{})
		role := s.AddRole(fakeaws.RoleSpec{})
		p := as(t, s, id, secret, "")
		s.SetLifetime(20 * time.Second)
		out, err := p.assume(role, func(i *sts.AssumeRoleInput) { i.DurationSeconds = aws.Int32(3600) })
		if err != nil {
			t.Fatal(err)
		}
		near(t, "forced expiration", *out.Credentials.Expiration, time.Now().Add(20*time.Second))
		time.Sleep(19 * time.Second)
		if _, err := p.with(out.Credentials).who(); err != nil {
			t.Errorf("a second before its end: %v", err)
		}
		time.Sleep(time.Second)
		const expired = "The security token included in the request is expired"
		_, err = p.with(out.Credentials).who()
		refused(t, err, 403, "ExpiredToken", expired)

		s.SetLifetime(0)
		for how, want := range map[fakeaws.Revocation][2]string{
			fakeaws.RevokedInvalid: {"InvalidClientTokenId", "The security token included in the request is invalid."},
			fakeaws.RevokedExpired: {"ExpiredToken", expired},
			fakeaws.RevokedDenied:  {"AccessDenied", "User: arn:aws:sts::111122223333:assumed-role/role/sess is not authorized to perform: sts:AssumeRole on resource: * with an explicit deny in an identity-based policy"},
		} {
			out, err := p.assume(role, nil)
			if err != nil {
				t.Fatal(err)
			}
			if !s.Revoke(*out.Credentials.AccessKeyId, how) {
				t.Fatal("no such session")
			}
			_, err = p.with(out.Credentials).assume(role, nil)
			refused(t, err, 403, want[0], want[1])
			if _, err := p.with(out.Credentials).who(); (err == nil) != (how == fakeaws.RevokedDenied) {
				t.Errorf("%s: GetCallerIdentity says %v", how, err)
			}
		}
	})
}

func TestSessionTokensBelongToTheirKey(t *testing.T) {
	s := fakeaws.New()
	id, secret := s.AddUser(fakeaws.UserSpec{MFA: []fakeaws.MFASpec{{}}})
	role := s.AddRole(fakeaws.RoleSpec{})
	p := as(t, s, id, secret, "")
	one, err := p.sts().GetSessionToken(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	two, err := p.assume(role, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"", "x", *two.Credentials.SessionToken} {
		_, err := as(t, s, *one.Credentials.AccessKeyId, *one.Credentials.SecretAccessKey, token).who()
		refused(t, err, 403, "InvalidClientTokenId", "The security token included in the request is invalid.")
	}
	// A session gives no MFA code: the device answers for the keys alone.
	serial := "arn:aws:iam::111122223333:mfa/alice"
	code := s.MFACode(serial)
	_, err = p.with(one.Credentials).assume(role, func(i *sts.AssumeRoleInput) { i.SerialNumber, i.TokenCode = &serial, &code })
	refused(t, err, 403, "AccessDenied", "MultiFactorAuthentication failed, unable to validate MFA code.  Please verify your MFA serial number is valid and associated with this user.")
}
