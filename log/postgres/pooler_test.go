package postgres_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/postgres"
	"github.com/treeline-log/treeline/log/postgres/pgtest"
	"github.com/treeline-log/treeline/log/storetest"
)

// poolerSettings are what docs/operations.md asks for. Few connections, so that each is handed from one transaction to another.
var poolerSettings = []string{
	"ignore_startup_parameters = extra_float_digits,statement_timeout,idle_in_transaction_session_timeout," +
		"tcp_keepalives_idle,tcp_keepalives_interval,tcp_keepalives_count",
	"default_pool_size = 8", "server_idle_timeout = 1",
}

func TestStoreBehindAPooler(t *testing.T) {
	host := at(t, pgtest.Pooler(t, pgtest.Database(t), poolerSettings...)).Host
	storetest.Run(t, &opener{pooler: true, by: func(direct string) string {
		u := at(t, direct)
		u.Host = host
		return u.String()
	}})
}

// Whole servers work behind a pooler that hands each of their transactions another connection.
func TestServersBehindAPooler(t *testing.T) {
	t.Parallel()
	direct := migrated(t)
	url := pgtest.Pooler(t, direct, poolerSettings...)
	first := serve(t, direct, postgres.Options{URL: url, PartRows: 100, Pooler: true})
	second := &service{t: t, fence: first.fence, direct: direct}
	second.open(postgres.Options{URL: url, PartRows: 100, Pooler: true})
	var wg sync.WaitGroup
	for i, svc := range []*service{first, second} {
		wg.Go(func() {
			for n := range 30 {
				var ids []string
				for k := range 50 {
					ids = append(ids, fmt.Sprintf("%d-%d-%d", i, n, k))
				}
				if _, err := svc.append(ids...); err != nil {
					t.Errorf("append %d of server %d: %v", n, i, err)
				}
			}
		})
	}
	wg.Wait()
	first.signed()
	second.signed()
	if n := second.Log("default").Sizes().Size; n != 3000 {
		t.Errorf("%d events, want 3000", n)
	}
	reader, err := postgres.OpenReadOnly(t.Context(), postgres.Options{URL: direct})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	r, err := log.Fsck(t.Context(), reader, first.Log("default").Info, log.FsckOptions{Fence: first.fence})
	if err != nil || len(r.Problems) > 0 {
		t.Errorf("fsck: %v, %+v", err, r)
	}
}

// A pooler that refuses what the store asks of a session is named by the setting that it lacks.
func TestAPoolerWithoutItsSettingsIsRefused(t *testing.T) {
	t.Parallel()
	url := pgtest.Pooler(t, migrated(t))
	_, err := postgres.Open(t.Context(), postgres.Options{URL: url})
	if err == nil || !strings.Contains(err.Error(), "ignore_startup_parameters") || strings.Contains(err.Error(), pgtest.Password) {
		t.Errorf("got %v, want the name of the setting", err)
	}
}
