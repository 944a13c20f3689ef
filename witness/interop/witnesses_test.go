package interop

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/torchwood"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/mod/sumdb/note"
	_ "modernc.org/sqlite"
)

// A witness is a running program that cosigns checkpoints by C2SP tlog-witness.
type witness struct {
	*process
	name string
	vkey string // of type 0x04
	url  string // prefix of its paths
	// restart starts it after it was killed, with what it has kept, at another url.
	restart func()
}

// witnesses names the programs that are witnesses, and how a test starts one that knows the logs.
var witnesses = map[string]func(t testing.TB, logs ...*aLog) *witness{
	"litewitness": startLitewitness,
	"omniwitness": startOmniwitness,
	"treeline":    startTreeline,
}

// freeAddress returns an address of the loopback where nobody listens. Somebody else may take it before the caller does, who then
// tries again.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// listening starts a program that is told its address, and returns when it answers there.
func listening(t testing.TB, name string, args func(address string) []string) (p *process, url string) {
	t.Helper()
	for range 10 {
		address := freeAddress(t)
		p, url = start(t, name, args(address)...), "http://"+address
		answers := false
		eventually(t, name+" listens or gives up", func() bool {
			resp, err := http.Get(url)
			if err == nil {
				resp.Body.Close()
			}
			answers = err == nil && resp.StatusCode < http.StatusInternalServerError && !p.hasExited()
			return answers || p.hasExited()
		})
		if answers {
			return p, url
		}
		if !strings.Contains(p.output.String(), "address already in use") && !strings.Contains(p.output.String(), "failed to listen") {
			break
		}
	}
	t.Fatalf("%s doesn't start", name)
	return nil, ""
}

// startLitewitness starts a litewitness with a key of its own, which a private ssh-agent holds, and logs as rows of its database.
func startLitewitness(t testing.TB, logs ...*aLog) *witness {
	t.Helper()
	return litewitness(t, ownAgent, logs)
}

func litewitness(t testing.TB, startAgent func(t testing.TB, socket string, key ed25519.PrivateKey), logs []*aLog) *witness {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sshKey, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	sockets, err := os.MkdirTemp("", "agent") // t.TempDir may be longer than the path of a socket can be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	socket, db := filepath.Join(sockets, "s"), filepath.Join(t.TempDir(), "litewitness.db")
	startAgent(t, socket, private)
	w := &witness{name: "lite.example/witness"}
	w.vkey = cosignatureKey(w.name, public)
	w.restart = func() {
		w.process, w.url = listening(t, "litewitness", func(address string) []string {
			return []string{"-name", w.name, "-db", db, "-ssh-agent", socket, "-key", ssh.FingerprintSHA256(sshKey), "-listen", address}
		})
	}
	w.restart()
	// As its witnessctl add-log and add-key do, beside a running litewitness. (That program can't be built here: it needs more modules
	// than there are.)
	for _, l := range logs {
		execute(t, db, `INSERT INTO log (origin, tree_size, tree_hash) VALUES (?, 0, ?)`, l.origin, emptyRoot)
		execute(t, db, `INSERT INTO key (origin, key) VALUES (?, ?)`, l.origin, l.vkey)
	}
	return w
}

var emptyRoot = func() string {
	sum := sha256.Sum256(nil)
	return base64.StdEncoding.EncodeToString(sum[:])
}()

// execute executes a statement in an SQLite database of somebody else.
func execute(t testing.TB, path, statement string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite", path+"?_pragma=busy_timeout(60000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// ownAgent runs an ssh-agent in the test's own process, which holds one key.
func ownAgent(t testing.TB, socket string, key ed25519.PrivateKey) {
	t.Helper()
	keys := agent.NewKeyring()
	if err := keys.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			go agent.ServeAgent(keys, conn)
		}
	}()
}

// startOmniwitness starts an omniwitness with a key of its own, and logs by a file. It writes of none but those, though it knows more.
func startOmniwitness(t testing.TB, logs ...*aLog) *witness {
	t.Helper()
	return omniwitness(t, logs)
}

