package log

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Limits of what restricts a key.
const (
	MaxNetworks = 20
	MaxActions  = 20
)

// ParseNetworks returns, in the form in which a Key has them, the networks from which it may be used: address prefixes (CIDR) or
// single addresses.
func ParseNetworks(texts []string) (string, error) {
	if len(texts) > MaxNetworks {
		return "", fmt.Errorf("%d networks, want at most %d", len(texts), MaxNetworks)
	}
	var out []string
	for _, text := range texts {
		p, err := ParseNetwork(text)
		if err != nil {
			return "", err
		}
		out = append(out, p.String())
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), " "), nil
}

// ParseNetwork returns an address prefix (CIDR), or the one of a single address.
func ParseNetwork(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if addr, addrErr := netip.ParseAddr(text); err != nil && addrErr == nil && addr.Zone() == "" {
		p, err = netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	if err != nil || p.Addr().Is4In6() {
		return p, fmt.Errorf("%q is neither an address prefix, such as 192.0.2.0/24 or 2001:db8::/32, nor an address", text)
	}
	if p != p.Masked() {
		return p, fmt.Errorf("%q has bits behind its prefix: want %s", text, p.Masked())
	}
	return p, nil
}

// MayComeFrom reports whether the key may be used from an address.
func (k Key) MayComeFrom(addr netip.Addr) bool {
	if k.Networks == "" {
		return true
	}
	for text := range strings.FieldsSeq(k.Networks) {
		if p, err := netip.ParsePrefix(text); err == nil && p.Contains(addr) {
			return true
		}
	}
	return false
}

// ParseActions returns, in the form in which a Key has them, what a writer may append: actions, or with a * at the end all that begin
// with what is before it, as in a Filter.
func ParseActions(texts []string) (string, error) {
	if len(texts) > MaxActions {
		return "", fmt.Errorf("%d actions, want at most %d", len(texts), MaxActions)
	}
	var out []string
	for _, text := range texts {
		begin := strings.TrimSuffix(text, "*")
		if _, err := NormalText("/action", begin); err != nil {
			return "", fmt.Errorf("%q is neither an action nor the beginning of one with * after it", text)
		}
		out = append(out, text)
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), " "), nil
}

// MayAppend reports whether the key may append an event with an action, if it may append any.
func (k Key) MayAppend(action string) bool {
	if k.Actions == "" {
		return true
	}
	for allowed := range strings.FieldsSeq(k.Actions) {
		if begin, star := strings.CutSuffix(allowed, "*"); allowed == action || star && strings.HasPrefix(action, begin) {
			return true
		}
	}
	return false
}
