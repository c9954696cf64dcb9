package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Users that say what kind of secret the password is: an identity token, with
// which the token service is asked for others, or a registry's own token, which
// is sent as it is.
const (
	TokenUser  = "<token>"
	BearerUser = "<bearer>"
)

// maxToken bounds a token service's answer.
const maxToken = 256 << 10

// auth is what an endpoint asked for and was given.
type auth struct {
	mu     sync.Mutex
	scheme string // "", "basic" or "bearer"
	realm  *url.URL
	params map[string]string
	tokens map[string]*token // by scope
}

// token is fetched by whoever needs it first; the others wait for it.
type token struct {
	extra string // scope that the registry itself asked for

	mu      sync.Mutex
	value   string
	expires time.Time
}

// authorization is the header to send for a scope; empty when nothing was
// asked for yet.
func (a *auth) authorization(ctx context.Context, e *endpoint, scope string) (string, error) {
	if user, pass := e.credentials(); user == BearerUser {
		return "Bearer " + pass, nil
	}
	a.mu.Lock()
	scheme, t := a.scheme, a.tokens[scope]
	if scheme == "bearer" && t == nil {
		t = &token{}
		a.tokens[scope] = t
	}
	a.mu.Unlock()
	switch scheme {
	case "basic":
		if user, pass := e.credentials(); user != "" || pass != "" {
			return basic(user, pass), nil
		}
	case "bearer":
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.value == "" || time.Now().After(t.expires) {
			if err := a.fetch(ctx, e, scope, t); err != nil {
				return "", err
			}
		}
		return "Bearer " + t.value, nil
	}
	return "", nil
}

func (e *endpoint) credentials() (user, pass string) {
	if e.domain == "" {
		return "", ""
	}
	return e.c.opts.Credentials(e.domain)
}

func basic(user, pass string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+pass))
}

// challenged takes in what a 401 asks for, and tells whether there is
// something new to send. sent is the header that was refused.
func (a *auth) challenged(e *endpoint, scope, sent string, h http.Header) bool {
	if user, _ := e.credentials(); user == BearerUser {
		return false
	}
	for _, ch := range challenges(h.Values("WWW-Authenticate")) {
		switch ch.scheme {
		case "bearer":
			realm, err := e.base.Parse(ch.params["realm"])
			if err != nil || ch.params["realm"] == "" || realm.Host == "" || (realm.Scheme != "https" && realm.Scheme != "http") {
				continue
			}
			a.mu.Lock()
			a.scheme, a.realm, a.params = "bearer", realm, ch.params
			if a.tokens == nil || len(a.tokens) > 1000 {
				a.tokens = map[string]*token{}
			}
			t := a.tokens[scope]
			if t == nil {
				t = &token{}
				a.tokens[scope] = t
			}
			a.mu.Unlock()
			// Not under a's lock: whoever fetches the token holds t's, and needs a's.
			t.mu.Lock()
			t.extra = ch.params["scope"]
			if sent == "Bearer "+t.value {
				t.value = ""
			}
			t.mu.Unlock()
			return true
		case "basic":
			user, pass := e.credentials()
			a.mu.Lock()
			a.scheme = "basic"
			a.mu.Unlock()
			return (user != "" || pass != "") && sent != basic(user, pass)
		}
	}
	return false
}

