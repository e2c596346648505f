package profiles

import (
	"strconv"
	"strings"
)

// calledServices are the services whose endpoints keyfob itself calls, as
// service ids in a services section.
var calledServices = [...]string{"accessanalyzer", "iam", "rolesanywhere", "signin", "sso", "sso_oidc", "sts"}

// client resolves what the AWS clients of a profile's links are built from:
// environment, then files. Region is left as configured, "" when it is not.
func (v *view) client() (Client, *Error) {
	var c Client
	if f, ok := v.withEnvironment("region"); ok {
		c.Region = f.text
	}
	if f, ok := v.withEnvironment("ca_bundle"); ok {
		c.CABundle = v.set.expandHome(f.text)
	}
	for _, b := range []struct {
		key string
		to  *bool
	}{{"use_fips_endpoint", &c.UseFIPS}, {"use_dualstack_endpoint", &c.UseDualStack}} {
		on, err := v.boolean(b.key)
		if err != nil {
			return c, err
		}
		*b.to = on
	}
	if f, ok := v.withEnvironment("sts_regional_endpoints"); ok {
		switch strings.ToLower(f.text) {
		case "legacy":
			c.STSLegacy = true
		case "regional":
		default:
			return c, v.badValue("sts_regional_endpoints", f, "legacy or regional")
		}
	}
	if f, ok := v.withEnvironment("max_attempts"); ok {
		n, err := strconv.Atoi(f.text)
		if err != nil || n < 0 {
			return c, v.badValue("max_attempts", f, "a number, 0 or more")
		}
		c.MaxAttempts = n
	}
	if f, ok := v.withEnvironment("retry_mode"); ok {
		switch mode := strings.ToLower(f.text); mode {
		case "standard", "adaptive", "legacy":
			c.RetryMode = mode
		default:
			return c, v.badValue("retry_mode", f, "standard, adaptive or legacy")
		}
	}
	err := v.endpoints(&c)
	return c, err
}

// endpoints fills c.EndpointURL. A variable for one service beats the
// variable for all, which beats the files.
func (v *view) endpoints(c *Client) *Error {
	ignore, err := v.boolean("ignore_configured_endpoint_urls")
	if err != nil {
		return err
	}
	var services *layers
	if f, ok := v.get("services"); ok {
		services = v.set.services(f.text)
		if !services.exists() {
			return fault(f.origin, "cannot use profile %s: %s names %s, and there is no [services %s]", v.name, said("services", f), f.text, f.text)
		}
	}
	if ignore {
		return nil
	}
	set := func(service, url string) {
		if c.EndpointURL == nil {
			c.EndpointURL = map[string]string{}
		}
		c.EndpointURL[service] = url
	}
	all, fromEnv := v.withEnvironment("endpoint_url")
	if fromEnv {
		set("", all.text)
		fromEnv = all.layer < 0
	}
	for _, service := range calledServices {
		if e := v.set.env.settings[serviceEndpoint(service)]; len(e) > 0 {
			set(service, e[0].value)
		} else if services != nil && !fromEnv {
			if f, ok := services.getSub(service, "endpoint_url"); ok {
				set(service, f.text)
			}
		}
	}
	return nil
}

// boolean reads true or false; unset is false.
func (v *view) boolean(key string) (bool, *Error) {
	f, ok := v.withEnvironment(key)
	switch {
	case !ok || strings.EqualFold(f.text, "false"):
		return false, nil
	case strings.EqualFold(f.text, "true"):
		return true, nil
	}
	return false, v.badValue(key, f, "true or false")
}

// badValue says what a setting must be. Values are not quoted: one pasted
// into the wrong line may be a secret.
func (v *view) badValue(key string, f found, want string) *Error {
	return fault(f.origin, "cannot use profile %s: %s must be %s", v.name, said(key, f), want)
}

// partitionRegions is the region where a partition's STS is called when no
// region is configured.
var partitionRegions = map[string]string{
	"aws":        "us-east-1",
	"aws-cn":     "cn-north-1",
	"aws-us-gov": "us-gov-west-1",
	"aws-iso":    "us-iso-east-1",
	"aws-iso-b":  "us-isob-east-1",
	"aws-iso-e":  "eu-isoe-west-1",
	"aws-iso-f":  "us-isof-south-1",
	"aws-eusc":   "eusc-de-east-1",
}

// partitionRegion is the default region of an ARN's partition, "" when s is
// no ARN of a known one.
func partitionRegion(arn string) string { return partitionRegions[arnField(arn, 1)] }

// arnField returns a field of arn:partition:service:region:account:resource,
// "" when s is no ARN.
func arnField(s string, n int) string {
	f := strings.SplitN(s, ":", 6)
	if len(f) != 6 || f[0] != "arn" {
		return ""
	}
	return f[n]
}