func omniwitness(t testing.TB, logs []*aLog, flags ...string) *witness {
	t.Helper()
	dir := t.TempDir()
	w := &witness{name: "omni.example/witness"}
	skey, vkey, err := note.GenerateKey(rand.Reader, w.name)
	if err != nil {
		t.Fatal(err)
	}
	public, err := base64.StdEncoding.DecodeString(strings.SplitN(vkey, "+", 3)[2])
	if err != nil {
		t.Fatal(err)
	}
	w.vkey = cosignatureKey(w.name, public[1:])
	config := "Logs:\n"
	for _, l := range logs {
		config += fmt.Sprintf("  - Origin: %s\n    URL: https://%[1]s\n    PublicKey: %s\n", l.origin, l.vkey)
	}
	key, yaml := write(t, filepath.Join(dir, "key"), skey), write(t, filepath.Join(dir, "logs.yaml"), config)
	w.restart = func() {
		w.process, w.url = listening(t, "omniwitness", func(address string) []string {
			return append([]string{"--private_key_path", key, "--db_file", filepath.Join(dir, "db"), "--additional_logs", yaml,
				"--listen", address, "--metrics_listen", ""}, flags...)
		})
	}
	w.restart()
	return w
}

// startTreeline starts our witness, which knows logs by a list.
func startTreeline(t testing.TB, logs ...*aLog) *witness {
	t.Helper()
	return treelineWitness(t, logs)
}

func treelineWitness(t testing.TB, logs []*aLog, flags ...string) *witness {
	t.Helper()
	dir := t.TempDir()
	w := &witness{name: "treeline.example/witness"}
	list := "logs/v0\n"
	for _, l := range logs {
		list += "vkey " + l.vkey + "\nqpd 2147483647\ncontact nobody\n"
	}
	file := write(t, filepath.Join(dir, "logs"), list)
	w.restart = func() {
		w.process, w.url = listening(t, "treeline", func(address string) []string {
			return append([]string{"witness", "--name", w.name, "--data-dir", filepath.Join(dir, "data"), "--logs", file,
				"--listen", address, "--ops-listen", ""}, flags...)
		})
	}
	w.restart()
	keys, code := run(t, "treeline", "witness", "key", "--data-dir", filepath.Join(dir, "data"))
	if code != 0 {
		t.Fatalf("treeline witness key: exit code %d", code)
	}
	w.vkey, _, _ = strings.Cut(keys, "\n")
	return w
}

// cosignatureKey returns the verifier key, of type 0x04, of a witness.
func cosignatureKey(name string, public ed25519.PublicKey) string {
	key := append([]byte{0x04}, public...)
	hash := sha256.Sum256([]byte(name + "\n" + string(key)))
	return fmt.Sprintf("%s+%x+%s", name, hash[:4], base64.StdEncoding.EncodeToString(key))
}

// answer is an HTTP answer that was read to its end.
type answer struct {
	status      int
	contentType string
	body        string
}

func (a answer) String() string { return fmt.Sprintf("%d (%s) %q", a.status, a.contentType, a.body) }

// addCheckpoint sends a request's body to a witness.
func (w *witness) addCheckpoint(t testing.TB, body string) answer {
	t.Helper()
	resp, err := http.Post(w.url+"/add-checkpoint", "text/plain", strings.NewReader(body))
	return read(t, resp, err)
}

// get returns what is at a URL.
func get(t testing.TB, url string) answer {
	t.Helper()
	resp, err := http.Get(url)
	return read(t, resp, err)
}

func read(t testing.TB, resp *http.Response, err error) answer {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header.Get("Content-Type"), string(body)}
}

// cosigned checks that the answer is the witness's cosignature of a checkpoint, in torchwood's eyes, and returns both as one note.
func (w *witness) cosigned(t testing.TB, signed string, a answer) string {
	t.Helper()
	if a.status != http.StatusOK {
		t.Fatalf("%s answers %v, want a cosignature", w.name, a)
	}
	v, err := torchwood.NewCosignatureVerifier(w.vkey)
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open([]byte(signed+a.body), note.VerifierList(v))
	if err != nil {
		t.Fatalf("the cosignature of %s: %v", w.name, err)
	}
	if at, err := torchwood.CosignatureTimestamp(n.Sigs[0]); err != nil || at <= 0 {
		t.Errorf("the cosignature of %s is of %d, %v", w.name, at, err)
	}
	return signed + a.body
}

// originHash is the name of a log under a witness's monitoring prefix.
func originHash(origin string) string {
	sum := sha256.Sum256([]byte(origin))
	return hex.EncodeToString(sum[:])
}
