# make test       everything that guards a change, under ten minutes
# make test-long  the soak and fault campaigns
# make lint       formatting, vet and linters
# make bench      Go benchmarks; `treeline bench` drives a whole server
# make bench-postgres  a server on PostgreSQL beside a bare loop, ten million events (TREELINE_BENCH_EVENTS), some ten minutes
# make bench-search    the first page of what people ask, of a million events on SQLite and ten million on PostgreSQL (TREELINE_BENCH_EVENTS)
# make bench-export    exports of a million events beside COPY and sqlite3 (TREELINE_BENCH_EVENTS)
# make bench-ingest    NDJSON at 16,000 events a second for ten minutes (TREELINE_BENCH_DURATION) on each store, and real events at a lower rate
# make bench-purge     appends while a million of five million events are purged on PostgreSQL (TREELINE_BENCH_EVENTS), some ten minutes
# make bench-witness   add-checkpoint requests a second, our witness beside litewitness and omniwitness
# make bench-witnessed   appends beside witnesses in any condition; ten thousand logs in one hub (TREELINE_BENCH_LOGS)

GO      ?= go
TOOLS   := -modfile=.ci/tools.mod
FUZZTIME ?= 30s

.PHONY: build test test-long fuzz lint bench bench-postgres bench-search bench-export bench-ingest bench-purge bench-witness bench-witnessed

build:
	$(GO) build -o bin/treeline ./cmd/treeline

# On the embedded store under the race detector, and what is about any store on PostgreSQL as well. Then beside programs that are
# not ours, which is a module of its own; go wouldn't notice that the program which those run has changed, so nothing is cached.
test:
	$(GO) vet ./...
	$(GO) test -race -timeout 40m ./...
	TREELINE_TEST_STORE=postgres $(GO) test -count 1 -timeout 40m ./log ./log/retention ./api
	cd witness/interop && $(GO) vet ./... && $(GO) test -count 1 -timeout 40m ./...

test-long:
	TREELINE_TEST_LONG=1 $(GO) test -timeout 80m -count 1 ./...
	TREELINE_TEST_LONG=1 TREELINE_TEST_STORE=postgres $(GO) test -timeout 60m -count 1 ./log ./log/retention ./api

# Every fuzz target in turn, each for FUZZTIME, beyond the committed corpora that `make test` runs.
fuzz:
	@for pkg in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "$$pkg $$f"; $(GO) test $$pkg -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) || exit 1; \
	  done; \
	done

lint:
	@out=$$(gofmt -l .); test -z "$$out" || { echo "gofmt would change:"; echo "$$out"; exit 1; }
	$(GO) tool $(TOOLS) golangci-lint run
	cd witness/interop && $(GO) tool -modfile=../../.ci/tools.mod golangci-lint run

bench:
	$(GO) test -run '^$$' -bench . -benchmem ./...

bench-postgres:
	TREELINE_BENCH=1 $(GO) test ./cmd/treeline -run '^TestBenchPostgres$$' -count 1 -timeout 90m -v | grep --line-buffered -v '^=== '

bench-search:
	TREELINE_BENCH=1 $(GO) test ./cmd/treeline -run '^TestBenchSearch$$' -count 1 -timeout 90m -v | grep --line-buffered -v '^=== '

bench-export:
	TREELINE_BENCH=1 $(GO) test ./cmd/treeline -run '^TestBenchExport$$' -count 1 -timeout 60m -v | grep --line-buffered -v '^=== '

bench-ingest:
	TREELINE_BENCH=1 $(GO) test ./cmd/treeline -run '^TestBenchIngest$$' -count 1 -timeout 90m -v | grep --line-buffered -v '^=== '

bench-purge:
	TREELINE_BENCH=1 $(GO) test ./cmd/treeline -run '^TestBenchPurge$$' -count 1 -timeout 60m -v | grep --line-buffered -v '^=== '

bench-witness:
	cd witness/interop && TREELINE_BENCH=1 $(GO) test -run '^TestBenchWitness$$' -count 1 -timeout 30m -v | grep --line-buffered -v '^=== '

bench-witnessed:
	TREELINE_BENCH=1 $(GO) test ./cmd/treeline -run '^TestBenchWitnessed$$' -count 1 -timeout 30m -v | grep --line-buffered -v '^=== '
