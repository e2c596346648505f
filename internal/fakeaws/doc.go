// Package fakeaws is a fake AWS for tests and the demo: it speaks STS's and
// the needed part of IAM's query protocol, and S3's ListBuckets, closely
// enough that the AWS command line, boto3 and the Go SDK can't tell. It
// verifies SigV4 signatures (header and presigned form), keeps users, roles,
// access keys, MFA devices and sessions in memory, judges trust and identity
// permissions in a simple form, and answers errors in AWS's own words and
// shapes. It is never packaged.
//
// In a test:
//
//	aws := fakeaws.New()
//	id, secret := aws.AddUser(fakeaws.UserSpec{Name: "alice"})
//	role := aws.AddRole(fakeaws.RoleSpec{Name: "deploy", Account: "222233334444"})
//	url, stop, err := aws.Start(ctx) // or package fakeawstest
//
// and AWS_ENDPOINT_URL=url for whatever is tested. Any Host is accepted.
// Faults, latency, the clock, the lifetime of credentials and outages can be
// set at any time, by method or over the admin port (AdminHandler); what was
// asked can be read from Calls and Counters.
//
// As a program (cmd/fakeaws) it prints one JSON line with its URLs and keys
// when it is ready. A state file holds a World:
//
//	{"users":[{"name":"alice","mfa":[{"seed":"JBSWY3DPEHPK3PXP"}],"may_assume":["arn:aws:iam::*:role/deploy"]}],
//	 "roles":[{"arn":"arn:aws:iam::444455556666:role/deploy","trust":[{"principals":["111122223333"],"mfa":true}]}],
//	 "settings":{"lifetime_seconds":60}}
//
// and the admin port turns things while it runs:
//
//	curl -X PUT $ADMIN/settings -d '{"outage":"refused"}'
//	curl -X PUT $ADMIN/faults -d '[{"kind":"throttle","action":"AssumeRole","count":3}]'
//
// What is simpler than AWS: conditions of session policies are not evaluated
// (such a statement never allows), PackedPolicySize is an estimate, managed
// session policies (PolicyArns) are checked for form and not applied, and
// changes take effect at once unless SetKeyDelay says otherwise.
//
// Services are rooms: a room is a value of type service that says how its
// requests are recognised, how its errors look, and which actions it has.
// A new service is a new file with one such value, listed in rooms.
package fakeaws
