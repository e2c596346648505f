package fakeaws

import (
	"errors"
	"net/http"
)

// SignInWorld is what a state file and the admin port say of the sign-in
// services.
type SignInWorld struct {
	SSO              []SSOSpec                 `json:"sso,omitempty"`
	OIDC             []OIDCSpec                `json:"oidc,omitempty"`
	Issuers          []IssuerSpec              `json:"issuers,omitempty"`
	SAML             []SAMLSpec                `json:"saml,omitempty"`
	TrustAnchors     []TrustAnchorSpec         `json:"trust_anchors,omitempty"`
	AnywhereProfiles []AnywhereProfile         `json:"anywhere_profiles,omitempty"`
	Instance         *InstanceSpec             `json:"instance,omitempty"`
	Containers       []ContainerSpec           `json:"containers,omitempty"`
	Login            string                    `json:"login,omitempty"`   // SetLogin
	SignInModes      map[SignInKind]SignInMode `json:"sign_in,omitempty"` // SetSignIn
	LoginRefusal     *LoginRefusal             `json:"refusal,omitempty"` // RefuseLogin
}

// addSignIn adds what a world says of the sign-in services.
func (s *Server) addSignIn(w SignInWorld) error {
	var errs []error
	for _, x := range w.SSO {
		_, err := s.addSSO(x)
		errs = append(errs, err)
	}
	for _, x := range w.OIDC {
		_, err := s.addOIDC(x)
		errs = append(errs, err)
	}
	for _, x := range w.Issuers {
		errs = append(errs, s.TrustIssuer(x))
	}
	for _, x := range w.SAML {
		_, err := s.addSAML(x)
		errs = append(errs, err)
	}
	for _, x := range w.TrustAnchors {
		_, err := s.addTrustAnchor(x)
		errs = append(errs, err)
	}
	for _, x := range w.AnywhereProfiles {
		s.AddAnywhereProfile(x)
	}
	if w.Instance != nil {
		s.SetInstance(*w.Instance)
	}
	for _, x := range w.Containers {
		s.AddContainer(x)
	}
	if w.Login != "" {
		errs = append(errs, s.SetLogin(w.Login))
	}
	for kind, mode := range w.SignInModes {
		errs = append(errs, s.setSignIn(kind, mode))
	}
	if w.LoginRefusal != nil {
		s.RefuseLogin(*w.LoginRefusal)
	}
	return errors.Join(errs...)
}

// signInRoutes are the admin port's paths for the sign-in services.
func (s *Server) signInRoutes(route func(pattern string, do func(r *http.Request) (any, error))) {
	route("POST /signin", func(r *http.Request) (any, error) {
		var w SignInWorld
		if err := readJSON(r.Body, &w); err != nil {
			return nil, err
		}
		return nil, s.addSignIn(w)
	})
	route("GET /session", func(r *http.Request) (any, error) {
		x, ok := s.Session(r.URL.Query().Get("access_key_id"))
		if !ok {
			return nil, errors.New("there is no such session")
		}
		return x, nil
	})
	route("POST /device", func(r *http.Request) (any, error) {
		var in struct {
			UserCode string `json:"user_code"`
			Deny     bool   `json:"deny"`
		}
		if err := readJSON(r.Body, &in); err != nil {
			return nil, err
		}
		return map[string]int{"decided": s.DecideDevice(in.UserCode, !in.Deny)}, nil
	})
	route("POST /end", func(r *http.Request) (any, error) {
		var in struct {
			What string `json:"what"`
		}
		if err := readJSON(r.Body, &in); err != nil {
			return nil, err
		}
		switch in.What {
		case "sso-sessions":
			return map[string]int{"ended": s.EndSSOSessions()}, nil
		case "sso-tokens":
			s.ExpireSSOTokens()
		case "sso-clients":
			s.ExpireSSOClients()
		case "oidc-sessions":
			return map[string]int{"ended": s.EndOIDCSessions()}, nil
		case "login-sessions":
			s.EndLogins()
		case "cookies":
			s.ForgetLogins()
		default:
			return nil, errors.New("what is sso-sessions, sso-tokens, sso-clients, oidc-sessions, login-sessions or cookies")
		}
		return nil, nil
	})
	route("POST /rotate", func(r *http.Request) (any, error) {
		var in struct {
			OIDC string `json:"oidc"`
			Keep bool   `json:"keep"`
		}
		if err := readJSON(r.Body, &in); err != nil {
			return nil, err
		}
		s.RotateOIDCKeys(orElse(in.OIDC, "idp"), in.Keep)
		return nil, nil
	})
	route("POST /sso-tokens", func(r *http.Request) (any, error) {
		var in struct {
			StartURL string `json:"start_url"`
		}
		if err := readJSON(r.Body, &in); err != nil {
			return nil, err
		}
		return s.NewSSOTokens(in.StartURL)
	})
	route("GET /saml-response", func(r *http.Request) (any, error) {
		b, err := s.SAMLResponse(orElse(r.URL.Query().Get("provider"), "idp"), nil)
		return map[string]string{"SAMLResponse": b}, err
	})
	route("GET /id-token", func(r *http.Request) (any, error) {
		v := r.URL.Query()
		t, err := s.IDToken(v.Get("base"), orElse(v.Get("provider"), "idp"), v.Get("subject"))
		return map[string]string{"id_token": t}, err
	})
}
