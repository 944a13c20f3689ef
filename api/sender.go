package api

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// senderOf returns the address that a request comes from: the connection's, or behind proxies that are trusted the right-most one
// in X-Forwarded-For that is none of theirs, since each proxy adds on the right what it saw and what is further left anybody may have
// written. It is the zero address, which is in no network, where that can't be told.
func (s *Server) senderOf(r *http.Request) netip.Addr {
	sender := parseSender(r.RemoteAddr)
	forwarded := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, text := range slices.Backward(forwarded) {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		if !s.trusts(sender) {
			break
		}
		sender = parseSender(text)
	}
	return sender
}

func (s *Server) trusts(addr netip.Addr) bool {
	return slices.ContainsFunc(s.proxies, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// parseSender returns the address in a text that has it alone or, as some proxies write it, with a port.
func parseSender(text string) netip.Addr {
	if withPort, err := netip.ParseAddrPort(text); err == nil {
		return withPort.Addr().Unmap().WithZone("")
	}
	addr, err := netip.ParseAddr(strings.Trim(text, "[]"))
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap().WithZone("")
}
