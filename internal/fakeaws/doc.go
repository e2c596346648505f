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
// Services are rooms: a room is a value of type service that says how its
// requests are recognised, how its errors look, and which actions it has.
// A new service is a new file with one such value, listed in rooms.
package fakeaws
