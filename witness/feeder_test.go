package witness

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

func parseHash(t testing.TB, line string) merkle.Hash {
	raw, err := base64.StdEncoding.DecodeString(line)
	if err != nil || len(raw) != merkle.HashSize {
		t.Fatalf("proof line %q", line)
	}
	return merkle.Hash(raw)
}

func TestANewCheckpointIsCosigned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := feedTo(t, 2, 2, nil, "acme").start()
		l := f.logs[0]
		time.Sleep(3 * time.Second)
		l.grow(5)
		time.Sleep(3 * time.Second)
		l.grow(2)
		time.Sleep(3 * time.Second)
		for _, size := range []uint64{0, 5, 7} {
			if got := l.by(size); len(got) != 2 {
				t.Errorf("size %d is cosigned by %v, want both", size, got)
			}
		}
		var olds []string
		for _, body := range f.witnesses[0].asked() {
			old, _, _ := strings.Cut(body, "\n")
			olds = append(olds, old)
		}
		// From where it stands each time, and an answer isn't asked for twice.
		if want := []string{"old 0", "old 0", "old 5"}; !slices.Equal(olds, want) {
			t.Errorf("requests went on from %q, want %q", olds, want)
		}
		f.problem(t, "")
	})
}

func TestSubmissionsOfOneLogAreCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := feedTo(t, 1, 1, func(c *FeederConfig) { c.Interval = 10 * time.Second }, "acme").start()
		f.witnesses[0].set(func(http.ResponseWriter, *http.Request, []byte) bool {
			time.Sleep(2 * time.Second)
			return false
		})
		for range 60 {
			f.logs[0].grow(1)
			time.Sleep(time.Second)
		}
		if got := len(f.witnesses[0].asked()); got > 8 {
			t.Errorf("%d requests in 60 s, want one in 10 s", got)
		}
		f.witnesses[0].mu.Lock()
		most := f.witnesses[0].most
		f.witnesses[0].mu.Unlock()
		if most != 1 {
			t.Errorf("%d requests of one log at a time, want 1", most)
		}
		time.Sleep(15 * time.Second)
		if got := f.logs[0].by(60); len(got) != 1 {
			t.Error("the newest checkpoint isn't cosigned in the end")
		}
	})
}

func TestWitnessesOfDifferentSpeedsMeetAtTheSameSizes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := feedTo(t, 2, 2, func(c *FeederConfig) { c.Interval = 100 * time.Millisecond }, "acme").start()
		for i, w := range f.witnesses {
			w.set(func(http.ResponseWriter, *http.Request, []byte) bool {
				time.Sleep(time.Duration(700+i*2600) * time.Millisecond)
				return false
			})
		}
		both := 0
		for range 300 { // it never stands still
			f.logs[0].grow(1)
			time.Sleep(100 * time.Millisecond)
		}
		for size := range uint64(300) {
			if len(f.logs[0].by(size)) == 2 {
				both++
			}
		}
		if both < 5 {
			t.Errorf("%d checkpoints were cosigned by both in 30 s, want about one in 4 s", both)
		}
	})
}

func TestASlowWitnessHoldsUpNoQuorum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := feedTo(t, 2, 3, nil, "acme").start()
		f.witnesses[2].set(func(_ http.ResponseWriter, r *http.Request, _ []byte) bool {
			<-r.Context().Done() // it never answers
			return true
		})
		time.Sleep(10 * time.Second)
		for range 10 {
			f.logs[0].grow(1)
			time.Sleep(2 * time.Second)
			if got := f.logs[0].by(uint64(len(f.logs[0].leaves))); len(got) != 2 {
				t.Errorf("two seconds after size %d: cosigned by %v, want two", len(f.logs[0].leaves), got)
			}
		}
		time.Sleep(30 * time.Second) // the second failure in a row is told
		f.problem(t, "W3 couldn't be reached")
	})
}

