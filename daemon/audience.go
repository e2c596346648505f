package daemon

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"keyfob/internal/access"
	"keyfob/internal/control"
	"keyfob/internal/cred"
	"keyfob/internal/logging"
	"keyfob/internal/peer"
	"keyfob/profiles"
)

// audience is who may call a method at the daemon of a machine.
type audience int

const (
	// forAdmins: root, the daemon's own user, and whom the settings name. What
	// the table does not know is theirs alone.
	forAdmins audience = iota
	// forHolders: besides, each user to whom the rules give the profile that
	// the call is about. The handler need not ask again.
	forHolders
	// forEverybody: each local user; the handler shows and does what is his.
	forEverybody
)

// audiences says so of every method. At a person's own daemon there is nobody
// but that person.
var audiences = map[string]audience{
	control.MethodCredentials: forHolders,
	control.MethodExplain:     forHolders,
	control.MethodWhoami:      forHolders,
	control.MethodConsole:     forHolders,
	control.MethodLogin:       forHolders,
	control.MethodPolicy:      forHolders,
	control.MethodGrantAdd:    forHolders, // and of each profile that it names
	control.MethodList:        forEverybody,
	control.MethodStatus:      forEverybody,
	control.MethodAnswer:      forEverybody,
	control.MethodGrantList:   forEverybody,
	control.MethodGrantRemove: forEverybody,
	control.MethodAudit:       forEverybody,
	control.MethodVersion:     forEverybody,

	// Sessions are shared: who forgets or replaces one takes it from others.
	control.MethodLogout: forAdmins,
	control.MethodRotate: forAdmins,
	// The vault.
	control.MethodAdd:               forAdmins,
	control.MethodRemove:            forAdmins,
	control.MethodLock:              forAdmins,
	control.MethodUnlock:            forAdmins,
	control.MethodRecoveryKey:       forAdmins,
	control.MethodMFAAdd:            forAdmins,
	control.MethodMFAList:           forAdmins,
	control.MethodMFARemove:         forAdmins,
	control.MethodMFACode:           forAdmins,
	control.MethodMFADevices:        forAdmins,
	control.MethodForeignKeys:       forAdmins,
	control.MethodImportKey:         forAdmins,
	control.MethodCertificateAdd:    forAdmins,
	control.MethodCertificateList:   forAdmins,
	control.MethodCertificateRemove: forAdmins,
	// The daemon itself, and what it says of everybody.
	control.MethodStop:        forAdmins,
	control.MethodReload:      forAdmins,
	control.MethodAuditVerify: forAdmins,
	control.MethodDoctor:      forAdmins,
	// It signs in at an address of the caller's choice.
	control.MethodSSOAccounts: forAdmins,
}

// isAdmin reports whether the caller may do what concerns all users.
func (d *daemon) isAdmin(who peer.Caller) bool {
	if !d.system() {
		return true // converse lets nobody else in
	}
	if d.isOwner(who) {
		return true
	}
	admins := d.conf().admins
	return who.Identified() && admins != nil && admins.Check(who, adminRule, cred.Endpoint{Kind: cred.ViaProcess}) == nil
}

// isOwner reports whether the caller is the daemon's own user, or root.
func (d *daemon) isOwner(who peer.Caller) bool {
	return who.Identified() && (who.UID == d.uid || d.system() && who.UID == superuser())
}

// superuser is the user who can do everything anyway.
func superuser() string {
	if runtime.GOOS == "windows" {
		return "S-1-5-18" // LocalSystem
	}
	return "0"
}

// adminRule names the one rule of config.admins.
const adminRule = "the administrators"

// admit says whether the caller may call the method: nil, or what he is told.
func (d *daemon) admit(c *call, method string) error {
	if c.admin {
		return nil
	}
	switch audiences[method] {
	case forEverybody:
		return nil
	case forHolders:
		err := d.admitHolder(c)
		if err == nil && upstreamMethods[method] && !d.upstream.allow(c.caller.Caller.UID) {
			err = &control.Error{Code: control.CodeUnavailable, Message: fmt.Sprintf("cannot %s: you had AWS asked more than %d times within a minute", handlers[method].what, manyUpstream)}
		}
		return err
	}
	d.turnedAway(c.caller.Caller, "only administrators may call "+method)
	d.refusals.log(d, c.caller.Caller, "", "only administrators may call "+method)
	return &control.Error{Code: control.CodeDenied, Message: "cannot " + handlers[method].what + ": denied",
		Hint: "that is for those who administer this machine's keyfob: root, and whom admin_users and admin_groups name"}
}

