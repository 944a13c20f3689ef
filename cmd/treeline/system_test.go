package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"
)

// Whenever the server is killed while logs and keys are made: none is there that the system log doesn't tell of. What it tells of may
// be missing, as a crash may come between record and act.
func TestKilledBetweenRecordAndAct(t *testing.T) {
	rounds := 4
	if long() {
		rounds = 40
	}
	dir := t.TempDir()
	for round := range rounds {
		p := serving(t, dir)
		var wg sync.WaitGroup
		for worker := range 4 {
			wg.Go(func() {
				for n := 0; ; n++ {
					path, body := "/v1/keys", `{"role":"reader","log":"default"}`
					if worker == 0 {
						path, body = "/v1/logs", fmt.Sprintf(`{"name":"log-%d-%d"}`, round, n)
					}
					if _, err := p.call(http.MethodPost, path, []byte(body), "Content-Type", "application/json"); err != nil {
						return // it is killed
					}
				}
			})
		}
		time.Sleep(time.Duration(100+rand.IntN(300)) * time.Millisecond)
		p.kill()
		wg.Wait()
		httpClient.CloseIdleConnections()
	}
	p := serving(t, dir)
	told := make(map[string]bool)
	for _, r := range feed(t, p, "system") {
		var e struct {
			Action  string
			Targets []struct{ Type, ID string }
		}
		if err := json.Unmarshal(r.Event, &e); err != nil {
			t.Fatal(err)
		}
		if e.Action == "treeline.key.created" || e.Action == "treeline.log.created" {
			told[e.Targets[0].ID] = true
		}
	}
	var keys struct{ Data []struct{ ID string } }
	p.mustGetJSON(t, "/v1/keys", &keys)
	var logs struct {
		Data []struct {
			LogID  string `json:"log_id"`
			System bool
		}
	}
	p.mustGetJSON(t, "/v1/logs", &logs)
	made := 0
	for _, k := range keys.Data {
		made++
		if !told[k.ID] {
			t.Errorf("key %s was made, and isn't told of", k.ID)
		}
	}
	for _, l := range logs.Data {
		if l.System {
			continue
		}
		made++
		if !told[l.LogID] {
			t.Errorf("log %s was made, and isn't told of", l.LogID)
		}
	}
	t.Logf("%d rounds, %d logs and keys made, %d told of", rounds, made, len(told))
	if made < 5*rounds {
		t.Errorf("%d logs and keys in %d rounds: too few to prove anything", made, rounds)
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	mustFsck(t, dir)
}
