package settings

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// fileSettings is config.toml. P is what `profile` is in it: the name of the
// default profile, or the rules of [[profile]]; TOML lets a file have one of
// the two. Whoever needs both names the default profile by default_profile.
type fileSettings[P any] struct {
	DataDir        string `toml:"data_dir"`
	Socket         string `toml:"socket"`
	Profile        P      `toml:"profile"`
	DefaultProfile string `toml:"default_profile"`
	ProfilesFile   string `toml:"profiles_file"`
	Interactive    string `toml:"interactive"`
	SignInTimeout  string `toml:"signin_timeout"`
	ProcessTimeout string `toml:"process_timeout"`
	IdleExit       string `toml:"idle_exit"`
	ShareSSOCache  bool   `toml:"share_sso_cache"`
	AWS            struct {
		ConfigFile      string `toml:"config_file"`
		CredentialsFile string `toml:"credentials_file"`
	} `toml:"aws"`
	Keystore struct {
		Backend        string `toml:"backend"`
		PassphraseFile string `toml:"passphrase_file"`
	} `toml:"keystore"`
	Console struct {
		FederationEndpoint string `toml:"federation_endpoint"`
	} `toml:"console"`
	Browser struct {
		Headless bool     `toml:"headless"`
		Args     []string `toml:"args"`
	} `toml:"browser"`
	Log struct {
		Level  string `toml:"level"`
		Format string `toml:"format"`
	} `toml:"log"`
	Audit struct {
		Enabled *bool  `toml:"enabled"`
		MaxSize any    `toml:"max_size"`
		Keep    *int   `toml:"keep"`
		Journal bool   `toml:"journal"`
		Syslog  string `toml:"syslog"`
		OTLP    string `toml:"otlp"`
	} `toml:"audit"`
	Metrics struct {
		Listen string `toml:"listen"`
	} `toml:"metrics"`
	System struct {
		AdminUsers     []string `toml:"admin_users"`
		AdminGroups    []string `toml:"admin_groups"`
		AllowProcesses bool     `toml:"allow_processes"`
		AllowSignIns   bool     `toml:"allow_sign_ins"`
	} `toml:"system"`
	TPM struct {
		Device string `toml:"device"`
	} `toml:"tpm"`
	PKCS11 struct {
		Module string `toml:"module"`
	} `toml:"pkcs11"`
	Endpoint []fileEndpoint `toml:"endpoint"`
}

type fileEndpoint struct {
	Kind              string             `toml:"kind"`
	Listen            string             `toml:"listen"`
	Profile           string             `toml:"profile"`
	Hosts             []string           `toml:"hosts"`
	IMDSv1            bool               `toml:"imdsv1"`
	AllowUsers        []string           `toml:"allow_users"`
	AllowGroups       []string           `toml:"allow_groups"`
	AllowPrograms     []any              `toml:"allow_programs"`
	AllowUnidentified bool               `toml:"allow_unidentified"`
	TLSCert           string             `toml:"tls_cert"`
	TLSKey            string             `toml:"tls_key"`
	User              []fileEndpointUser `toml:"user"`
	Policy            string             `toml:"policy"`
	PolicyARNs        []string           `toml:"policy_arns"`
	Metadata          *fileMetadata      `toml:"metadata"`
}

type fileEndpointUser struct {
	User    string `toml:"user"`
	Profile string `toml:"profile"`
}

type fileMetadata struct {
	InstanceID     string            `toml:"instance_id"`
	ImageID        string            `toml:"ami_id"`
	InstanceType   string            `toml:"instance_type"`
	Hostname       string            `toml:"hostname"`
	LocalIPv4      string            `toml:"local_ipv4"`
	IPv6           string            `toml:"ipv6"`
	PublicIPv4     string            `toml:"public_ipv4"`
	PublicHostname string            `toml:"public_hostname"`
	MAC            string            `toml:"mac"`
	Region         string            `toml:"region"`
	Zone           string            `toml:"availability_zone"`
	ZoneID         string            `toml:"availability_zone_id"`
	AccountID      string            `toml:"account_id"`
	Partition      string            `toml:"partition"`
	VPCID          string            `toml:"vpc_id"`
	SubnetID       string            `toml:"subnet_id"`
	ReservationID  string            `toml:"reservation_id"`
	SecurityGroups []string          `toml:"security_groups"`
	Tags           map[string]string `toml:"tags"`
	UserDataFile   string            `toml:"user_data_file"`
}