func TestTheProofLeadsFromWhereTheWitnessStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := feedTo(t, 1, 1, nil, "acme")
		f.logs[0].grow(9)
		f.witnesses[0].latest[f.logs[0].origin] = 4 // nothing is known of that here
		f.start()
		time.Sleep(time.Second)
		if got := f.logs[0].by(9); len(got) != 1 {
			t.Error("not cosigned after a conflict that says where to go on from")
		}
		if got := len(f.witnesses[0].asked()); got != 2 {
			t.Errorf("%d requests, want 2", got)
		}
		if got := f.attempts("W1", "cosigned"); got != 1 {
			t.Errorf("counted as cosigned: %d, want 1", got)
		}
	})
}

// TestDeviations plays what witnesses are known to answer, and what they had better not.
func TestDeviations(t *testing.T) {
	other, err := checkpoint.Seed{99}.Ed25519Cosigner("w1.example") // another key of the same name
	if err != nil {
		t.Fatal(err)
	}
	always := func(status int, contentType, body string) func(*feeding) func(http.ResponseWriter, *http.Request, []byte) bool {
		return func(*feeding) func(http.ResponseWriter, *http.Request, []byte) bool {
			return func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
				if r.Method != http.MethodPost {
					return false
				}
				w.Header().Set("Content-Type", contentType)
				w.WriteHeader(status)
				io.WriteString(w, body)
				return true
			}
		}
	}
	once := func(status int, header, value string) func(*feeding) func(http.ResponseWriter, *http.Request, []byte) bool {
		return func(*feeding) func(http.ResponseWriter, *http.Request, []byte) bool {
			n := 0
			return func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
				if n++; n > 2 {
					return false
				}
				w.Header().Set(header, value)
				w.WriteHeader(status)
				return true
			}
		}
	}
	answer := func(line func(f *feeding, c checkpoint.Checkpoint) string) func(*feeding) func(http.ResponseWriter, *http.Request, []byte) bool {
		return func(f *feeding) func(http.ResponseWriter, *http.Request, []byte) bool {
			return func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
				if r.Method != http.MethodPost {
					return false
				}
				c, _ := f.logs[0].Signed()
				io.WriteString(w, line(f, c))
				return true
			}
		}
	}
	for _, c := range []struct {
		name     string
		deviates func(*feeding) func(http.ResponseWriter, *http.Request, []byte) bool
		result   string // of the last attempt
		problem  string // "": the checkpoint is cosigned
		most     int    // attempts within five minutes
	}{
		{"omniwitness, 429 under load", once(429, "Retry-After", "3"), "busy", "", 3},
		{"429 without saying for how long", once(429, "X-Nothing", ""), "busy", "", 3},
		{"omniwitness, a bare 409 on another root", always(409, "text/plain", "conflict"), "refused", "another tree", 6},
		{"omniwitness, 500 for a bad signature", always(500, "text/plain", "invalid signature"), "failed", "invalid signature", 20},
		{"litewitness, 413 for more than 10 KiB", always(413, "text/plain", "too large"), "refused", "status 413", 6},
		{"an unknown log", always(404, "text/plain", "unknown log"), "refused", "unknown log", 6},
		{"a key that it doesn't trust", always(403, "text/plain", ""), "refused", "status 403", 6},
		{"another tree", always(422, "text/plain", ""), "refused", "another tree", 6},
		{"a conflict with the size that it was asked from", always(409, "text/x.tlog.size", "0\n"), "wrong", "it was asked from size 0", 6},
		{"a conflict with no size", always(409, "text/x.tlog.size", "seven\n"), "wrong", "seven", 6},
		{"a conflict with a size of another form", always(409, "text/x.tlog.size", "07\n"), "wrong", "07", 6},
		{"a redirect", func(*feeding) func(http.ResponseWriter, *http.Request, []byte) bool {
			return func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
				w.Header().Set("Location", "https://w2.example/add-checkpoint")
				w.WriteHeader(http.StatusTemporaryRedirect)
				return true
			}
		}, "refused", "status 307", 6},
		{"it is down for a moment", once(503, "X-Nothing", ""), "unreachable", "", 3},
		{"it stays down", always(502, "text/html", "<html>"), "unreachable", "W1 couldn't be reached", 20},
		{"nothing", always(200, "text/plain", ""), "wrong", "no cosignature", 6},
		{"garbage", always(200, "text/html", "<html>\n— a b\n\n\x00\xff"), "wrong", "no cosignature", 6},
		{"a huge body", always(200, "text/plain", strings.Repeat("— w1.example AAAAAAAA\n", 1<<16)), "wrong", "more than 65536 bytes", 6},
		{"a cosignature of another key of that name", answer(func(f *feeding, c checkpoint.Checkpoint) string {
			return f.witnesses[0].line(other, c)
		}), "wrong", "no cosignature", 6},
		{"another witness's cosignature", answer(func(f *feeding, c checkpoint.Checkpoint) string {
			return f.witnesses[1].line(f.witnesses[1].keys[0], c)
		}), "wrong", "no cosignature", 6},
		{"a cosignature on another tree", answer(func(f *feeding, c checkpoint.Checkpoint) string {
			c.Root[0] ^= 1
			return f.witnesses[0].line(f.witnesses[0].keys[0], c)
		}), "wrong", "doesn't verify", 6},
		{"a cosignature without a time", answer(func(f *feeding, c checkpoint.Checkpoint) string {
			line := f.witnesses[0].line(f.witnesses[0].keys[0], c)
			name, b64, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " w1.example ")
			raw, _ := base64.StdEncoding.DecodeString(b64)
			clear(raw[4:12])
			return name + " w1.example " + base64.StdEncoding.EncodeToString(raw) + "\n"
		}), "wrong", "W1", 6},
		{"a cosignature that is still to come", answer(func(f *feeding, c checkpoint.Checkpoint) string {
			sig, _ := f.witnesses[0].keys[0].Cosign(c, time.Now().Add(time.Hour))
			return checkpoint.SignatureLine(sig)
		}), "wrong", "still to come", 6},
		{"a cosignature of a clock that is a little ahead", answer(func(f *feeding, c checkpoint.Checkpoint) string {
			sig, _ := f.witnesses[0].keys[0].Cosign(c, time.Now().Add(time.Minute))
			return checkpoint.SignatureLine(sig)
		}), "cosigned", "", 1},
		{"lines of others around its own", answer(func(f *feeding, c checkpoint.Checkpoint) string {
			w := f.witnesses[0]
			return "— unknown.example AAAAAAAAAAAA\nnot a line\n" + w.line(other, c) + w.line(w.keys[0], c)
		}), "cosigned", "", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := feedTo(t, 1, 2, nil, "acme")
				f.logs[0].grow(3)
				f.witnesses[0].set(c.deviates(f))
				f.start()
				time.Sleep(5 * time.Minute)
				if got := f.attempts("W1", c.result); got < 1 || c.result == "" {
					t.Errorf("attempts with the result %s: got %d, want some", c.result, got)
				}
				if got := len(f.witnesses[0].asked()); got < 1 || got > c.most {
					t.Errorf("asked %d times in five minutes, want 1 to %d", got, c.most)
				}
				cosigned := slices.Contains(f.logs[0].by(3), f.witnesses[0].vkeyID())
				if cosigned != (c.problem == "") {
					t.Errorf("kept cosignature: got %t, want %t", cosigned, c.problem == "")
				}
				f.problem(t, c.problem)
				if len(f.logs[0].by(3)) == 0 {
					t.Error("the other witness's cosignature isn't there")
				}
				if asked, shown, outvoted, objection := f.logs[0].state(); !asked || shown+outvoted > 0 {
					t.Errorf("the log is held up by it: %v", objection)
				}
			})
		})
	}
}

