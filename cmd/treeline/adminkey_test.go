package main

import (
	"net/http"
	"testing"
)

// Whoever ended the last admin key gets another one by a new start, and nobody else's key is touched.
func TestAStartMakesAnAdminKeyIfNoneIsGood(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := serving(t, dir)
	p.mustPost(t, "/v1/keys", `{"role":"reader"}`, http.StatusCreated, new(any))
	first := p.key
	if res, err := p.call(http.MethodDelete, "/v1/keys/"+first[3:15], nil); err != nil || res.status != http.StatusOK {
		t.Fatalf("revoking the admin key: %+v, %v", res, err)
	}
	if res, err := p.call(http.MethodGet, "/v1/keys", nil); err != nil || res.status != http.StatusUnauthorized {
		t.Errorf("the revoked key: got %+v, %v, want 401", res, err)
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	p = serving(t, dir)
	if p.key == first {
		t.Fatal("the server was started with the revoked key")
	}
	var keys struct {
		Data []struct{ Role, State string }
	}
	p.mustGetJSON(t, "/v1/keys", &keys)
	if len(keys.Data) != 3 || keys.Data[0].State != "revoked" || keys.Data[1].State != "active" || keys.Data[2].State != "active" {
		t.Errorf("keys: got %+v", keys.Data)
	}
}