// admitHolder lets in whom the rules give the profile of the call. A role by
// --role-arn would be assumed with the credentials below the profile's own
// role: more than the rules give.
func (d *daemon) admitHolder(c *call) error {
	p, err := decode[control.Context](c)
	if err != nil {
		return err
	}
	r := d.request(c, p, cred.ViaProcess)
	if err = tooLong(r.Profile); err == nil {
		err = d.check(r.Caller, r.Profile, r.Via)
	}
	if err == nil && r.RoleARN != "" {
		err = &access.Denied{Reason: "the rules give a profile, and not another role (--role-arn) with what is below it"}
	}
	if err != nil {
		d.refusal(r, err)
		d.refusals.log(d, r.Caller, r.Profile, reasonOf(err))
		return err
	}
	policy, err := decode[control.SessionPolicy](c)
	if err == nil && !d.variety.allow(r.Caller.UID, policy) {
		err = &control.Error{Code: control.CodeFailed, Message: fmt.Sprintf("cannot use another session policy: you have asked for %d different ones within the hour", manyPolicies)}
	}
	return err
}

// longestName is what the name of a profile that a user asks for may have, in
// bytes: it goes into logs, and is compared with every other name.
const longestName = 256

func tooLong(name string) error {
	if len(name) <= longestName {
		return nil
	}
	return &access.Denied{Reason: fmt.Sprintf("the name of the profile has %d bytes", len(name))}
}

// mayHaveProfile reports whether the rules give the caller the profile, or he
// sees all.
func (d *daemon) mayHaveProfile(c *call, profile string) bool {
	return c.admin || d.check(c.caller.Caller, profile, cred.Endpoint{Kind: cred.ViaProcess}) == nil
}

