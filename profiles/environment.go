package profiles

import (
	"sort"
	"strings"
)

// Variables that choose credentials. They are sources of their own
// (CONTRACT.md §4), not settings of a profile.
const (
	envAccessKeyID    = "AWS_ACCESS_KEY_ID"
	envSecretKey      = "AWS_SECRET_ACCESS_KEY"
	envSessionToken   = "AWS_SESSION_TOKEN"
	envRoleARN        = "AWS_ROLE_ARN"
	envTokenFile      = "AWS_WEB_IDENTITY_TOKEN_FILE"
	envSessionName    = "AWS_ROLE_SESSION_NAME"
	envContainerRel   = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
	envContainerFull  = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
	envContainerToken = "AWS_CONTAINER_AUTHORIZATION_TOKEN"
	envContainerFile  = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"
)

const envEndpointURL = "AWS_ENDPOINT_URL"

// settingVariables are the variables that stand for settings, by setting,
// the ones that win first.
var settingVariables = []struct {
	setting   string
	variables []string
}{
	{"ca_bundle", []string{"AWS_CA_BUNDLE"}},
	{"ec2_metadata_disabled", []string{"AWS_EC2_METADATA_DISABLED"}},
	{"ec2_metadata_service_endpoint", []string{"AWS_EC2_METADATA_SERVICE_ENDPOINT"}},
	{"ec2_metadata_service_endpoint_mode", []string{"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"}},
	{"ec2_metadata_v1_disabled", []string{"AWS_EC2_METADATA_V1_DISABLED"}},
	{"endpoint_url", []string{envEndpointURL}},
	{"ignore_configured_endpoint_urls", []string{"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"}},
	{"max_attempts", []string{"AWS_MAX_ATTEMPTS"}},
	{"region", []string{"AWS_REGION", "AWS_DEFAULT_REGION"}},
	{"retry_mode", []string{"AWS_RETRY_MODE"}},
	{"sts_regional_endpoints", []string{"AWS_STS_REGIONAL_ENDPOINTS"}},
	{"use_dualstack_endpoint", []string{"AWS_USE_DUALSTACK_ENDPOINT"}},
	{"use_fips_endpoint", []string{"AWS_USE_FIPS_ENDPOINT"}},
}

// environment is what the daemon's variables say.
type environment struct {
	settings map[string][]candidate // by setting, the one that wins first
	raw      map[string]string      // those that choose credentials, blank ones left out
}

// value returns a variable, "" when it is unset or blank.
func (e *environment) value(name string) string { return e.raw[name] }

func fromEnvironment(name string) Origin { return Origin{Kind: FromEnvironment, Name: name} }

func readEnvironment(env map[string]string) environment {
	e := environment{settings: map[string][]candidate{}, raw: map[string]string{}}
	for _, name := range []string{envAccessKeyID, envSecretKey, envSessionToken, envRoleARN, envTokenFile, envSessionName,
		envContainerRel, envContainerFull, envContainerToken, envContainerFile} {
		if v := env[name]; !blank(v) {
			e.raw[name] = v
		}
	}
	for _, s := range settingVariables {
		for _, name := range s.variables {
			if v := env[name]; !blank(v) {
				e.settings[s.setting] = append(e.settings[s.setting], candidate{value: v, origin: fromEnvironment(name)})
			}
		}
	}
	var names []string
	for name, v := range env {
		if strings.HasPrefix(name, envEndpointURL+"_") && !blank(v) {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	for _, name := range names {
		service := strings.ToLower(strings.TrimPrefix(name, envEndpointURL+"_"))
		e.settings[serviceEndpoint(service)] = []candidate{{value: env[name], origin: fromEnvironment(name)}}
	}
	return e
}

// serviceEndpoint is the name of the setting that holds a service's
// endpoint URL.
func serviceEndpoint(service string) string { return "services." + service + ".endpoint_url" }

func blank(s string) bool { return strings.TrimSpace(s) == "" }