func (f *fedWitness) vkeyID() string { return checkpoint.KeyID(f.keys[0].Name(), f.keys[0].KeyHash()) }

func TestABusyWitnessIsLeftAlone(t *testing.T) {
	for status, header := range map[int]string{429: "30", 503: "30"} {
		synctest.Test(t, func(t *testing.T) {
			f := feedTo(t, 1, 1, nil, "acme")
			f.witnesses[0].set(func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
				w.Header().Set("Retry-After", header)
				w.WriteHeader(status)
				return true
			})
			f.start()
			time.Sleep(29 * time.Second)
			if got := len(f.witnesses[0].asked()); got != 1 {
				t.Errorf("%d: asked %d times before it said that it may be, want once", status, got)
			}
			f.witnesses[0].set(nil)
			time.Sleep(2 * time.Second)
			if got := f.logs[0].by(0); len(got) != 1 {
				t.Errorf("%d: not cosigned when its time was over", status)
			}
		})
	}
}

func TestACosignatureIsNotOlderThanTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := feedTo(t, 1, 1, nil, "acme").start()
		time.Sleep(3 * time.Second)
		f.witnesses[0].mu.Lock()
		f.witnesses[0].ahead = -time.Minute
		f.witnesses[0].mu.Unlock()
		f.logs[0].grow(1)
		time.Sleep(2 * time.Second)
		if got := f.logs[0].by(1); got != nil {
			t.Error("a cosignature from before the last one was kept")
		}
		f.problem(t, "older than its last one")
	})
}

func TestAWitnessWithTwoKeysAnswersOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		second, err := checkpoint.Seed{10}.MLDSA44Cosigner("w1.example")
		if err != nil {
			t.Fatal(err)
		}
		f := feedTo(t, 1, 1, func(c *FeederConfig) {
			w := c.Policy.Witnesses[0]
			text := fmt.Sprintf("witness W1 %s %s\nwitness W1-pq %s %s/\ngroup both all W1 W1-pq\nquorum both\n", w.VKey, w.URL, second.VKey(), w.URL)
			if c.Policy, err = checkpoint.ParsePolicy([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}, "acme")
		f.witnesses[0].keys = append(f.witnesses[0].keys, second)
		f.start()
		time.Sleep(time.Second)
		if got := f.logs[0].by(0); len(got) != 2 {
			t.Errorf("cosigned by %v, want both keys", got)
		}
		if got := len(f.witnesses[0].asked()); got != 1 {
			t.Errorf("%d requests, want one for both keys", got)
		}
	})
}

func TestOneClaimStopsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := feedTo(t, 2, 3, nil, "acme").start()
		l := f.logs[0]
		time.Sleep(2 * time.Second)
		claim := func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
			if r.Method == http.MethodPost {
				conflict(w, 1000)
			}
			return r.Method == http.MethodPost
		}
		f.witnesses[0].set(claim)
		l.grow(3)
		time.Sleep(10 * time.Second)
		if _, shown, outvoted, _ := l.state(); shown+outvoted > 0 {
			t.Fatal("a claim of one witness stopped the log")
		}
		if got := l.by(3); len(got) != 2 {
			t.Errorf("cosigned by %v, want the two others", got)
		}
		f.problem(t, "claims that the log had 1000 entries")
		if got := len(f.witnesses[0].asked()); got > 3 {
			t.Errorf("it was asked %d times, want it set aside", got)
		}
		// A second one makes a quorum of them.
		f.witnesses[1].set(claim)
		l.grow(1)
		time.Sleep(10 * time.Second)
		if _, _, outvoted, _ := l.state(); outvoted != 2 {
			t.Errorf("witnesses that stopped the log: got %d, want 2", outvoted)
		}
	})
}

func TestAClaimThatIsTakenBackIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := feedTo(t, 2, 2, nil, "acme").start()
		time.Sleep(time.Second)
		f.witnesses[0].set(func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
			conflict(w, 1000)
			return true
		})
		f.logs[0].grow(1)
		time.Sleep(time.Minute)
		f.problem(t, "1000")
		f.witnesses[0].set(nil)
		time.Sleep(5 * time.Minute)
		if got := f.logs[0].by(1); len(got) != 2 {
			t.Errorf("cosigned by %v, want both", got)
		}
		f.problem(t, "")
		// With that of the other one it makes no quorum any more.
		f.witnesses[1].set(func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
			conflict(w, 1000)
			return true
		})
		f.logs[0].grow(1)
		time.Sleep(time.Minute)
		f.problem(t, "1000")
		if _, shown, outvoted, _ := f.logs[0].state(); shown+outvoted > 0 {
			t.Error("a claim that was taken back stopped the log")
		}
	})
}

func TestWhatTheLogsKeyHasSignedDecides(t *testing.T) {
	for _, c := range []struct {
		name  string
		shown func(l *fedLog) checkpoint.Checkpoint
		stops bool
	}{
		{"a larger checkpoint", func(l *fedLog) checkpoint.Checkpoint {
			return checkpoint.Checkpoint{Origin: l.origin, Size: 12, Root: merkle.Hash{1}}
		}, true},
		{"another tree of the same size", func(l *fedLog) checkpoint.Checkpoint {
			return checkpoint.Checkpoint{Origin: l.origin, Size: 3, Root: merkle.Hash{1}}
		}, true},
		{"a smaller tree that isn't in it", func(l *fedLog) checkpoint.Checkpoint {
			return checkpoint.Checkpoint{Origin: l.origin, Size: 2, Root: merkle.Hash{1}}
		}, true},
		{"one of its own, which proves nothing", func(l *fedLog) checkpoint.Checkpoint {
			return checkpoint.Checkpoint{Origin: l.origin, Size: 2, Root: l.root(2)}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := feedTo(t, 2, 3, nil, "acme")
				l := f.logs[0]
				l.grow(3)
				w := f.witnesses[0]
				w.notes[l.origin] = l.sign(c.shown(l))
				w.latest[l.origin] = 12
				f.start()
				time.Sleep(10 * time.Second)
				if _, shown, _, _ := l.state(); (shown > 0) != c.stops {
					t.Errorf("stopped: got %t, want %t", shown > 0, c.stops)
				}
			})
		})
	}
}

func TestAForgedCheckpointDecidesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := feedTo(t, 2, 3, nil, "acme")
		l := f.logs[0]
		forger := &fedLog{t: t, origin: l.origin, key: checkpoint.Seed{2}}
		f.witnesses[0].notes[l.origin] = forger.sign(checkpoint.Checkpoint{Origin: l.origin, Size: 12, Root: merkle.Hash{1}})
		f.witnesses[0].latest[l.origin] = 12
		f.start()
		time.Sleep(10 * time.Second)
		if _, shown, outvoted, _ := l.state(); shown+outvoted > 0 {
			t.Error("a checkpoint under another key stopped the log")
		}
	})
}

