package trust

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// maxBundle bounds a log's statement, in bytes.
const maxBundle = 1 << 20

// logged checks that a log (Rekor) whose key is one of keys has promised to
// hold the signature, made by the given key or certificate (DER), and returns
// when that was. The log itself is not asked.
func logged(bundle []byte, keys []*PublicKey, s Signature, signer []byte) (time.Time, error) {
	var none time.Time
	if len(bundle) == 0 {
		return none, errors.New("it has no entry of a log")
	}
	if len(bundle) > maxBundle {
		return none, fmt.Errorf("the log's entry is larger than %d bytes", maxBundle)
	}
	top, err := object(bundle, "SignedEntryTimestamp", "Payload")
	if err != nil {
		return none, fmt.Errorf("the log's entry: %w", err)
	}
	if _, err := object(top["Payload"], "body", "integratedTime", "logIndex", "logID"); err != nil {
		return none, fmt.Errorf("the log's entry: %w", err)
	}
	// The order of the fields is that of RFC 8785, in which they are signed.
	var entry struct {
		Body           string `json:"body"`
		IntegratedTime int64  `json:"integratedTime"`
		LogID          string `json:"logID"`
		LogIndex       int64  `json:"logIndex"`
	}
	var promise []byte
	if err := json.Unmarshal(top["Payload"], &entry); err != nil {
		return none, errors.New("the log's entry is not one")
	}
	if err := json.Unmarshal(top["SignedEntryTimestamp"], &promise); err != nil {
		return none, errors.New("the log's entry is not signed")
	}
	canonical, err := canonicalJSON(entry)
	if err != nil {
		return none, err
	}
	known := false
	for _, k := range keys {
		id := sha256.Sum256(k.der())
		known = known || entry.LogID == hex.EncodeToString(id[:]) && k.verify(canonical, promise)
	}
	if !known {
		return none, errors.New("no log that is trusted has signed its entry")
	}
	body, err := base64.StdEncoding.DecodeString(entry.Body)
	if err != nil {
		return none, errors.New("the log's entry has no body")
	}
	if err := sameEntry(body, s, signer); err != nil {
		return none, err
	}
	return time.Unix(entry.IntegratedTime, 0), nil
}

func canonicalJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// sameEntry tells whether an entry (kind hashedrekord) is of this signature.
func sameEntry(body []byte, s Signature, signer []byte) error {
	o, err := object(body, "apiVersion", "kind", "spec")
	if err != nil {
		return fmt.Errorf("the log's entry: %w", err)
	}
	kind, _ := text(o, "kind")
	version, _ := text(o, "apiVersion")
	if kind != "hashedrekord" || version != "0.0.1" {
		return fmt.Errorf("the log's entry is of kind %q %q, not hashedrekord 0.0.1", clip(kind), clip(version))
	}
	spec, err := object(o["spec"], "data", "signature")
	if err != nil {
		return fmt.Errorf("the log's entry: %w", err)
	}
	var data struct {
		Hash struct{ Algorithm, Value string }
	}
	var sig struct {
		Content   []byte
		PublicKey struct{ Content []byte }
	}
	if err := json.Unmarshal(spec["data"], &data); err != nil {
		return errors.New("the log's entry has no hash")
	}
	if err := json.Unmarshal(spec["signature"], &sig); err != nil {
		return errors.New("the log's entry has no signature")
	}
	sum := sha256.Sum256(s.Payload)
	if data.Hash.Algorithm != "sha256" || data.Hash.Value != hex.EncodeToString(sum[:]) {
		return errors.New("the log's entry is of another payload")
	}
	if !bytes.Equal(sig.Content, s.Signature) {
		return errors.New("the log's entry is of another signature")
	}
	b, err := onePEM(sig.PublicKey.Content)
	if err != nil {
		return fmt.Errorf("the log's entry: its key: %w", err)
	}
	der := b.Bytes
	if b.Type == "PUBLIC KEY" {
		// In the form that keys are compared in.
		if key, err := x509.ParsePKIXPublicKey(der); err == nil {
			if k, err := newPublicKey(key); err == nil {
				der = k.der()
			}
		}
	}
	if !bytes.Equal(der, signer) {
		return errors.New("the log's entry is of another key")
	}
	return nil
}
