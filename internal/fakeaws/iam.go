package fakeaws

import (
	"encoding/xml"
	"net/http"
)

// iamRoom is the little of IAM that a credentials tool needs. As in AWS a
// user acts on itself when no UserName is given.
var iamRoom = queryRoom("iam", "2010-05-08", "https://iam.amazonaws.com/doc/2010-05-08/", map[string]action{
	"GetUser":              {run: onUser("iam:GetUser", getUser)},
	"ListMFADevices":       {run: onUser("iam:ListMFADevices", listMFADevices)},
	"ListAccessKeys":       {run: onUser("iam:ListAccessKeys", listAccessKeys)},
	"GetAccessKeyLastUsed": {run: getAccessKeyLastUsed, permission: "iam:GetAccessKeyLastUsed"},
	"CreateAccessKey":      {run: onUser("iam:CreateAccessKey", createAccessKey)},
	"UpdateAccessKey":      {run: onUser("iam:UpdateAccessKey", updateAccessKey)},
	"DeleteAccessKey":      {run: onUser("iam:DeleteAccessKey", deleteAccessKey)},
	"ListAccountAliases":   {run: listAccountAliases, permission: "iam:ListAccountAliases"},
})

// onUser finds the user that a request is about and judges the permission:
// users may do everything with users of their account unless a Deny or a
// session policy says no; role sessions likewise, but must name the user.
func onUser(permission string, do func(*Server, *request, *user) (any, error)) func(*Server, *request) (any, error) {
	return func(s *Server, q *request) (any, error) {
		c := checks{params: q.params}
		name := c.text("UserName", userNameLimits)
		if err := c.err(); err != nil {
			return nil, err
		}
		if err := mayUseIAM(q); err != nil {
			return nil, err
		}
		target := q.who.user
		if name != "" {
			target = nil
			for _, u := range s.users {
				if u.spec.Name == name && u.spec.Account == q.who.account && !u.spec.Root {
					target = u
				}
			}
		} else if target == nil {
			return nil, invalid("Must specify userName when calling with non-User credentials")
		}
		resource := "arn:aws:iam::" + q.who.account + ":user/" + name
		if target != nil {
			resource = target.arn
		}
		if q.who.denied(permission) {
			return nil, explicitDeny(q.who, permission, resource)
		}
		if !q.who.policy.allows(permission, resource) {
			return nil, notAuthorized(q.who, permission, resource)
		}
		if target == nil {
			return nil, noSuch("The user with name %s cannot be found.", name)
		}
		return do(s, q, target)
	}
}

// mayUseIAM: sessions of GetSessionToken reach IAM only with MFA.
func mayUseIAM(q *request) error {
	if q.who.via == viaFederation || q.who.via == viaSessionToken && q.who.mfaAt.IsZero() {
		return invalidToken()
	}
	return nil
}

func noSuch(format string, args ...any) *apiError {
	return fail(http.StatusNotFound, "NoSuchEntity", format, args...)
}

// done is the result of actions that return nothing: no Result element.
type nothing struct{}

func (nothing) MarshalXML(*xml.Encoder, xml.StartElement) error { return nil }

type xmlUser struct {
	Path       string
	UserName   string `xml:",omitempty"` // root has none
	UserID     string `xml:"UserId"`
	Arn        string
	CreateDate string
}

func getUser(_ *Server, _ *request, u *user) (any, error) {
	x := xmlUser{Path: u.spec.Path, UserName: u.spec.Name, UserID: u.id, Arn: u.arn, CreateDate: u.created.Format(xmlTime)}
	if u.spec.Root {
		x.UserName = ""
	}
	return struct {
		XMLName xml.Name `xml:"GetUserResult"`
		User    xmlUser
	}{User: x}, nil
}

func listMFADevices(_ *Server, _ *request, u *user) (any, error) {
	type member struct{ UserName, SerialNumber, EnableDate string }
	out := struct {
		XMLName     xml.Name `xml:"ListMFADevicesResult"`
		IsTruncated bool
		Devices     struct {
			List []member `xml:"member"`
		} `xml:"MFADevices"`
	}{}
	for _, d := range u.devices {
		out.Devices.List = append(out.Devices.List, member{u.spec.Name, d.serial, d.enabled.Format(xmlTime)})
	}
	return out, nil
}

type xmlKey struct {
	UserName        string
	AccessKeyID     string `xml:"AccessKeyId"`
	Status          string
	SecretAccessKey string `xml:",omitempty"`
	CreateDate      string
}

