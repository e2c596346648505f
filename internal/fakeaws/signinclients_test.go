package fakeaws_test

import (
	"encoding/base64"
	"os"
	"os/exec"
	"strings"
	"testing"

	"keyfob/internal/fakeaws"
	"keyfob/internal/fakeaws/fakeawstest"
)

// botoSignIn is an sso-session profile over a token cache that is about to
// end, web identity by a profile, and the calls that boto3 makes by hand.
const botoSignIn = `
import boto3, datetime, hashlib, json, os
from botocore.config import Config
home, url = os.environ['HOME'], os.environ['URL']
cache = home + '/.aws/sso/cache'
os.makedirs(cache)
z = lambda t: t.strftime('%Y-%m-%dT%H:%M:%SZ')
now = datetime.datetime.now(datetime.timezone.utc)
name = cache + '/' + hashlib.sha1(b'work').hexdigest() + '.json'
with open(name, 'w') as f:
    json.dump({'startUrl': os.environ['START'], 'region': 'eu-west-1', 'accessToken': os.environ['ACCESS'], 'expiresAt': z(now + datetime.timedelta(minutes=5)),
      'clientId': os.environ['CLIENT'], 'clientSecret': os.environ['SECRET'], 'registrationExpiresAt': z(now + datetime.timedelta(days=30)), 'refreshToken': os.environ['REFRESH']}, f)
with open(home + '/token', 'w') as f:
    f.write(os.environ['IDTOKEN'])
with open(home + '/.aws/config', 'w') as f:
    f.write('''[sso-session work]
sso_start_url = %s
sso_region = eu-west-1
sso_registration_scopes = sso:account:access
[profile sso]
sso_session = work
sso_account_id = 111122223333
sso_role_name = Admin
region = eu-west-1
[profile web]
role_arn = arn:aws:iam::444455556666:role/web
web_identity_token_file = %s/token
role_session_name = boto
region = eu-west-1
''' % (os.environ['START'], home))
print(boto3.Session(profile_name='sso').client('sts').get_caller_identity()['Arn'].split('/')[-1])
print(json.load(open(name))['refreshToken'] != os.environ['REFRESH'])
s = boto3.Session(profile_name='sso').client('sso')
token = json.load(open(name))['accessToken']
print([a['accountId'] for p in s.get_paginator('list_accounts').paginate(accessToken=token) for a in p['accountList']])
try:
    s.get_role_credentials(accessToken=token, accountId='444455556666', roleName='Admin')
except Exception as e:
    print(e.response['Error']['Code'], e.response['Error']['Message'], e.response['ResponseMetadata']['HTTPStatusCode'])
print(boto3.Session(profile_name='web').client('sts').get_caller_identity()['Arn'])
sts = boto3.client('sts', region_name='eu-west-1')
r = sts.assume_role_with_saml(RoleArn='arn:aws:iam::444455556666:role/web', PrincipalArn='arn:aws:iam::444455556666:saml-provider/idp', SAMLAssertion=os.environ['SAML'])
print(r['AssumedRoleUser']['Arn'], r['Subject'], r['SubjectType'])
keys = boto3.Session(os.environ['ID'], os.environ['KEY'], region_name='eu-west-1')
r = keys.client('sts').get_federation_token(Name='carol', Policy='{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}')
print(r['FederatedUser']['Arn'])
f = keys.client('accessanalyzer').validate_policy(policyType='IDENTITY_POLICY', policyDocument='{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3 get","Resource":"*"}]}')
print([x['issueCode'] for x in f['findings']])
o = boto3.client('sso-oidc', region_name='eu-west-1', config=Config(retries={'max_attempts': 0}))
try:
    o.create_token(clientId=os.environ['CLIENT'], clientSecret=os.environ['SECRET'], grantType='refresh_token', refreshToken=os.environ['REFRESH'])
except o.exceptions.InvalidGrantException as e:
    print(e.response['error'], '-', e.response['error_description'])
`

