package checkpoint

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// maxOrigin is the length in bytes to which an origin is limited: an ML-DSA-44
// cosignature can't name a log with a longer one (C2SP tlog-cosignature).
const maxOrigin = 255

// CheckOrigin returns an error unless origin can name a log of this server:
//
//	<host>/logs/<name>
//
// It is the log's public URL without its scheme, at most 255 bytes, all in lower
// case. The host is a domain name or an IPv4 address, with a port if it isn't the
// scheme's own; the name is a letter or digit followed by up to 62 letters, digits
// and hyphens. So there are no spaces and no '+', which would end the name in a
// note's signature lines and in verifier keys.
//
// Whether a name is reserved, and whether it was used before, is for whoever makes
// logs to decide. An origin must never be used twice, not even after the log is
// gone: to a witness the second log is a fork of the first.
func CheckOrigin(origin string) error {
	if len(origin) > maxOrigin {
		return fmt.Errorf("origin %.60q… has %d bytes, want <= %d", origin, len(origin), maxOrigin)
	}
	host, name, ok := strings.Cut(origin, "/logs/")
	if !ok {
		return fmt.Errorf("origin %q is not of the form <host>/logs/<name>", origin)
	}
	if err := checkHost(host); err != nil {
		return fmt.Errorf("host of origin %q: %w", origin, err)
	}
	if err := checkLabel(name); err != nil {
		return fmt.Errorf("log name of origin %q: %w", origin, err)
	}
	return nil
}

// checkHost checks a domain name or IPv4 address with an optional port.
func checkHost(host string) error {
	host, port, hasPort := strings.Cut(host, ":")
	for label := range strings.SplitSeq(host, ".") {
		if err := checkLabel(label); err != nil {
			return err
		}
		if strings.HasSuffix(label, "-") {
			return fmt.Errorf("%q ends in a hyphen", label)
		}
	}
	if hasPort {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
			return fmt.Errorf("port %.10q, want 1 to 65535", port)
		}
	}
	return nil
}

// checkLabel checks for [a-z0-9][a-z0-9-]{0,62}, which log names share with the
// labels of domain names.
func checkLabel(s string) error {
	if s == "" {
		return errors.New("an empty part")
	}
	if len(s) > 63 {
		return fmt.Errorf("a part of %d bytes, want <= 63", len(s))
	}
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' && i > 0) {
			return fmt.Errorf("%q at byte %d of %q, want a-z, 0-9 or, not at the start, a hyphen", rune(c), i, s)
		}
	}
	return nil
}

// OriginHash returns the lower-case hexadecimal SHA-256 of a log's origin, of any log. It stands for the origin where that
// may have too many characters or wrong ones: in the paths of witnesses (C2SP tlog-witness) and in names of files.
func OriginHash(origin string) string {
	h := sha256.Sum256([]byte(origin))
	return hex.EncodeToString(h[:])
}