func keyOf(k *accessKey) xmlKey {
	status := "Active"
	if !k.active {
		status = "Inactive"
	}
	return xmlKey{UserName: k.owner.spec.Name, AccessKeyID: k.id, Status: status, CreateDate: k.created.Format(xmlTime)}
}

func listAccessKeys(_ *Server, _ *request, u *user) (any, error) {
	out := struct {
		XMLName     xml.Name `xml:"ListAccessKeysResult"`
		UserName    string
		IsTruncated bool
		Keys        struct {
			List []xmlKey `xml:"member"`
		} `xml:"AccessKeyMetadata"`
	}{UserName: u.spec.Name}
	for _, k := range u.keys {
		out.Keys.List = append(out.Keys.List, keyOf(k))
	}
	return out, nil
}

func getAccessKeyLastUsed(s *Server, q *request) (any, error) {
	c := checks{params: q.params}
	id := c.text("AccessKeyId", keyIDLimits)
	if err := c.err(); err != nil {
		return nil, err
	}
	if err := mayUseIAM(q); err != nil {
		return nil, err
	}
	k := s.keys[id]
	if k == nil || k.owner.spec.Account != q.who.account {
		return nil, accessDenied("User: %s is not authorized to perform: iam:GetAccessKeyLastUsed on resource: access key %s", q.who.arn, id)
	}
	type used struct {
		LastUsedDate        string `xml:",omitempty"`
		ServiceName, Region string
	}
	out := struct {
		XMLName  xml.Name `xml:"GetAccessKeyLastUsedResult"`
		UserName string
		Used     used `xml:"AccessKeyLastUsed"`
	}{UserName: k.owner.spec.Name, Used: used{ServiceName: "N/A", Region: "N/A"}}
	if !k.used.IsZero() {
		out.Used = used{k.used.Format(xmlTime), k.usedBy, k.usedRegion}
	}
	return out, nil
}

// keysPerUser is AWS's fixed quota.
const keysPerUser = 2

func createAccessKey(s *Server, q *request, u *user) (any, error) {
	if len(u.keys) >= keysPerUser {
		return nil, fail(http.StatusConflict, "LimitExceeded", "Cannot exceed quota for AccessKeysPerUser: %d", keysPerUser)
	}
	k := &accessKey{id: keyID("AKIA", u.spec.Account), secret: secretKey(), owner: u, active: true, created: q.now}
	if s.set.keyDelay > 0 {
		k.usableFrom = q.now.Add(s.set.keyDelay)
	}
	u.keys = append(u.keys, k)
	s.keys[k.id] = k
	q.issued = k.id
	x := keyOf(k)
	x.SecretAccessKey = k.secret
	return struct {
		XMLName   xml.Name `xml:"CreateAccessKeyResult"`
		AccessKey xmlKey
	}{AccessKey: x}, nil
}

// keyParam finds the access key of the request among the user's.
func keyParam(q *request, u *user) (*accessKey, error) {
	c := checks{params: q.params}
	id := c.text("AccessKeyId", keyIDLimits)
	if err := c.err(); err != nil {
		return nil, err
	}
	for _, k := range u.keys {
		if k.id == id {
			return k, nil
		}
	}
	return nil, noSuch("The Access Key with id %s cannot be found.", id)
}

func updateAccessKey(_ *Server, q *request, u *user) (any, error) {
	status := q.params.Get("Status")
	if status != "Active" && status != "Inactive" {
		c := checks{params: q.params}
		c.add("'"+status+"'", "status", "Member must satisfy enum value set: [Active, Inactive]")
		return nil, c.err()
	}
	k, err := keyParam(q, u)
	if err != nil {
		return nil, err
	}
	k.active = status == "Active"
	return nothing{}, nil
}

func deleteAccessKey(s *Server, q *request, u *user) (any, error) {
	k, err := keyParam(q, u)
	if err != nil {
		return nil, err
	}
	s.dropKeyLocked(k)
	return nothing{}, nil
}

func listAccountAliases(_ *Server, q *request) (any, error) {
	if err := mayUseIAM(q); err != nil {
		return nil, err
	}
	return struct {
		XMLName     xml.Name `xml:"ListAccountAliasesResult"`
		IsTruncated bool
		Aliases     struct {
			List []string `xml:"member"`
		} `xml:"AccountAliases"`
	}{Aliases: struct {
		List []string `xml:"member"`
	}{[]string{"example-" + q.who.account}}}, nil
}
