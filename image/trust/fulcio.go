package trust

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"
)

// fulcio is an authority whose certificates say which account at which
// provider of identities has signed.
type fulcio struct {
	ca     source
	issuer string
	email  string
}

func parseFulcio(raw []byte) (*fulcio, error) {
	o, err := object(raw, "caPath", "caData", "oidcIssuer", "subjectEmail")
	if err != nil {
		return nil, err
	}
	f := &fulcio{}
	list, err := sources(o, "ca")
	if err != nil {
		return nil, err
	}
	if len(list) != 1 {
		return nil, errors.New("one of caPath and caData must be there")
	}
	f.ca = list[0]
	if f.issuer, err = text(o, "oidcIssuer"); err == nil {
		f.email, err = text(o, "subjectEmail")
	}
	if err == nil && (f.issuer == "" || f.email == "") {
		err = errors.New("oidcIssuer and subjectEmail must be there")
	}
	return f, err
}

// What Fulcio notes the issuer under: as raw text, and as an ASN.1 string.
var (
	oidIssuer   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}
	oidIssuerV2 = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}
)

// maxChain bounds the certificates that a signature brings along.
const maxChain = 8

// leaf reads a signature's certificate.
func leaf(raw []byte) (*x509.Certificate, error) {
	if len(raw) == 0 {
		return nil, errors.New("it has no certificate")
	}
	b, err := onePEM(raw)
	if err != nil {
		return nil, fmt.Errorf("its certificate: %w", err)
	}
	if b.Type != "CERTIFICATE" {
		return nil, errors.New("its certificate is none")
	}
	cert, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		return nil, fmt.Errorf("its certificate: %w", err)
	}
	return cert, nil
}

// key checks a certificate as of the time when it was used, and gives its key.
func (f *fulcio) key(roots []byte, cert *x509.Certificate, chain []byte, at time.Time) (*PublicKey, error) {
	o := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	if !o.Roots.AppendCertsFromPEM(roots) {
		return nil, errors.New("fulcio's CA holds no certificate")
	}
	for n := 0; ; n++ {
		var b *pem.Block
		if b, chain = pem.Decode(chain); b == nil {
			break
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil || n == maxChain {
			return nil, errors.New("its certificate's chain is none")
		}
		o.Intermediates.AddCert(c)
	}
	if _, err := cert.Verify(o); err != nil {
		return nil, fmt.Errorf("its certificate: %w", err)
	}
	if err := f.issuedBy(cert); err != nil {
		return nil, err
	}
	if !slices.Contains(cert.EmailAddresses, f.email) {
		return nil, fmt.Errorf("it was signed by %s, not by %s", clip(subject(cert)), f.email)
	}
	return newPublicKey(cert.PublicKey)
}

// subject is who a certificate says it is of.
func subject(cert *x509.Certificate) string {
	if len(cert.EmailAddresses) > 0 {
		return cert.EmailAddresses[0]
	}
	if len(cert.URIs) > 0 {
		return cert.URIs[0].String()
	}
	return "nobody by name"
}

// issuedBy checks who vouched for the account. All that the certificate says of
// it must agree.
func (f *fulcio) issuedBy(cert *x509.Certificate) error {
	found := false
	for _, e := range cert.Extensions {
		var issuer string
		switch {
		case e.Id.Equal(oidIssuer):
			issuer = string(e.Value)
		case e.Id.Equal(oidIssuerV2):
			if rest, err := asn1.UnmarshalWithParams(e.Value, &issuer, "utf8"); err != nil || len(rest) > 0 {
				return errors.New("its certificate's issuer is no text")
			}
		default:
			continue
		}
		if issuer != f.issuer {
			return fmt.Errorf("it was signed by an account of %s, not of %s", clip(issuer), f.issuer)
		}
		found = true
	}
	if !found {
		return errors.New("its certificate does not say whose account signed")
	}
	return nil
}
