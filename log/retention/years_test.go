package retention_test

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

// tenant is a log that is kept by a policy for years, and what is known of it from elsewhere.
type tenant struct {
	*log.Log
	policy      log.Retention
	events      []event
	proofs      [][]byte
	checkpoints []checkpoint.Checkpoint
}

// event is what becomes of an event, as the test foretells it.
type event struct {
	index      uint64
	receivedAt int64
	dossier    string
	purged     bool
	erased     bool
}

// Over eight years, month by month: what should be gone is gone from all files, what should stay is there, and everything that was ever
// proven is proven still.
func TestEightYears(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := &outage{Archive: openArchive(t, "dir:"+dir+"/archive")}
	s := newServer(t, dir, o)
	hipaa, err := log.Preset("hipaa")
	if err != nil {
		t.Fatal(err)
	}
	finance, err := log.Preset("finance")
	if err != nil {
		t.Fatal(err)
	}
	soc2, err := log.Preset("soc2")
	if err != nil {
		t.Fatal(err)
	}
	early := log.Retention{Min: log.Age{Days: 90}, Max: log.Age{Years: 2}, Archive: true, EraseEarly: true}
	brief := log.Retention{Max: log.Age{Days: 30}} // archiving is switched off
	var tenants []*tenant
	for _, c := range []struct {
		name   string
		policy log.Retention
	}{{"brief", brief}, {"soc", soc2}, {"early", early}, {"clinic", hipaa}, {"bank", finance}} {
		tenants = append(tenants, &tenant{Log: s.create(c.name, c.policy), policy: c.policy})
	}
	soc, subject := tenants[1], tenants[2]
	const months, eventsAMonth = 96, 6
	const placed, released, erased, outageFrom, outageTo = 8, 50, 17, 30, 34
	var hold log.Hold
	for m := range months {
		for _, l := range tenants {
			dossier := "none"
			if m%4 == 1 {
				dossier = "case7"
			}
			first := s.append(l.Log, eventsAMonth, dossier)
			for i := range uint64(eventsAMonth) {
				l.events = append(l.events, event{index: first + i, receivedAt: s.clock.Load(), dossier: dossier})
			}
			s.signed(l.Log)
			proof, err := l.Proof(t.Context(), first+uint64(m%eventsAMonth))
			if err != nil {
				t.Fatal(err)
			}
			c, _ := l.Signed()
			l.proofs, l.checkpoints = append(l.proofs, proof), append(l.checkpoints, c)
		}
		switch m {
		case placed:
			if hold, err = soc.PlaceHold(t.Context(), log.ByServer(), "case 7", "counsel asks for it", url.Values{"metadata.dossier": {"case7"}}); err != nil {
				t.Fatal(err)
			}
		case released:
			if _, err := soc.ReleaseHold(t.Context(), log.ByServer(), hold.ID, "it is settled"); err != nil {
				t.Fatal(err)
			}
		case erased:
			s.erase(subject.Log, "u1", "/actor/name", "/metadata/text")
			for i := range subject.events {
				if i%eventsAMonth%3 == 1 && !subject.events[i].purged {
					subject.events[i].erased = true
				}
			}
		}
		for _, l := range tenants {
			s.signed(l.Log)
		}
		o.down.Store(m >= outageFrom && m < outageTo)
		s.keeper.Pass(t.Context())
		for _, l := range tenants {
			s.signed(l.Log)
			age := l.policy.Max
			for i := range l.events {
				e := &l.events[i]
				held := l == soc && m >= placed && m < released && e.dossier == "case7"
				if !e.purged && age.Reached(e.receivedAt, s.clock.Load()) && !held && !(l.policy.Archive && o.down.Load()) {
					e.purged = true
				}
			}
		}
		s.examine(m, tenants, dir)
		if t.Failed() {
			t.Fatalf("in month %d\n%.4000s", m, s.logs)
		}
		s.clock.Store(s.now().AddDate(0, 1, 0).UnixMicro())
	}
	if s.names(tenants[0].Log) != "" || s.names(tenants[1].Log) == "" || s.names(tenants[4].Log) == "" {
		t.Error("what shouldn't be archived was, or what should be wasn't")
	}
}

// examine checks everything that holds at the end of a month.
func (s *server) examine(month int, tenants []*tenant, dir string) {
	t := s.t
	inStore, inArchive := words(s.database()), words(raw(t, dir+"/archive"))
	for _, l := range tenants {
		s.fsck(l.Log)
		trust := log.Trust{Keys: verifiers(t, l.Log)}
		for i, proof := range l.proofs {
			if _, err := log.VerifyProof(proof, trust); err != nil {
				t.Errorf("log %s: the proof of month %d: %v", l.Name, i, err)
			}
		}
		now, _ := l.Signed()
		for i, c := range l.checkpoints {
			hashes, err := l.Consistency(t.Context(), c.Size, now.Size)
			if err == nil {
				err = merkle.VerifyConsistency(c.Size, now.Size, hashes, c.Root, now.Root)
			}
			if err != nil {
				t.Errorf("log %s: the checkpoint of month %d: %v", l.Name, i, err)
			}
		}
		purges := l.Purges()
		for _, e := range l.events {
			name, text := secret(l.Log, e.index, "name"), secret(l.Log, e.index, "text")
			want := !e.purged && !e.erased
			if inStore[name] != want || inStore[text] != want {
				t.Errorf("log %s: event %d %+v: in the store's files are name %v, text %v: %v", l.Name, e.index, e, inStore[name], inStore[text],
					s.where(name))
			}
			recorded := false
			for _, p := range purges {
				recorded = recorded || p.From <= e.index && e.index < p.To
			}
			if recorded != e.purged {
				t.Errorf("log %s: event %d %+v: recorded as purged is %v", l.Name, e.index, e, recorded)
			}
			if archived := inArchive[text]; e.purged && l.policy.Archive && !e.erased && !archived || (e.erased || !l.policy.Archive) && archived {
				t.Errorf("log %s: event %d %+v: in the archive is %v", l.Name, e.index, e, archived)
			}
		}
	}
	if month%12 == 11 { // all of the archive verifies
		for _, l := range tenants {
			s.archived(l.Log)
		}
	}
}

// where returns in which of the store's files a text is, and where in them.
func (s *server) where(text string) (places []string) {
	for _, path := range s.files() {
		content, err := os.ReadFile(path)
		if err != nil {
			s.t.Fatal(err)
		}
		if i := bytes.Index(content, []byte(text)); i >= 0 {
			places = append(places, fmt.Sprintf("%s at byte %d: %q", filepath.Base(path), i, content[max(0, i-40):min(len(content), i+60)]))
		}
	}
	return places
}

// words returns the secrets in bytes.
func words(data []byte) map[string]bool {
	found := make(map[string]bool)
	for _, begin := range []string{"namex", "textx"} {
		for rest := data; ; {
			i := bytes.Index(rest, []byte(begin))
			if i < 0 {
				break
			}
			rest = rest[i:]
			if end := bytes.Index(rest[:min(len(rest), 64)], []byte("xz")); end > 0 {
				found[string(rest[:end+2])] = true
			}
			rest = rest[len(begin):]
		}
	}
	return found
}