// fetch gets a token from the realm; t is locked.
func (a *auth) fetch(ctx context.Context, e *endpoint, scope string, t *token) error {
	a.mu.Lock()
	realm, service := *a.realm, a.params["service"]
	a.mu.Unlock()
	user, pass := e.credentials()
	if (user != "" || pass != "") && realm.Scheme != "https" && e.base.Scheme == "https" {
		return fmt.Errorf("registry %s: its token service %s has no TLS: no password is sent there", e.base.Host, realm.Host)
	}
	scopes := strings.Fields(scope)
	if t.extra != "" && t.extra != scope {
		scopes = append(scopes, strings.Fields(t.extra)...)
	}
	res, err := e.c.patiently(ctx, &pace{}, true, func() (*http.Response, error) {
		return e.askToken(ctx, realm, service, scopes, user, pass)
	})
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		err := refusal(res)
		if errors.Is(err, ErrDenied) && user != "" {
			return fmt.Errorf("registry %s: login failed: %w", e.base.Host, err)
		}
		return err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxToken))
	if err != nil {
		return unreachable(realm.Host, err)
	}
	var got struct {
		Token   string    `json:"token"`
		Access  string    `json:"access_token"`
		Seconds int64     `json:"expires_in"`
		Issued  time.Time `json:"issued_at"`
	}
	if err := json.Unmarshal(raw, &got); err != nil {
		return fmt.Errorf("token service %s: the answer is no token", realm.Host)
	}
	if got.Token == "" {
		got.Token = got.Access
	}
	if got.Token == "" {
		return fmt.Errorf("token service %s: the answer holds no token", realm.Host)
	}
	// The clock that counts is ours, from now: a registry that thinks
	// otherwise answers 401 and the token is fetched again.
	life := time.Duration(min(max(got.Seconds, 0), 24*3600)) * time.Second
	if life == 0 {
		life = time.Minute
	}
	t.value, t.expires = got.Token, time.Now().Add(life-life/10)
	return nil
}

// askToken sends one request to a token service: OAuth 2 for an identity
// token, else Docker's GET with the password, if there is one.
func (e *endpoint) askToken(ctx context.Context, realm url.URL, service string, scopes []string, user, pass string) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := time.AfterFunc(answerTimeout, func() { cancel(errNoAnswer) })
	defer stop.Stop()
	method, body := http.MethodGet, ""
	if user == TokenUser {
		method = http.MethodPost
		body = url.Values{
			"grant_type": {"refresh_token"}, "service": {service}, "client_id": {"cale"},
			"scope": {strings.Join(scopes, " ")}, "refresh_token": {pass},
		}.Encode()
	} else {
		q := realm.Query()
		if service != "" {
			q.Set("service", service)
		}
		for _, s := range scopes {
			q.Add("scope", s)
		}
		if user != "" {
			q.Set("account", user)
		}
		realm.RawQuery = q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, realm.String(), strings.NewReader(body))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	req.Header.Set("User-Agent", e.c.opts.UserAgent)
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	} else if user != "" || pass != "" {
		req.Header.Set("Authorization", basic(user, pass))
	}
	res, err := e.http.Do(req)
	if err != nil {
		if context.Cause(ctx) == errNoAnswer {
			err = errNoAnswer
		}
		cancel(nil)
		return nil, unreachable(realm.Host, err)
	}
	res.Body = watch(ctx, cancel, res.Body, answerTimeout)
	return res, nil
}

// challenge is one way to authenticate that a 401 offers.
type challenge struct {
	scheme string // lower case
	params map[string]string
}

// challenges parses WWW-Authenticate (RFC 9110 11.6.1), bearer first. Several
// challenges may share a header, separated by the same commas as parameters.
func challenges(headers []string) []challenge {
	var all []challenge
	for _, h := range headers {
		if len(h) > maxErrorBody {
			continue
		}
		for h != "" {
			h = strings.TrimLeft(h, ", \t")
			i := strings.IndexAny(h, " =,")
			if i < 0 {
				i = len(h)
			}
			word := h[:i]
			if i < len(h) && h[i] == '=' && len(all) > 0 {
				var value string
				value, h = paramValue(h[i+1:])
				all[len(all)-1].params[strings.ToLower(word)] = value
				continue
			}
			if word == "" {
				break
			}
			all = append(all, challenge{strings.ToLower(word), map[string]string{}})
			h = h[min(i+1, len(h)):]
		}
	}
	for i, c := range all {
		if c.scheme == "bearer" {
			all[0], all[i] = all[i], all[0]
			break
		}
	}
	return all
}

// paramValue reads a token or a quoted string.
func paramValue(s string) (value, rest string) {
	if !strings.HasPrefix(s, `"`) {
		if i := strings.IndexAny(s, ", \t"); i >= 0 {
			return s[:i], s[i:]
		}
		return s, ""
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:]
		case '\\':
			if i++; i < len(s) {
				b.WriteByte(s[i])
			}
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), ""
}
