package log

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
)

// Role is what an API key may do.
type Role string

// Roles, each allowed only what it says.
const (
	RoleWriter Role = "writer" // append to its log; of what is in it, only the tiles, which hold no content
	RoleReader Role = "reader" // read its log: events, proofs, checkpoints, tiles
	RoleAdmin  Role = "admin"  // server-wide: make logs and keys, append to and read every log
)

// ParseRole returns the role of that name.
func ParseRole(s string) (Role, error) {
	switch r := Role(s); r {
	case RoleWriter, RoleReader, RoleAdmin:
		return r, nil
	}
	return "", fmt.Errorf("role %q is not one of writer, reader, admin", s)
}

// Key is an API key as a store keeps it: without the secret, of which only a hash exists.
type Key struct {
	ID        string // public: 12 base62 characters
	Hash      [32]byte
	Role      Role
	Log       ID // 0 for a server-wide key
	Name      string
	CreatedAt int64 // µs since 1970 UTC
}

const (
	keyPrefix      = "tl_"
	keyIDLen       = 12
	keySecretLen   = 32
	keyChecksumLen = 6
	keyLen         = len(keyPrefix) + keyIDLen + 1 + keySecretLen + 1 + keyChecksumLen
	base62         = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// ErrKeyFormat means that a text is not an API key: mistyped, cut off, or something else altogether.
var ErrKeyFormat = errors.New("not an API key (tl_<id>_<secret>_<checksum>)")

// NewKey makes an API key and returns it with its text, tl_<id>_<secret>_<checksum>, which is kept nowhere: 12, 32 and 6
// characters of base62, the secret 190 bits of them from the system's random source.
func NewKey(role Role, log ID, name string, now int64) (Key, string) {
	id, secret := randomBase62(keyIDLen), randomBase62(keySecretLen)
	text := keyPrefix + id + "_" + secret
	text += "_" + keyChecksum(text)
	return Key{ID: id, Hash: sha256.Sum256([]byte(text)), Role: role, Log: log, Name: name, CreatedAt: now}, text
}

// ParseKey returns the public id in the text of an API key, after checking its form and checksum. It says nothing about
// whether such a key exists.
func ParseKey(text string) (id string, err error) {
	if id = KeyID(text); id == "" || !strings.HasPrefix(text, keyPrefix) {
		return "", ErrKeyFormat
	}
	body, checksum := text[:keyLen-keyChecksumLen-1], text[keyLen-keyChecksumLen:]
	secret := body[len(body)-keySecretLen:]
	if text[len(keyPrefix)+keyIDLen] != '_' || text[len(body)] != '_' || !isBase62(id) || !isBase62(secret) ||
		keyChecksum(body) != checksum {
		return "", ErrKeyFormat
	}
	return id, nil
}

// KeyID returns what would be the public id in the text of an API key, "" if the text has another length.
func KeyID(text string) string {
	if len(text) != keyLen {
		return ""
	}
	return text[len(keyPrefix):][:keyIDLen]
}

// Matches reports, in constant time, whether text is this key.
func (k Key) Matches(text string) bool {
	h := sha256.Sum256([]byte(text))
	return subtle.ConstantTimeCompare(h[:], k.Hash[:]) == 1
}

// keyChecksum is the CRC-32 (IEEE) of a key up to its last underscore, in six base62 digits: enough to tell a typing
// mistake, or a chance match of a secret scanner, without asking a server.
func keyChecksum(body string) string {
	var out [keyChecksumLen]byte
	n := crc32.ChecksumIEEE([]byte(body))
	for i := len(out) - 1; i >= 0; i-- {
		out[i] = base62[n%62]
		n /= 62
	}
	return string(out[:])
}

func randomBase62(n int) string {
	out := make([]byte, 0, n)
	var buf [64]byte
	for len(out) < n {
		rand.Read(buf[:]) // never fails: crypto/rand ends the program instead
		for _, b := range buf {
			if b < 62*4 && len(out) < n { // no modulo bias
				out = append(out, base62[b%62])
			}
		}
	}
	return string(out)
}

func isBase62(s string) bool {
	for i := 0; i < len(s); i++ {
		if strings.IndexByte(base62, s[i]) < 0 {
			return false
		}
	}
	return true
}
