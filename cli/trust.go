package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"cale/cli/format"
	"cale/image/trust"

	"github.com/spf13/cobra"
)

func trustCommands() []entry {
	return []entry{
		{name: "rm", aliases: []string{"remove"}, short: "Take a scope out of the policy", build: (*App).trustRmCommand},
		{name: "set", short: "Set what images of a scope must be signed by", build: (*App).trustSetCommand},
		{name: "show", aliases: []string{"ls"}, short: "Show what images must be signed by", build: (*App).trustShowCommand},
	}
}

func (a *App) imageVerifyCommand() *cobra.Command {
	c := &cobra.Command{Use: "verify [OPTIONS] IMAGE", Args: exactly(1),
		Long: "Tell whether an image in its registry is signed as the policy wants it\nor, with --key, with that key. Nothing is pulled."}
	f := c.Flags()
	key := f.String("key", "", "File of the public key that must have signed, whatever the policy says")
	identity := f.String("identity", "", "With --key: how the reference in the signature must match (matchRepoDigestOrExact, matchExact, matchRepository)")
	layout := f.StringP("format", "f", "", inspectUsage)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		pem := ""
		if *key != "" {
			raw, err := os.ReadFile(*key)
			if err != nil {
				return err
			}
			pem = string(raw)
		}
		api, err := a.client()
		if err != nil {
			return err
		}
		v, err := api.ImageVerify(cmd.Context(), args[0], pem, *identity, a.auth(cmd.Context(), args[0]))
		if err != nil {
			return err
		}
		if *layout != "" {
			return a.printOne(*layout, v)
		}
		fmt.Fprintf(a.Out, "%s@%s\n", v.Ref, v.Digest)
		for _, s := range v.Signed {
			by := "key " + s.Key
			if s.Account != "" {
				by = "account " + s.Account
			}
			fmt.Fprintf(a.Out, "Signed as %s by %s\n", s.Reference, by)
		}
		if len(v.Signed) == 0 {
			fmt.Fprintf(a.Out, "Accepted without a signature: the policy's scope %q asks for none\n", v.Scope)
		}
		return nil
	}
	return c
}

func (a *App) imageSignCommand() *cobra.Command {
	c := &cobra.Command{Use: "sign --key FILE [OPTIONS] IMAGE", Args: exactly(1),
		Long: "Sign an image in its registry, as cosign does, with a private key in PEM that no\npassphrase protects. The key stays with this command."}
	f := c.Flags()
	key := f.String("key", "", "File of the private key")
	identity := f.String("sign-identity", "", "Reference to sign for, if not the image's own")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if *key == "" {
			return errors.New("--key is needed: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 makes one, openssl pkey -pubout its public half")
		}
		raw, err := os.ReadFile(*key)
		if err != nil {
			return err
		}
		private, err := trust.ParsePrivateKey(raw)
		if err != nil {
			return fmt.Errorf("%s: %w", *key, err)
		}
		reference := *identity
		if reference == "" {
			name, tag, digest := splitName(withTag(args[0]))
			if reference = fullName(name); digest == "" {
				reference += ":" + tag
			}
		}
		api, err := a.client()
		if err != nil {
			return err
		}
		auth := a.auth(cmd.Context(), args[0])
		digest, err := api.ImageDigest(cmd.Context(), args[0], auth)
		if err != nil {
			return err
		}
		payload, sig, err := trust.SignDigest(private, digest, reference)
		if err != nil {
			return err
		}
		if err := api.ImageSign(cmd.Context(), args[0], digest, payload, sig, auth); err != nil {
			return err
		}
		fmt.Fprintf(a.Out, "Signed %s as %s by key %s\n", digest, reference, private.Public().Fingerprint())
		return nil
	}
	return c
}

// rule is a requirement of the policy, as far as it is shown and set here.
type rule struct {
	Type                string    `json:"type"`
	KeyType             string    `json:"keyType,omitempty"`
	KeyPath             string    `json:"keyPath,omitempty"`
	KeyPaths            []string  `json:"keyPaths,omitempty"`
	KeyData             []byte    `json:"keyData,omitempty"`
	KeyDatas            [][]byte  `json:"keyDatas,omitempty"`
	Fulcio              *account  `json:"fulcio,omitempty"`
	RekorPublicKeyDatas [][]byte  `json:"rekorPublicKeyDatas,omitempty"`
	SignedIdentity      *matching `json:"signedIdentity,omitempty"`
}

type account struct {
	CAData       []byte `json:"caData,omitempty"`
	OIDCIssuer   string `json:"oidcIssuer"`
	SubjectEmail string `json:"subjectEmail"`
}

type matching struct {
	Type string `json:"type"`
}

// by says who must have signed.
func (r rule) by() string {
	var list []string
	for _, p := range append(r.KeyPaths, r.KeyPath) {
		if p != "" {
			list = append(list, p)
		}
	}
	for _, d := range append(r.KeyDatas, r.KeyData) {
		if d == nil {
			continue
		}
		if r.Type == trust.TypeSignedBy {
			list = append(list, "OpenPGP keys")
		} else if k, err := trust.ParsePublicKey(d); err == nil {
			list = append(list, "key "+format.ShortID(k.Fingerprint()))
		} else {
			list = append(list, "a key that can't be read")
		}
	}
	if r.Fulcio != nil {
		list = append(list, r.Fulcio.SubjectEmail+" at "+r.Fulcio.OIDCIssuer)
	}
	return strings.Join(list, " or ")
}