// ignoreEnvironment takes out of a call's parameters what its caller's
// environment says, but for the profile's name: nobody's variables steer the
// daemon of a machine (CONTRACT.md §2).
func ignoreEnvironment(params json.RawMessage) (json.RawMessage, error) {
	if len(params) == 0 {
		return params, nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(params, &members); err != nil {
		return nil, &control.Error{Code: control.CodeProtocol, Message: "cannot understand the request's parameters"}
	}
	for name := range members {
		// encoding/json takes a name in any case for the member.
		switch strings.ToLower(name) {
		case "env", "region_env", "region_var":
			delete(members, name)
		}
	}
	// Who names no profile means the machine's default: "default" is what a
	// client fills in.
	var p control.Context
	if err := json.Unmarshal(params, &p); err == nil && !p.Named && p.ProfileVar == "" && p.Profile == "default" {
		for name := range members {
			if strings.EqualFold(name, "profile") {
				delete(members, name)
			}
		}
	}
	return json.Marshal(members)
}

// shownSettings are what explain shows of a profile to who may have it and is
// no administrator. Other values can be secrets, or somebody else's business.
var shownSettings = map[string]bool{
	"region": true, "output": true, "role_arn": true, "role_session_name": true, "duration_seconds": true, "source_profile": true,
	"credential_source": true, "mfa_serial": true, "aws_account_id": true, "endpoint_url": true, "services": true, "retry_mode": true,
	"max_attempts": true, "use_fips_endpoint": true, "use_dualstack_endpoint": true, "sts_regional_endpoints": true, "protected": true,
	"session_policy_arns": true, "sso_account_id": true, "sso_role_name": true, "sso_region": true,
	"roles_anywhere_profile_arn": true, "roles_anywhere_trust_anchor_arn": true,
}

func isShown(name string) bool {
	return shownSettings[name] || strings.HasPrefix(name, "services.")
}

// usersLines are the settings of a profile for the private config file of
// exec, of who is no administrator: what explain shows of them, and how AWS's
// clients behave.
func usersLines(p *profiles.Profile) string {
	shown := *p
	shown.Settings = nil
	for _, s := range p.Settings {
		if isShown(s.Name) || clientSettings[s.Name] {
			shown.Settings = append(shown.Settings, s)
		}
	}
	return shown.ConfigLines()
}

// clientSettings are those of AWS's clients that a program of exec needs, and
// in which nobody keeps a secret
// (https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html,
// https://docs.aws.amazon.com/cli/latest/topic/s3-config.html).
var clientSettings = map[string]bool{
	"ca_bundle": true, "defaults_mode": true, "parameter_validation": true, "tcp_keepalive": true, "sdk_ua_app_id": true,
	"request_checksum_calculation": true, "response_checksum_validation": true, "disable_request_compression": true, "request_min_compression_size_bytes": true,
	"ignore_configured_endpoint_urls": true, "endpoint_discovery_enabled": true, "account_id_endpoint_mode": true, "sigv4a_signing_region_set": true, "auth_scheme_preference": true,
	"s3_us_east_1_regional_endpoint": true, "s3_use_arn_region": true, "s3_disable_multiregion_access_points": true, "s3_disable_express_session_auth": true,
	"s3.addressing_style": true, "s3.max_concurrent_requests": true, "s3.max_queue_size": true, "s3.multipart_threshold": true, "s3.multipart_chunksize": true, "s3.max_bandwidth": true,
	"s3.use_accelerate_endpoint": true, "s3.use_dualstack_endpoint": true, "s3.payload_signing_enabled": true, "s3.signature_version": true, "s3.preferred_transfer_client": true,
	"cli_binary_format": true, "cli_pager": true, "cli_timestamp_format": true, "cli_auto_prompt": true, "cli_follow_urlparam": true,
}

// redactExplanation leaves of an explanation what the profile's user may
// know.
func redactExplanation(x *profiles.Explanation) {
	for i := range x.Settings {
		s := &x.Settings[i]
		if !isShown(s.Name) && s.Value != "" {
			s.Value = profiles.Redacted
		}
		s.Shadows = []profiles.Shadow{} // of other layers, which did not win
	}
	x.Warnings = []string{}
	if x.Error != nil {
		x.Error.Message, x.Error.Hint = "the profile does not work: "+adminKnows, ""
	}
}

const adminKnows = "the administrator of this machine's keyfob sees why (keyfob explain)"

// refusalLog keeps refusals from flooding the log: one line a minute for each
// user and profile, and no more than maxRefusals.
type refusalLog struct {
	mu   sync.Mutex // guards what follows
	from time.Time
	seen map[[2]string]bool
}

const maxRefusals = 256

func (l *refusalLog) first(uid, what string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); l.seen == nil || now.Sub(l.from) >= time.Minute {
		l.from, l.seen = now, map[[2]string]bool{}
	}
	k := [2]string{uid, what}
	if l.seen[k] || len(l.seen) >= maxRefusals {
		return false
	}
	l.seen[k] = true
	return true
}

func (l *refusalLog) log(d *daemon, who peer.Caller, profile, reason string) {
	if len(profile) > longestName {
		profile = strings.Clone(profile[:longestName])
	}
	if !l.first(who.UID, profile+"\x00"+reason) {
		return
	}
	program := ""
	if p, ok := who.Known(); ok {
		program = p.Exe
	}
	d.log.WithFields(logrus.Fields{logging.Caller: who.UID, logging.PID: who.PID, logging.Program: program, logging.Profile: profile, logging.Reason: reason}).
		Warn("control request refused")
}

// newAdmins makes the rule of who administers the daemon; nil where the
// settings name nobody.
func (c *config) newAdmins() (*access.RuleSet, error) {
	users, groups := c.Machine.AdminUsers, c.Machine.AdminGroups
	if !c.System || len(users) == 0 && len(groups) == 0 {
		return nil, nil
	}
	admins, err := access.NewRules(access.RulesConfig{Owner: peer.Self(),
		Profiles: []access.ProfileRule{{Name: adminRule, AllowUsers: users, AllowGroups: groups}}})
	if err == nil {
		return admins, nil
	}
	key := "system.admin_users"
	if strings.Contains(err.Error(), "allow_groups") {
		key = "system.admin_groups"
	}
	_, why, ok := strings.Cut(err.Error(), adminRule+": ")
	if !ok {
		why = err.Error()
	}
	return nil, c.Bad(key, hintOf(err), "%s", fmt.Sprintf("%s: %s", strings.TrimPrefix(key, "system."), why))
}
