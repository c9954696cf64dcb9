package simplesign

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// open gives what an OpenPGP message says, of at most max bytes, and the fingerprint of
// the primary key of who signed it: one of those in keys, each a file of public
// keys as gpg exports them, armoured or not. The signature is valid now: made
// by a key that had not ended or been revoked, and not itself at its end.
func open(keys [][]byte, message []byte, max int64) (payload []byte, fingerprint string, err error) {
	var ring openpgp.EntityList
	for _, raw := range keys {
		list, err := readKeys(raw)
		if err != nil {
			return nil, "", fmt.Errorf("OpenPGP key: %w", err)
		}
		ring = append(ring, list...)
	}
	md, err := openpgp.ReadMessage(bytes.NewReader(message), ring, nil, &packet.Config{Time: time.Now})
	if err != nil {
		return nil, "", fmt.Errorf("it is no signed OpenPGP message: %w", err)
	}
	switch {
	case md.IsEncrypted:
		return nil, "", errors.New("the message is encrypted")
	case !md.IsSigned:
		return nil, "", errors.New("the message is not signed")
	case md.SignedBy == nil:
		return nil, "", errors.New("it was made with another key")
	}
	// The signature stands behind what it signs.
	payload, err = io.ReadAll(io.LimitReader(md.UnverifiedBody, max+1))
	if err != nil {
		return nil, "", fmt.Errorf("the message can't be read: %w", err)
	}
	if int64(len(payload)) > max {
		return nil, "", fmt.Errorf("the message is larger than %d bytes", max)
	}
	if md.SignatureError != nil || md.Signature == nil {
		if md.SignatureError == nil {
			md.SignatureError = pgperrors.ErrSignatureExpired
		}
		return nil, "", fmt.Errorf("its signature is not valid: %w", md.SignatureError)
	}
	return payload, fmt.Sprintf("%X", md.SignedBy.Entity.PrimaryKey.Fingerprint), nil
}

// readKeys reads public keys.
func readKeys(raw []byte) (openpgp.EntityList, error) {
	if !bytes.HasPrefix(bytes.TrimSpace(raw), []byte("-----BEGIN ")) {
		return openpgp.ReadKeyRing(bytes.NewReader(raw))
	}
	// A file may hold several blocks, one after the other.
	var out openpgp.EntityList
	for _, part := range bytes.SplitAfter(raw, []byte("-----END "+openpgp.PublicKeyType+"-----")) {
		if len(bytes.TrimSpace(part)) == 0 {
			continue
		}
		block, err := armor.Decode(bytes.NewReader(part))
		if err != nil {
			return nil, err
		}
		if block.Type != openpgp.PublicKeyType {
			return nil, fmt.Errorf("%q where a public key should be", block.Type)
		}
		list, err := openpgp.ReadKeyRing(block.Body)
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	return out, nil
}