func (a *App) trustShowCommand() *cobra.Command {
	c := &cobra.Command{Use: "show [OPTIONS]", Args: noArgs,
		Long: "Show the policy: for each scope what its images must meet. The most specific scope\ncounts: a reference, a repository, what is above it, a registry, \"*.domain\", all."}
	raw := c.Flags().Bool("raw", false, "Show the policy as it is written")
	layout := c.Flags().String("format", "", formatUsage)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		_, policy, err := api.TrustPolicy(cmd.Context())
		if err != nil {
			return err
		}
		if policy == nil {
			policy = json.RawMessage(`{"default":[{"type":"insecureAcceptAnything"}]}`)
		}
		if *raw {
			var b bytes.Buffer
			if err := json.Indent(&b, policy, "", "  "); err != nil {
				return err
			}
			_, err := fmt.Fprintln(a.Out, b.String())
			return err
		}
		rows, err := trustRows(policy)
		if err != nil {
			return err
		}
		shape := *layout
		if shape == "" || shape == "table" {
			shape = format.TrustTable
		}
		return format.Write(a.Out, shape, format.TrustHeader, rows)
	}
	return c
}

func trustRows(policy []byte) ([]format.Trust, error) {
	var p struct {
		Default    []rule
		Transports map[string]map[string][]rule
	}
	if err := json.Unmarshal(policy, &p); err != nil {
		return nil, fmt.Errorf("the policy: %w", err)
	}
	var rows []format.Trust
	add := func(scope string, rules []rule) {
		for _, r := range rules {
			match := ""
			if r.SignedIdentity != nil {
				match = r.SignedIdentity.Type
			}
			rows = append(rows, format.Trust{Scope: scope, Type: r.Type, SignedBy: r.by(), Identity: match})
		}
	}
	add("default", p.Default)
	var scopes []string
	for s := range p.Transports["docker"] {
		scopes = append(scopes, s)
	}
	slices.Sort(scopes)
	for _, s := range scopes {
		add(s, p.Transports["docker"][s])
	}
	return rows, nil
}

func (a *App) trustSetCommand() *cobra.Command {
	c := &cobra.Command{Use: "set [OPTIONS] SCOPE", Args: exactly(1),
		Long: "Set what images of a scope must meet: a registry, a repository, what is above it, a\nreference, \"*.domain\", \"\" for all registries, or \"default\"."}
	f := c.Flags()
	kind := f.StringP("type", "t", "sigstoreSigned", "accept, reject, sigstoreSigned (as cosign signs) or signedBy (as gpg does)")
	keys := list(f, "pubkeysfile", "f", "file", "File of a public key; any of several may have signed")
	identity := f.String("identity", "", "How the reference in the signature must match (matchRepoDigestOrExact, matchExact, matchRepository)")
	ca := f.String("fulcio-ca", "", "File of the certificates that certificates of accounts are issued by")
	issuer := f.String("fulcio-oidc-issuer", "", "Who vouches for the account that must have signed")
	email := f.String("fulcio-email", "", "The account that must have signed")
	rekor := list(f, "rekor-key", "", "file", "File of a log's key: the log must know the signature")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		r := rule{Type: *kind}
		switch *kind {
		case "accept":
			r.Type = trust.TypeAccept
		case "reject", trust.TypeAccept:
		case trust.TypeSigstore, trust.TypeSignedBy:
			if *identity != "" {
				r.SignedIdentity = &matching{*identity}
			}
		default:
			return fmt.Errorf("--type %s: there are accept, reject, sigstoreSigned and signedBy", *kind)
		}
		var err error
		if r.KeyDatas, err = readFiles(keys.Values); err != nil {
			return err
		}
		if *kind == trust.TypeSignedBy {
			// What gpg exports may be put one after the other.
			r.KeyType, r.KeyData, r.KeyDatas = "GPGKeys", bytes.Join(r.KeyDatas, nil), nil
		}
		if r.RekorPublicKeyDatas, err = readFiles(rekor.Values); err != nil {
			return err
		}
		if *ca != "" {
			raw, err := os.ReadFile(*ca)
			if err != nil {
				return err
			}
			r.Fulcio = &account{CAData: raw, OIDCIssuer: *issuer, SubjectEmail: *email}
		}
		for _, k := range append(slices.Clone(r.KeyDatas), r.RekorPublicKeyDatas...) {
			if _, err := trust.ParsePublicKey(k); err != nil {
				return fmt.Errorf("a key: %w", err)
			}
		}
		api, err := a.client()
		if err != nil {
			return err
		}
		return api.TrustSet(cmd.Context(), args[0], []rule{r})
	}
	return c
}

func readFiles(names []string) ([][]byte, error) {
	var out [][]byte
	for _, n := range names {
		raw, err := os.ReadFile(n)
		if err != nil {
			return nil, err
		}
		out = append(out, raw)
	}
	return out, nil
}

func (a *App) trustRmCommand() *cobra.Command {
	c := &cobra.Command{Use: "rm SCOPE [SCOPE...]", Args: atLeast(1)}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		return a.each(args, func(scope string) (string, error) { return scope, api.TrustSet(cmd.Context(), scope, nil) })
	}
	return c
}
