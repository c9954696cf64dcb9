package server

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// Users are those of a file as `htpasswd -B` writes it: a line "user:hash" each, the hash bcrypt's. The file is read
// again when it changes.
type Users struct {
	path string

	trying sync.Mutex // one password is tried at a time, as each costs a processor much

	mu     sync.Mutex
	seen   time.Time // the file's time
	size   int64
	hashes map[string][]byte
	salt   [32]byte
	good   map[[32]byte]struct{} // salted digests of what was right once
}

// maxGood bounds the right passwords that are remembered.
const maxGood = 1000

// OpenUsers reads an htpasswd file.
func OpenUsers(path string) (*Users, error) {
	u := &Users{path: path}
	rand.Read(u.salt[:])
	u.mu.Lock()
	defer u.mu.Unlock()
	return u, u.read()
}

func (u *Users) read() error {
	fi, err := os.Stat(u.path)
	if err != nil {
		return err
	}
	if fi.ModTime().Equal(u.seen) && fi.Size() == u.size {
		return nil
	}
	f, err := os.Open(u.path)
	if err != nil {
		return err
	}
	defer f.Close()
	hashes := map[string][]byte{}
	s := bufio.NewScanner(f)
	for n := 1; s.Scan(); n++ {
		line := strings.TrimSpace(s.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		user, hash, ok := strings.Cut(line, ":")
		if _, err := bcrypt.Cost([]byte(hash)); !ok || user == "" || err != nil {
			return fmt.Errorf("%s: line %d is not user:hash with a hash of bcrypt's: make it by htpasswd -B", u.path, n)
		}
		hashes[user] = []byte(hash)
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("%s: %w", u.path, err)
	}
	u.seen, u.size, u.hashes, u.good = fi.ModTime(), fi.Size(), hashes, map[[32]byte]struct{}{}
	return nil
}

// nobody is the hash that the passwords of unknown users are held against, so that the time tells no names.
var nobody = sync.OnceValue(func() []byte {
	h, _ := bcrypt.GenerateFromPassword([]byte("nobody"), bcrypt.DefaultCost)
	return h
})

// Check tells whether a password is the user's. A file that can't be read any more lets nobody in. Who was right before
// does not wait for others who guess.
func (u *Users) Check(user, password string) bool {
	key := sha256.Sum256([]byte(string(u.salt[:]) + user + "\x00" + password))
	hash, known, good := u.look(user, key)
	if good {
		return true
	}
	u.trying.Lock()
	ok := bcrypt.CompareHashAndPassword(hash, []byte(password)) == nil && known
	u.trying.Unlock()
	if !ok {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if !bytes.Equal(u.hashes[user], hash) {
		return false // the file has changed meanwhile
	}
	if len(u.good) >= maxGood {
		clear(u.good)
	}
	u.good[key] = struct{}{}
	return true
}

// look finds a user's hash, and whether what the key stands for was right before.
func (u *Users) look(user string, key [32]byte) (hash []byte, known, good bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.read() != nil {
		return nobody(), false, false
	}
	if _, good = u.good[key]; good {
		return nil, true, true
	}
	if hash, known = u.hashes[user]; !known {
		hash = nobody()
	}
	return hash, known, false
}
