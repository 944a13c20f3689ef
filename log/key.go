package log

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
)

// Role is what an API key may do.
type Role string

// Roles, each allowed only what it says. All but admin are for one log.
const (
	RoleWriter   Role = "writer"   // append; of what is in the log, only the tiles, which hold no content
	RoleReader   Role = "reader"   // read events, proofs, checkpoints, tiles
	RoleExporter Role = "exporter" // what a reader may, and export
	RoleAuditor  Role = "auditor"  // what an exporter may, have the log verified, and see who read it
	RoleManager  Role = "manager"  // what an auditor may, and set up the log and its keys, but for other managers'
	RoleAdmin    Role = "admin"    // server-wide: everything, in every log
)

// Roles are all roles, from the one that may do least to the one that may do most.
var Roles = []Role{RoleWriter, RoleReader, RoleExporter, RoleAuditor, RoleManager, RoleAdmin}

// ParseRole returns the role of that name.
func ParseRole(s string) (Role, error) {
	if slices.Contains(Roles, Role(s)) {
		return Role(s), nil
	}
	names := fmt.Sprintf("%q", Roles)
	return "", fmt.Errorf("role %q is not one of %s", s, strings.Trim(strings.ReplaceAll(names, `"`, ""), "[]"))
}

// Key is an API key as a store keeps it: without the secret, of which only a hash exists. Times are in µs since 1970 UTC, and 0
// where there is none.
type Key struct {
	ID        string // public: 12 base62 characters
	Hash      [32]byte
	Role      Role
	Log       ID // 0 for a server-wide key
	Name      string
	CreatedAt int64
	CreatedBy string // public id of the key that made it, also over rotation; "": the server or a command
	Networks  string // from where it may be used, see ParseNetworks; "": from anywhere
	Actions   string // what a writer may append, see ParseActions; "": any event
	Rates     Rates
	// The rest changes, see Store.ChangeKey and Store.UseKeys.
	ExpiresAt  int64
	RevokedAt  int64
	ReplacedBy string // public id of the key that was made to follow it
	LastUsedAt int64  // to about a minute
}

// Rates are how much is taken in a second, on average. 0 is no limit of its own.
type Rates struct {
	Events   int
	Requests int
}

// Errors of a key that was good once.
var (
	ErrKeyRevoked = errors.New("this API key was revoked")
	ErrKeyExpired = errors.New("this API key has expired")
)

// Ended returns why the key isn't good any more at a time, or nil.
func (k Key) Ended(now int64) error {
	switch {
	case k.RevokedAt != 0: // whatever the time: a clock that is behind, or set back, brings no key back to life
		return fmt.Errorf("%w at %s", ErrKeyRevoked, AppendTime(nil, k.RevokedAt))
	case k.ExpiresAt != 0 && k.ExpiresAt <= now:
		return fmt.Errorf("%w at %s", ErrKeyExpired, AppendTime(nil, k.ExpiresAt))
	}
	return nil
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

// NewKey makes an API key without any restriction but its role's, and returns it with its text, see Key.fresh.
func NewKey(role Role, log ID, name string, now int64) (Key, string) {
	return Key{Role: role, Log: log, Name: name}.fresh(now)
}

// fresh returns a new key that may do what k may, and its text, tl_<id>_<secret>_<checksum>, which is kept nowhere: 12, 32 and 6
// characters of base62, the secret 190 bits of them from the system's random source.
func (k Key) fresh(now int64) (Key, string) {
	id, secret := randomBase62(keyIDLen), randomBase62(keySecretLen)
	text := keyPrefix + id + "_" + secret
	text += "_" + keyChecksum(text)
	k.ID, k.Hash, k.CreatedAt = id, sha256.Sum256([]byte(text)), now
	k.RevokedAt, k.ReplacedBy, k.LastUsedAt = 0, "", 0
	return k, text
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

// IsKeyID reports whether a text can be the public id of an API key.
func IsKeyID(text string) bool { return len(text) == keyIDLen && isBase62(text) }

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
