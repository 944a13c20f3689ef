package interop

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/tlog"
)

// The hub of our server is cosigned by witnesses that are not ours, as any log is: by litewitness, which is told of it, and by
// omniwitness, which polls our server's list of logs at its URL. What torchwood then accepts under the hub's policy is the hub's
// checkpoint and the second part of a hub proof.
func TestTheHubIsWitnessed(t *testing.T) {
	flags := []string{"--hub", "--hub-public", "--witness-interval", "50ms"}
	dir, logs := newServer(t, flags...)
	s := serve(t, dir, flags...)
	var head struct {
		Origin string
		VKeys  []string
	}
	s.call(t, http.MethodGet, "/v1/checkpoint?log=hub", "", http.StatusOK, &head)
	hub := &aLog{t: t, origin: head.Origin, vkey: head.VKeys[0]}
	if list := get(t, s.url+"/witness/logs"); !strings.Contains(list.body, "\nvkey "+hub.vkey+"\n") || strings.Contains(list.body, "/logs/default+") {
		t.Fatalf("the list for witnesses: %v, want the hub in it, and no private log", list)
	}
	lite := startLitewitness(t, hub)
	omni := omniwitness(t, nil, "--public_witness_config_url", s.url+"/witness/logs", "--logtostderr")
	eventually(t, "omniwitness has read our list", func() bool {
		return strings.Contains(omni.output.String(), "Successfully merged public witness config")
	}, omni.process)
	s.stop(t)

	policy := fmt.Sprintf("log %s\nwitness lite %s %s\nwitness omni %s %s\ngroup both all lite omni\nquorum both\n",
		hub.vkey, lite.vkey, lite.url, omni.vkey, omni.url)
	file := write(t, filepath.Join(t.TempDir(), "policy"), policy)
	s = serve(t, dir, append(flags, "--policy", file)...)
	s.append(t, 0, 1, "witnessed")
	ids := s.append(t, 1, 40, "witnessed")

	signed := get(t, s.url+"/logs/hub/checkpoint").body
	size, err := strconv.ParseInt(strings.Split(signed, "\n")[1], 10, 64)
	if err != nil || size < 2 {
		t.Fatalf("the hub's public checkpoint: %v\n%s", err, signed)
	}
	acceptsCheckpoint(t, policy, signed, size)
	proof := s.call(t, http.MethodGet, "/v1/events/"+ids[len(ids)-1]+"/proof?hub=true&log="+theLog, "", http.StatusOK, nil).body
	_, entry := hubProof(t, proof)
	p, err := torchwood.ParsePolicy([]byte(policy))
	if err != nil {
		t.Fatal(err)
	}
	extra, err := torchwood.ProofExtraData([]byte(entry))
	if err != nil || len(extra) != 73 || extra[0] != 0x02 {
		t.Fatalf("the hub's entry: %x, %v", extra, err)
	}
	if err := torchwood.VerifyProof(p, tlog.RecordHash(extra), []byte(entry)); err != nil {
		t.Errorf("torchwood refuses the proof of the hub's entry: %v\n%s", err, entry)
	}
	for what, tampered := range tamper(t, entry) {
		if err := torchwood.VerifyProof(p, tlog.RecordHash(extra), []byte(tampered)); err == nil {
			t.Errorf("torchwood accepts the proof of the hub's entry with %s", what)
		}
	}
	out, code := run(t, "treeline", "verify", "--vkey", logs[0].vkey, "--policy", file, write(t, filepath.Join(t.TempDir(), "event.hub-proof"), proof))
	if code != 0 || !strings.Contains(out, "hub-witnessed") {
		t.Errorf("treeline verify: exit code %d, want it hub-witnessed\n%s", code, out)
	}
}

// hubProof returns the two parts of a hub proof: a line that says what it is, the length of the first, and both.
func hubProof(t *testing.T, proof string) (event, entry string) {
	t.Helper()
	rest, ok := strings.CutPrefix(proof, "treeline/hub-proof@v1\n")
	digits, rest, _ := strings.Cut(rest, "\n")
	n, err := strconv.Atoi(digits)
	if !ok || err != nil || n > len(rest) {
		t.Fatalf("not a hub proof: %v\n%s", err, proof)
	}
	return rest[:n], rest[n:]
}