func TestWitnessesAreAskedBeforeTheFirstSignature(t *testing.T) {
	t.Run("none objects", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := feedTo(t, 2, 2, nil, "acme").start()
			time.Sleep(time.Second)
			if asked, _, _, objection := f.logs[0].state(); !asked || objection != nil {
				t.Errorf("got %t, %v, want it cleared", asked, objection)
			}
		})
	})
	t.Run("one is down", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := feedTo(t, 2, 2, func(c *FeederConfig) { delete(c.Transport.(network), "w2.example") }, "acme").start()
			time.Sleep(time.Second)
			if asked, _, _, objection := f.logs[0].state(); !asked || objection != nil {
				t.Errorf("got %t, %v, want it cleared", asked, objection)
			}
		})
	})
	t.Run("one doesn't answer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := feedTo(t, 2, 2, nil, "acme")
			f.witnesses[1].set(func(_ http.ResponseWriter, r *http.Request, _ []byte) bool {
				<-r.Context().Done()
				return true
			})
			f.start()
			time.Sleep(time.Second)
			if asked, _, _, _ := f.logs[0].state(); asked {
				t.Error("it was cleared before the second one could answer")
			}
			time.Sleep(askPatience)
			if asked, _, _, _ := f.logs[0].state(); !asked {
				t.Error("it isn't cleared though one of two is only slow")
			}
		})
	})
	claimed := func(accepted uint64) (cleared bool, claims float64, objection error) {
		synctest.Test(t, func(t *testing.T) {
			f := feedTo(t, 2, 2, nil, "acme")
			f.logs[0].grow(3)
			f.logs[0].accepted = accepted
			f.witnesses[1].latest[f.logs[0].origin] = 7
			f.start()
			time.Sleep(20 * time.Second)
			cleared, _, _, objection = f.logs[0].state()
			claims = f.gauge("treeline_feed_claims", "W2")
		})
		return cleared, claims, objection
	}
	t.Run("one claims more", func(t *testing.T) {
		if cleared, claims, objection := claimed(6); cleared || claims != 1 || objection == nil || !strings.Contains(objection.Error(), "had 7 entries") {
			t.Errorf("got %t, %v claims, %v, want it held up by the claim", cleared, claims, objection)
		}
	})
	t.Run("one claims more, and an operator accepts it", func(t *testing.T) {
		if cleared, claims, objection := claimed(7); !cleared || claims != 0 {
			t.Errorf("got %t, %v claims, %v, want it cleared and no alarm", cleared, claims, objection)
		}
	})
}

// However long it takes until the last of many logs is asked for, none is signed before.
func TestManyLogsAreAskedForBeforeTheirFirstSignatures(t *testing.T) {
	for name, deviates := range map[string]func(w http.ResponseWriter, n int64) bool{
		"it takes its time": func(http.ResponseWriter, int64) bool {
			time.Sleep(300 * time.Millisecond)
			return false
		},
		"it is busy at first": func(w http.ResponseWriter, n int64) bool {
			if n <= 400 {
				w.WriteHeader(http.StatusTooManyRequests)
			}
			return n <= 400
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var names []string
				for i := range 400 {
					names = append(names, fmt.Sprint("log-", i))
				}
				f := feedTo(t, 1, 2, nil, names...)
				var n atomic.Int64
				for _, l := range f.logs {
					l.grow(1)
					f.witnesses[1].latest[l.origin] = 7
				}
				f.witnesses[1].set(func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
					return r.Method == http.MethodPost && deviates(w, n.Add(1))
				})
				f.start()
				for range 60 {
					time.Sleep(time.Second)
					for _, l := range f.logs {
						if asked, _, _, _ := l.state(); asked {
							t.Fatalf("log %s may be signed, though a witness claims more of it", l.origin)
						}
					}
				}
			})
		})
	}
}

func TestAClaimAsksForNothingWhereNoQuorumIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := feedTo(t, 1, 1, func(c *FeederConfig) {
			w := c.Policy.Witnesses[0]
			var err error
			if c.Policy, err = checkpoint.ParsePolicy(fmt.Appendf(nil, "witness W1 %s %s\nquorum none\n", w.VKey, w.URL)); err != nil {
				t.Fatal(err)
			}
		}, "acme").start()
		time.Sleep(time.Second)
		f.witnesses[0].set(func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
			conflict(w, 1000)
			return true
		})
		f.logs[0].grow(1)
		time.Sleep(10 * time.Second)
		if _, shown, outvoted, _ := f.logs[0].state(); shown+outvoted > 0 {
			t.Error("a claim of one witness stopped a log that needs none")
		}
		f.problem(t, "1000")
	})
}

// What another server has signed a moment ago is no claim, though this one hasn't heard of it.
func TestASizeThatAnotherServerHasSignedIsNoClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := feedTo(t, 1, 1, nil, "acme")
		l := f.logs[0]
		l.grow(3)
		l.others, l.recorded = true, 5
		f.witnesses[0].latest[l.origin] = 5
		f.start()
		time.Sleep(20 * time.Second)
		if asked, shown, outvoted, objection := l.state(); !asked || shown+outvoted > 0 {
			t.Errorf("held up: %v", objection)
		}
		if got := f.attempts("W1", "claim"); got != 0 {
			t.Errorf("%d claims were counted, want none", got)
		}
		f.problem(t, "")
	})
}