func TestBoto3SignsIn(t *testing.T) {
	if testing.Short() {
		t.Skip("runs Python")
	}
	python, err := exec.LookPath("python3")
	if err != nil || exec.Command(python, "-c", "import boto3").Run() != nil {
		t.Skip("python3 with boto3 is not installed")
	}
	s, base := fakeawstest.Start(t)
	id, secret := s.AddUser(fakeaws.UserSpec{})
	start := s.AddSSO(twoAccounts())
	s.AddRole(fakeaws.RoleSpec{ARN: webRole, Trust: []fakeaws.Trust{{Federated: []string{"*"}}}})
	s.AddOIDC(fakeaws.OIDCSpec{})
	s.AddSAML(fakeaws.SAMLSpec{Roles: []string{webRole}})
	tok, err1 := s.NewSSOTokens(start)
	idToken, err2 := s.IDToken(base, "idp", "")
	assertion, err3 := s.SAMLResponse("idp", nil)
	if err1 != nil || err2 != nil || err3 != nil {
		t.Fatal(err1, err2, err3)
	}
	c := exec.CommandContext(t.Context(), python, "-c", botoSignIn)
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "PYENV_ROOT=" + os.Getenv("PYENV_ROOT"), "AWS_EC2_METADATA_DISABLED=true",
		"URL=" + base, "AWS_ENDPOINT_URL_SSO=" + base, "AWS_ENDPOINT_URL_SSO_OIDC=" + base, "AWS_ENDPOINT_URL_STS=" + base, "AWS_ENDPOINT_URL_ACCESSANALYZER=" + base,
		"START=" + start, "ACCESS=" + tok.AccessToken, "REFRESH=" + tok.RefreshToken, "CLIENT=" + tok.ClientID, "SECRET=" + tok.ClientSecret,
		"IDTOKEN=" + idToken, "SAML=" + assertion, "ID=" + id, "KEY=" + secret}
	out, err := c.CombinedOutput()
	const want = `alice@example.com
True
['111122223333', '444455556666', '777788889999']
ForbiddenException No access 403
arn:aws:sts::444455556666:assumed-role/web/boto
arn:aws:sts::444455556666:assumed-role/web/alice@example.com alice@example.com persistent
arn:aws:sts::111122223333:federated-user/carol
['INVALID_ACTION']
invalid_grant - Invalid refresh token provided
`
	if err != nil || string(out) != want {
		t.Errorf("%v\ngot\n%s\nwant\n%s", err, out, want)
	}
	if s.Count("reused:refresh_token") != 1 {
		t.Errorf("%d refresh tokens were used again", s.Count("reused:refresh_token"))
	}
}

// An independent reader of XML agrees with the signature: Python's canonical
// form of the assertion has the digest, and openssl verifies the value.
const xmlCheck = `
import base64, hashlib, os, re, subprocess, sys, xml.etree.ElementTree as E
ds = '{http://www.w3.org/2000/09/xmldsig#}'
doc = E.fromstring(base64.b64decode(os.environ['SAML']))
a = doc.find('{urn:oasis:names:tc:SAML:2.0:assertion}Assertion')
sig = a.find(ds + 'Signature')
info, value = sig.find(ds + 'SignedInfo'), sig.find(ds + 'SignatureValue').text
E.register_namespace('saml', 'urn:oasis:names:tc:SAML:2.0:assertion')
E.register_namespace('ds', 'http://www.w3.org/2000/09/xmldsig#')
c14n = lambda e: E.canonicalize(E.tostring(e, encoding='unicode')).encode()
canonical = c14n(info)
a.remove(sig)
print(base64.b64encode(hashlib.sha256(c14n(a)).digest()).decode() == info.find('.//' + ds + 'DigestValue').text)
for name, b in (('info', canonical), ('sig', base64.b64decode(value))):
    open(os.environ['DIR'] + '/' + name, 'wb').write(b)
m = E.fromstring(os.environ['METADATA'])
n = int.from_bytes(base64.b64decode(m.find('.//' + ds + 'Modulus').text), 'big')
conf = 'asn1=SEQUENCE:k\n[k]\na=SEQUENCE:alg\nb=BITWRAP,SEQUENCE:r\n[alg]\no=OID:rsaEncryption\nn=NULL\n[r]\nn=INTEGER:0x%x\ne=INTEGER:65537\n' % n
open(os.environ['DIR'] + '/conf', 'w').write(conf)
os.chdir(os.environ['DIR'])
subprocess.run(['openssl', 'asn1parse', '-genconf', 'conf', '-noout', '-out', 'key.der'], check=True)
subprocess.run(['openssl', 'dgst', '-sha256', '-verify', 'key.der', '-keyform', 'DER', '-signature', 'sig', 'info'], check=True)
`

func TestSAMLSignatureElsewhere(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed")
	}
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	s, base := fakeawstest.Start(t)
	s.AddSAML(fakeaws.SAMLSpec{Roles: []string{webRole}, Reversed: true, SessionSeconds: 60, Tags: map[string]string{"a": "x & <y> \"z\" > ü"}})
	assertion, err := s.SAMLResponse("idp", nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := base64.StdEncoding.DecodeString(assertion); !strings.Contains(string(b), "ü") {
		t.Fatal("the tag is not there")
	}
	c := exec.CommandContext(t.Context(), python, "-c", xmlCheck)
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "PYENV_ROOT=" + os.Getenv("PYENV_ROOT"), "SAML=" + assertion, "DIR=" + t.TempDir(),
		"METADATA=" + fakeawstest.NewBrowser(t, false).Open(base+"/saml/metadata/idp").Body}
	out, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "True\n") || !strings.Contains(string(out), "Verified OK\n") {
		t.Errorf("%v\n%s", err, out)
	}
}
