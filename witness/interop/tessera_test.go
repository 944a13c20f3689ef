package interop

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"filippo.io/torchwood"
	"github.com/transparency-dev/tessera"
)

// gateway is what a log takes for its witness: it passes requests on to wherever the witness is now, and knows what was answered.
type gateway struct {
	url      string
	mu       sync.Mutex
	witness  string
	answered map[int]int // how many times, by status
}

func newGateway(t *testing.T, witness string) *gateway {
	g := &gateway{witness: witness, answered: map[int]int{}}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			g.mu.Lock()
			defer g.mu.Unlock()
			to, _ := url.Parse(g.witness)
			r.SetURL(to)
		},
		ModifyResponse: func(resp *http.Response) error {
			g.count(resp.StatusCode)
			return nil
		},
		ErrorHandler: func(rw http.ResponseWriter, _ *http.Request, _ error) {
			g.count(http.StatusBadGateway)
			rw.WriteHeader(http.StatusBadGateway)
		},
	}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	g.url = server.URL
	return g
}

func (g *gateway) count(status int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answered[status]++
}

// answers returns how many requests were answered with a status.
func (g *gateway) answers(status int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.answered[status]
}

func (g *gateway) passTo(witness string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.witness = witness
}

// tesseraLog is a log of Tessera's in a directory. It publishes a checkpoint only if its policy is met, which is Tessera's default.
type tesseraLog struct {
	dir    string
	key    string // file
	policy string // file
}

// adding starts Tessera's program that adds an entry, and ends when a published checkpoint has it.
func (l *tesseraLog) adding(t *testing.T, entry string) *process {
	t.Helper()
	return start(t, "posix-oneshot", "--storage_dir", l.dir, "--private_key", l.key, "--witness_policy_file", l.policy,
		"--witness_timeout", "1m", "--entries", write(t, filepath.Join(t.TempDir(), "entry"), entry))
}

func (l *tesseraLog) add(t *testing.T, entry string) {
	t.Helper()
	p := l.adding(t, entry)
	<-p.exited
	if !p.cmd.ProcessState.Success() {
		t.Fatalf("adding %q: %v", entry, p.cmd.ProcessState)
	}
}

// published returns the published checkpoint.
func (l *tesseraLog) published(t *testing.T) string {
	return contents(t, filepath.Join(l.dir, "checkpoint"))
}

func contents(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// integrated returns what Tessera says of the tree that it has, published or not.
func (l *tesseraLog) integrated(t *testing.T) string {
	t.Helper()
	return contents(t, filepath.Join(l.dir, ".state", "treeState"))
}

// A log of Tessera's has its checkpoints cosigned by our witness, and publishes none without: not while the witness is down, and not
// when it has been set back and grown into another tree. That our witness cosigns with ML-DSA-44, too, doesn't disturb it.
func TestTesseraWitnessedByTreeline(t *testing.T) {
	l := newLog(t, "tessera.example/log")
	dir := t.TempDir()
	w := treelineWitness(t, []*aLog{l}, "--mldsa")
	g := newGateway(t, w.url)
	policy := fmt.Sprintf("log %s\nwitness ours %s %s\nquorum ours\n", l.vkey, w.vkey, g.url)
	log := &tesseraLog{
		dir: filepath.Join(dir, "log"), key: write(t, filepath.Join(dir, "key"), l.skey), policy: write(t, filepath.Join(dir, "policy"), policy),
	}
	accepts, err := torchwood.ParsePolicy([]byte(policy))
	if err != nil {
		t.Fatal(err)
	}
	demanded, err := tessera.NewWitnessGroupFromPolicy([]byte(policy))
	if err != nil {
		t.Fatal(err)
	}
	published := func(size int64) {
		t.Helper()
		c, _, err := torchwood.VerifyCheckpoint([]byte(log.published(t)), accepts)
		if err != nil || c.N != size || !demanded.Satisfied([]byte(log.published(t))) {
			t.Fatalf("published is size %d, %v, want a checkpoint of size %d that the policy accepts:\n%s", c.N, err, size, log.published(t))
		}
	}

	log.add(t, "one")
	published(1)
	log.add(t, "two")
	published(2)
	if got := get(t, w.url+"/"+originHash(l.origin)+"/checkpoint"); got.status != http.StatusOK || !demanded.Satisfied([]byte(got.body)) {
		t.Errorf("the witness shows %v", got)
	}
	old := filepath.Join(dir, "old")
	if err := os.CopyFS(old, os.DirFS(log.dir)); err != nil {
		t.Fatal(err)
	}

	w.kill()
	before := log.published(t)
	third := log.adding(t, "three")
	eventually(t, "Tessera has asked for a cosignature in vain, twice", func() bool { return g.answers(http.StatusBadGateway) >= 2 }, third)
	if !strings.Contains(log.integrated(t), `"size":3`) || log.published(t) != before {
		t.Errorf("without the witness Tessera has %s and publishes\n%s\nwant that of before", log.integrated(t), log.published(t))
	}
	w.restart()
	g.passTo(w.url)
	<-third.exited
	published(3)

	// The log comes back from a copy that was made at size 2, and grows otherwise.
	log.dir = old
	before = log.published(t)
	fork := log.adding(t, "another third")
	eventually(t, "the witness has refused the fork, twice", func() bool { return g.answers(http.StatusUnprocessableEntity) >= 2 }, fork)
	if !strings.Contains(log.integrated(t), `"size":3`) || log.published(t) != before {
		t.Errorf("with another history Tessera has %s and publishes\n%s\nwant that of before", log.integrated(t), log.published(t))
	}
	fork.kill()
}