type fileProfileRule struct {
	Name              string   `toml:"name"`
	AllowUsers        []string `toml:"allow_users"`
	AllowGroups       []string `toml:"allow_groups"`
	AllowPrograms     []any    `toml:"allow_programs"`
	Protected         bool     `toml:"protected"`
	SessionPolicy     string   `toml:"session_policy"`
	SessionPolicyARNs []string `toml:"session_policy_arns"`
}

// readSettings is fileSettings with its two forms made one.
type readSettings struct {
	fileSettings[any]
	profile string
	rules   []fileProfileRule
	path    string
	text    []byte // of the file, for places
}

// bad is an error of the setting with this key.
func (r *readSettings) bad(key, help, format string, args ...any) *Error {
	e := &Error{File: r.path, Message: fmt.Sprintf(format, args...), Help: help}
	lines := linesOf(r.text) // read when it is needed: mostly nothing is wrong
	for key != "" && e.Line == 0 {
		e.Line = lines[key]
		// Where a key is missing the table that lacks it is the place.
		if cut := strings.LastIndexAny(key, ".["); cut >= 0 {
			key = key[:cut]
		} else {
			key = ""
		}
	}
	return e
}

// readFile reads config.toml; a missing one is no error. With unknown settings
// the others are read all the same, so that all that is wrong can be told.
func readFile(path string) (readSettings, bool, []*Error) {
	r := readSettings{path: path}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return r, false, nil
	}
	if err != nil {
		return r, false, []*Error{{Message: fmt.Sprintf("cannot read the settings file: %v", err)}}
	}
	var form struct {
		Profile any `toml:"profile"`
	}
	if err := toml.Unmarshal(b, &form); err != nil {
		return r, false, fileErrors(path, err)
	}
	var problems []*Error
	if _, isRules := form.Profile.([]any); isRules {
		var f fileSettings[[]fileProfileRule]
		problems = strict(path, b, &f)
		r.fileSettings, r.rules = common(f), f.Profile
	} else {
		var f fileSettings[string]
		problems = strict(path, b, &f)
		r.fileSettings = common(f)
		r.profile = f.Profile
	}
	if r.DefaultProfile != "" {
		r.profile = r.DefaultProfile
	}
	r.text = b
	return r, true, problems
}

func common[P any](f fileSettings[P]) fileSettings[any] {
	return fileSettings[any]{DataDir: f.DataDir, Socket: f.Socket, DefaultProfile: f.DefaultProfile, ProfilesFile: f.ProfilesFile,
		Interactive: f.Interactive, SignInTimeout: f.SignInTimeout, ProcessTimeout: f.ProcessTimeout, IdleExit: f.IdleExit,
		ShareSSOCache: f.ShareSSOCache, AWS: f.AWS, Keystore: f.Keystore, Console: f.Console, Browser: f.Browser, Log: f.Log,
		Audit: f.Audit, Metrics: f.Metrics, System: f.System, TPM: f.TPM, PKCS11: f.PKCS11, Endpoint: f.Endpoint}
}

// strict decodes the file. The decoder reads on behind unknown settings, and
// tells of all of them.
func strict(path string, b []byte, to any) []*Error {
	d := toml.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return fileErrors(path, err)
	}
	return nil
}

// fileErrors name the lines; the decoder's own text can hold the value of a
// setting, so only its first line is kept.
func fileErrors(path string, err error) []*Error {
	var missing *toml.StrictMissingError
	if errors.As(err, &missing) && len(missing.Errors) > 0 {
		var list []*Error
		for _, e := range missing.Errors {
			row, _ := e.Position()
			list = append(list, &Error{File: path, Line: row, Message: fmt.Sprintf("there is no setting %q", strings.Join(e.Key(), ".")),
				Help: "see docs/settings.md for the settings of this version"})
		}
		return list
	}
	var dec *toml.DecodeError
	if errors.As(err, &dec) {
		row, _ := dec.Position()
		message := strings.TrimPrefix(dec.Error(), "toml: ")
		if strings.Contains(message, "cannot decode") || strings.Contains(message, "struct field") {
			message = fmt.Sprintf("the value of %q is of the wrong kind", strings.Join(dec.Key(), "."))
		}
		return []*Error{{File: path, Line: row, Message: message, Help: "see docs/settings.md"}}
	}
	return []*Error{{File: path, Message: strings.SplitN(err.Error(), "\n", 2)[0]}}
}