func TestIdleLogsAreRefreshed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := feedTo(t, 1, 1, nil, "acme").start()
		time.Sleep(time.Minute)
		before := f.logs[0].at(0, f.witnesses[0].vkeyID())
		time.Sleep(4 * time.Hour)
		if got := len(f.witnesses[0].asked()); got < 4 || got > 6 {
			t.Errorf("asked %d times in four hours, want once an hour", got)
		}
		// The pauses are spread by a tenth, so the last is at most 66 minutes old.
		if got := f.logs[0].at(0, f.witnesses[0].vkeyID()); got.Sub(before) < 4*time.Hour-67*time.Minute {
			t.Errorf("the cosignature is of %v, want a newer one than %v", got, before)
		}
	})
}

func TestAnotherServersLogIsLeftToIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := feedTo(t, 1, 1, nil, "acme")
		l, key := f.logs[0], f.witnesses[0].vkeyID()
		l.others = true
		f.start()
		time.Sleep(time.Second)
		if got := len(f.witnesses[0].asked()); got != 1 { // at start each server asks
			t.Errorf("asked %d times at start, want once", got)
		}
		for size := uint64(1); size < 20; size++ {
			l.grow(1)
			time.Sleep(2 * time.Second)
			l.mu.Lock()
			l.confirmed[key] = fedConfirmation{size, time.Now()} // the other one feeds
			l.mu.Unlock()
			f.witnesses[0].mu.Lock()
			f.witnesses[0].latest[l.origin] = size
			f.witnesses[0].mu.Unlock()
		}
		if got := len(f.witnesses[0].asked()); got != 1 {
			t.Errorf("asked %d times while the other server feeds, want it left alone", got)
		}
		l.grow(1) // and now it doesn't any more
		time.Sleep(2*takeOver + 5*time.Second)
		if got := l.by(20); len(got) != 1 {
			t.Error("nobody took over")
		}
	})
}

func TestManyLogsAndAWitnessThatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var names []string
		for i := range 300 {
			names = append(names, fmt.Sprint("log-", i))
		}
		var n atomic.Int64
		f := feedTo(t, 1, 2, nil, names...)
		f.client.Transport.(network)["w2.example"] = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			n.Add(1)
			w.WriteHeader(http.StatusBadGateway)
		})
		f.start()
		time.Sleep(time.Minute)
		for _, l := range f.logs {
			if len(l.by(0)) != 1 {
				t.Fatalf("log %s isn't cosigned by the witness that is up", l.origin)
			}
			if asked, _, _, _ := l.state(); !asked {
				t.Fatalf("log %s waits for a witness that is down", l.origin)
			}
		}
		if n.Load() > 12*maxInFlight {
			t.Errorf("the witness that is down was asked %d times in a minute", n.Load())
		}
	})
}

func TestRequestsAreSmall(t *testing.T) {
	l := newFedLog(t, strings.Repeat("x", 63))
	body := appendRequest(nil, merkle.MaxSize, make([]merkle.Hash, maxProofLines), l.note)
	if len(body) > 10<<10 {
		t.Errorf("a request of %d bytes, want at most 10 KiB, which is the least limit among witnesses", len(body))
	}
}

func TestAPolicyThatCannotBeMetIsRefused(t *testing.T) {
	key, err := checkpoint.Seed{1}.Ed25519Cosigner("w.example")
	if err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]string{"": "no URL for witness W", " ftp://w.example": "not the URL",
		" https://user:secret@w.example": "not the URL", " https://user:secret@w.example:x": "isn't one", " https://w.example": ""} {
		policy, err := checkpoint.ParsePolicy([]byte("witness W " + key.VKey() + url + "\nquorum W\n"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = NewFeeder(FeederConfig{Policy: policy, Metrics: prometheus.NewRegistry()})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("with the URL %q: got %v, want %q", url, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}
