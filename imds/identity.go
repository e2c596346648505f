package imds

import (
	"net/http"

	"keyfob/internal/cred"
)

// accountOf is the account's id as settings or credentials tell it.
func accountOf(f *Facts, s *cred.Snapshot) string {
	if s.AccountID != "" {
		return s.AccountID
	}
	return f.AccountID
}

// account is the account's id, asked of the credentials where no setting
// tells it; "" when it can't be known now.
func (m *metadata) account(x *exchange, f *Facts) (string, *fault) {
	if f.AccountID != "" {
		return f.AccountID, nil
	}
	snapshot, fault := x.get(x.profile)
	switch {
	case fault != nil && fault.status == http.StatusServiceUnavailable && f.learnt != "":
		return f.learnt, nil
	case fault != nil:
		return "", fault
	}
	m.of(x.profile).learn(snapshot.AccountID)
	return snapshot.AccountID, nil
}

// accountNow is the same without waiting.
func (m *metadata) accountNow(x *exchange) string {
	snapshot, err := m.broker.Get(m.ended, cred.Request{Caller: x.caller, Profile: x.profile, Policy: x.live.Policy, Via: m.via})
	if err != nil || snapshot == nil {
		return ""
	}
	m.of(x.profile).learn(snapshot.AccountID)
	return snapshot.AccountID
}

// info answers iam/info, which Terraform reads for the account.
func (m *metadata) info(x *exchange) *fault {
	facts := m.facts(x.profile)
	if facts.RoleName == "" {
		return x.unknown()
	}
	account, f := m.account(x, &facts)
	switch {
	case f != nil:
		return f
	case account == "":
		return x.unknown()
	}
	return x.json([]member{
		{"Code", "Success"},
		{"LastUpdated", stamp(m.started)},
		{"InstanceProfileArn", "arn:" + facts.partition() + ":iam::" + account + ":instance-profile/" + facts.RoleName},
		{"InstanceProfileId", facts.instanceProfileID(account)},
	})
}

// identityInfo answers identity-credentials/ec2/info.
func (m *metadata) identityInfo(x *exchange) *fault {
	facts := m.facts(x.profile)
	account, f := m.account(x, &facts)
	switch {
	case f != nil:
		return f
	case account == "":
		return x.unknown()
	}
	return x.json([]member{{"Code", "Success"}, {"LastUpdated", stamp(m.started)}, {"AccountId", account}})
}

// document answers the instance identity document. It is not signed: there
// is no signature of AWS's to be had.
func (m *metadata) document(x *exchange) *fault {
	facts := m.facts(x.profile)
	account, f := m.account(x, &facts)
	if f != nil {
		account = "" // the rest is worth an answer
	}
	pending := facts.PendingTime
	if pending.IsZero() {
		pending = m.started
	}
	return x.json([]member{
		{"accountId", account},
		{"architecture", facts.architecture()},
		{"availabilityZone", facts.zone()},
		{"billingProducts", ""},
		{"devpayProductCodes", ""},
		{"marketplaceProductCodes", ""},
		{"imageId", facts.imageID()},
		{"instanceId", facts.instanceID()},
		{"instanceType", facts.instanceType()},
		{"kernelId", ""},
		{"pendingTime", stamp(pending)},
		{"privateIp", facts.LocalIPv4},
		{"ramdiskId", ""},
		{"region", facts.Region},
		{"version", "2017-09-30"},
	})
}

// member is one member of a JSON object; an empty value is null.
type member struct{ name, value string }

// json answers 200 with an object, spaced as EC2 spaces it.
func (x *exchange) json(members []member) *fault {
	b := []byte("{\n")
	for i, m := range members {
		if i > 0 {
			b = append(b, ",\n"...)
		}
		b = append(b, "  "...)
		b = appendString(b, m.name)
		b = append(b, " : "...)
		if m.value == "" {
			b = append(b, "null"...)
		} else {
			b = appendString(b, m.value)
		}
	}
	x.text(string(append(b, "\n}"...)))
	return nil
}
