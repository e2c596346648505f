package fakeaws_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"keyfob/internal/fakeaws"
)

func TestKeyRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		s := fakeaws.New()
		id, secret := s.AddUser(fakeaws.UserSpec{})
		s.SetKeyDelay(10 * time.Second)
		p := as(t, s, id, secret, "")
		made, err := p.iam().CreateAccessKey(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.iam().CreateAccessKey(ctx, nil)
		refused(t, err, 409, "LimitExceeded", "Cannot exceed quota for AccessKeysPerUser: 2")
		fresh := as(t, s, *made.AccessKey.AccessKeyId, *made.AccessKey.SecretAccessKey, "")
		_, err = fresh.who()
		refused(t, err, 403, "InvalidClientTokenId", "The security token included in the request is invalid.")
		time.Sleep(10 * time.Second)
		if arn, err := fresh.who(); err != nil || arn != alice {
			t.Errorf("after its delay the key is %s, %v", arn, err)
		}
		if _, err := fresh.iam().UpdateAccessKey(ctx, &iam.UpdateAccessKeyInput{AccessKeyId: &id, Status: types.StatusTypeInactive}); err != nil {
			t.Fatal(err)
		}
		_, err = p.who()
		refused(t, err, 403, "InvalidClientTokenId", "The security token included in the request is invalid.")
		list, err := fresh.iam().ListAccessKeys(ctx, nil)
		if err != nil || len(list.AccessKeyMetadata) != 2 || list.AccessKeyMetadata[0].Status != types.StatusTypeInactive || list.AccessKeyMetadata[1].Status != types.StatusTypeActive {
			t.Errorf("list %+v, %v", list, err)
		}
		used, err := fresh.iam().GetAccessKeyLastUsed(ctx, &iam.GetAccessKeyLastUsedInput{AccessKeyId: &id})
		if err != nil || *used.UserName != "alice" || *used.AccessKeyLastUsed.ServiceName != "iam" || used.AccessKeyLastUsed.LastUsedDate == nil {
			t.Errorf("last used %+v, %v", used, err)
		}
		for range 2 {
			_, err = fresh.iam().DeleteAccessKey(ctx, &iam.DeleteAccessKeyInput{AccessKeyId: &id})
			if err != nil {
				break
			}
		}
		refused(t, err, 404, "NoSuchEntity", "The Access Key with id "+id+" cannot be found.")
	})
}

func TestUsers(t *testing.T) {
	ctx := context.Background()
	s := fakeaws.New()
	id, secret := s.AddUser(fakeaws.UserSpec{Path: "/staff/", MFA: []fakeaws.MFASpec{{}, {Serial: "arn:aws:iam::111122223333:mfa/second"}}})
	s.AddUser(fakeaws.UserSpec{Name: "bob"})
	s.AddUser(fakeaws.UserSpec{Name: "carol", Account: "444455556666"})
	role := s.AddRole(fakeaws.RoleSpec{})
	p := as(t, s, id, secret, "")
	u, err := p.iam().GetUser(ctx, nil)
	if err != nil || *u.User.Arn != "arn:aws:iam::111122223333:user/staff/alice" || *u.User.Path != "/staff/" {
		t.Errorf("user %+v, %v", u, err)
	}
	m, err := p.iam().ListMFADevices(ctx, nil)
	if err != nil || len(m.MFADevices) != 2 || *m.MFADevices[0].SerialNumber != "arn:aws:iam::111122223333:mfa/alice" {
		t.Errorf("devices %+v, %v", m, err)
	}
	a, err := p.iam().ListAccountAliases(ctx, nil)
	if err != nil || len(a.AccountAliases) != 1 {
		t.Errorf("aliases %+v, %v", a, err)
	}
	if _, err := p.iam().GetUser(ctx, &iam.GetUserInput{UserName: aws.String("bob")}); err != nil {
		t.Error(err)
	}
	_, err = p.iam().GetUser(ctx, &iam.GetUserInput{UserName: aws.String("carol")})
	refused(t, err, 404, "NoSuchEntity", "The user with name carol cannot be found.")

	// A session without MFA does not reach IAM, one with MFA does; a role
	// has no user of its own.
	plain, err := p.sts().GetSessionToken(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.with(plain.Credentials).iam().GetUser(ctx, nil)
	refused(t, err, 403, "InvalidClientTokenId", "The security token included in the request is invalid.")
	serial := "arn:aws:iam::111122223333:mfa/second"
	code := s.MFACode(serial)
	with, err := p.sts().GetSessionToken(ctx, &sts.GetSessionTokenInput{SerialNumber: &serial, TokenCode: &code})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = p.with(with.Credentials).iam().GetUser(ctx, nil); err != nil {
		t.Error(err)
	}
	_, err = p.mustAssume(role, nil).iam().GetUser(ctx, nil)
	refused(t, err, 400, "ValidationError", "Must specify userName when calling with non-User credentials")

	did, dsecret := s.AddUser(fakeaws.UserSpec{Name: "dave", Deny: []string{"iam:CreateAccessKey"}})
	_, err = as(t, s, did, dsecret, "").iam().CreateAccessKey(ctx, nil)
	refused(t, err, 403, "AccessDenied", "User: arn:aws:iam::111122223333:user/dave is not authorized to perform: iam:CreateAccessKey on resource: arn:aws:iam::111122223333:user/dave with an explicit deny in an identity-based policy")
}
