package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/treeline-log/treeline/log"
)

// eventFlags are the flags that describe one event, each named as the event's member in its flat spelling.
var eventFlags = []struct{ name, usage string }{
	{"action", "what happened, like user.permission.updated"},
	{"id", "id of the event, unique in its log for ever (default a new UUIDv7)"},
	{"occurred-at", "when it happened, RFC 3339"},
	{"actor-id", "who did it"},
	{"actor-type", "what kind of thing did it, like user"},
	{"actor-name", "name of who did it"},
	{"actor-email", "e-mail address of who did it"},
	{"target-id", "what it was done to"},
	{"target-type", "what kind of thing it was done to, like document"},
	{"target-name", "name of what it was done to"},
	{"ip", "address it was done from"},
	{"user-agent", "program it was done with"},
	{"outcome", "success, failure, denied or unknown"},
}

// appendOptions are the flags of append beside those of the event and of the client.
type appendOptions struct {
	log         string
	metadata    []string
	wait        string
	batch       int
	concurrency int
	idPrefix    string
	json        bool
}

func newAppendCmd() *cobra.Command {
	var opt appendOptions
	cmd := &cobra.Command{
		Use:   "append [FILE | -]",
		Short: "Append one event from flags, or many from NDJSON",
		Long: `Append sends events to a log: one that the flags describe, or every line of an NDJSON
file (of standard input for "-") in batches, each stored whole or not at all, in order.

Every event is sent with an id, so that what is sent twice is stored once. A line of a
FILE that has none gets one made of the content of the file from its first line up to
this one: after an interruption run the same command again, and what is stored already
counts as duplicates; a file that has grown sends only what is new. Two files that begin
with the same lines would share their ids, so give each an --id-prefix if their lines
don't tell them apart (by a time, say). Lines of standard input get random ids, since
the same line piped in twice may well be two events; with --id-prefix they are treated
as those of a file.

An event's --metadata is KEY=VALUE. A VALUE that is JSON is taken as JSON, and any other
as a string; so is a number that JSON would spell differently, like 1.10 or 007.`,
		Example: `  treeline append --action user.login --actor-id user_123 --metadata method=sso --wait
  treeline append events.ndjson
  zcat events.ndjson.gz | treeline append --id-prefix archive-2025 -`,
		Args: arguments(0, 1, "at most one FILE"),
	}
	client := addClientFlags(cmd)
	flags := cmd.Flags()
	for _, f := range eventFlags {
		flags.String(f.name, "", f.usage)
	}
	flags.StringArrayVar(&opt.metadata, "metadata", nil, "member of the metadata as `KEY=VALUE`; may be repeated")
	flags.StringVar(&opt.log, "log", "", "`NAME` of the log, for a key that isn't bound to one")
	flags.StringVar(&opt.wait, "wait", "", "wait until the (last) event is in a `STATE`: signed, or with --wait=witnessed until witnesses have cosigned it")
	flags.Lookup("wait").NoOptDefVal = "signed"
	flags.IntVar(&opt.batch, "batch", 1000, "events in a batch, 1 to 10000; a batch is never over 16 MiB")
	flags.IntVar(&opt.concurrency, "concurrency", 1, "batches in flight; with more than one, batches may be stored in another order than the file's")
	flags.StringVar(&opt.idPrefix, "id-prefix", "", "`TEXT` that the ids made for lines without one begin with (default \"line\")")
	flags.BoolVar(&opt.json, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := opt.check(); err != nil {
			return err
		}
		event, err := eventFromFlags(cmd.Flags(), opt.metadata)
		if err != nil {
			return err
		}
		switch {
		case len(args) == 1 && event != nil && opt.wait != "" && slices.Contains(states, args[0]):
			return withHint(fmt.Errorf("append: both the file %s and an event are given", args[0]), "to wait for a state write --wait="+args[0])
		case len(args) == 1 && event != nil:
			return withHint(errors.New("append: both a file and an event are given"), "give the FILE or the event's flags")
		case len(args) == 0 && event == nil:
			return withHint(errors.New("append: nothing to append"), "give an event by --action and other flags, an NDJSON FILE, or - for standard input")
		}
		c, err := newClient(cmd, client)
		if err != nil {
			return err
		}
		if len(args) == 1 {
			return appendFile(cmd, c, &opt, args[0])
		}
		return appendEvent(cmd, c, &opt, event)
	}
	return cmd
}

// states are those of an event, in the order in which it passes through them.
var states = []string{string(log.StateSequenced), string(log.StateSigned), string(log.StateWitnessed)}

// check returns an error that names the first option out of its range.
func (o *appendOptions) check() error {
	switch {
	case o.wait != "" && !slices.Contains(states[1:], o.wait):
		return fmt.Errorf("--wait=%s: want signed or witnessed", o.wait)
	case o.batch < 1 || o.batch > maxBatchEvents:
		return fmt.Errorf("--batch %d: want 1 to %d events", o.batch, maxBatchEvents)
	case o.concurrency < 1 || o.concurrency > maxConcurrency:
		return fmt.Errorf("--concurrency %d: want 1 to %d", o.concurrency, maxConcurrency)
	case o.idPrefix != "" && !validIDPrefix(o.idPrefix):
		return fmt.Errorf("--id-prefix %q: want 1 to %d of A-Za-z0-9._:- that begin with a letter or digit", o.idPrefix, maxIDPrefix)
	}
	return nil
}

// query returns the query of an append, with the wait if that is asked for.
func (o *appendOptions) query(wait bool) url.Values {
	query := url.Values{}
	if o.log != "" {
		query.Set("log", o.log)
	}
	if wait && o.wait != "" {
		query.Set("wait", o.wait)
	}
	return query
}

// eventFromFlags returns the event that the flags describe, without an id unless one is given, or nil if they
// describe none.
func eventFromFlags(flags *pflag.FlagSet, metadata []string) (map[string]any, error) {
	event := map[string]any{}
	for _, f := range eventFlags {
		if !flags.Changed(f.name) {
			continue
		}
		value := flags.Lookup(f.name).Value.String()
		// Making JSON of it would silently change such a value.
		if !utf8.ValidString(value) {
			return nil, fmt.Errorf("--%s %q: not valid UTF-8", f.name, value)
		}
		event[strings.ReplaceAll(f.name, "-", "_")] = value
	}
	members := map[string]any{}
	for _, m := range metadata {
		key, value, ok := strings.Cut(m, "=")
		if _, twice := members[key]; !ok || twice || !utf8.ValidString(m) {
			return nil, fmt.Errorf("--metadata %q: want KEY=VALUE in UTF-8, each KEY once", m)
		}
		members[key] = metadataValue(value)
	}
	if len(members) > 0 {
		event["metadata"] = members
	}
	if len(event) == 0 {
		return nil, nil
	}
	if event["action"] == nil {
		return nil, withHint(errors.New("append: the event has no action"), "say what happened by --action")
	}
	return event, nil
}

// metadataValue returns the JSON value that a flag's text stands for. Text that isn't JSON stands for itself; so does
// a number that would not be spelled the same after a trip through JSON, since it may be a version or a code.
func metadataValue(text string) any {
	if !json.Valid([]byte(text)) {
		return text
	}
	if number, err := strconv.ParseFloat(text, 64); err == nil {
		if again, err := json.Marshal(number); err != nil || string(again) != text {
			return text
		}
	}
	return json.RawMessage(text)
}

// appendEvent sends one event and prints its record.
func appendEvent(cmd *cobra.Command, c *client, opt *appendOptions, event map[string]any) error {
	if event["id"] == nil {
		// An id of our own makes the request repeatable when its outcome is unknown.
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		event["id"] = id.String()
	}
	body, err := json.Marshal(event)
	if err != nil {
		return err
	}
	answer, err := c.do(cmd.Context(), &request{
		method:      http.MethodPost,
		path:        "/v1/events",
		query:       opt.query(true),
		contentType: "application/json",
		body:        body,
		repeatable:  true,
	})
	if err != nil {
		return fmt.Errorf("append event %s: %w", event["id"], err)
	}
	var record placed
	if err := decodeAnswer(answer, &record); err != nil {
		return err
	}
	if opt.json {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", strings.TrimSuffix(string(answer), "\n"))
	} else {
		verb := "appended"
		if record.Duplicate {
			verb = "found, already stored,"
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %s at index %d of log %s (%s, leaf hash %s)\n", verb,
			printable(record.ID, ""), record.Index, printable(record.Log, ""), printable(record.State, ""), printable(record.Hash, ""))
	}
	if err != nil {
		return err
	}
	return opt.checkState(record.ID, record.State)
}

// placed is what the client reads of a record: where an event is in its log.
type placed struct {
	ID        string `json:"id"`
	Log       string `json:"log"`
	Index     uint64 `json:"index"`
	Hash      string `json:"hash"`
	State     string `json:"state"`
	Duplicate bool   `json:"duplicate"`
}

// checkState returns an error when the caller asked to wait for a state that the event has not reached in the time
// that a server waits.
func (o *appendOptions) checkState(id, state string) error {
	if o.wait == "" || slices.Index(states, state) >= slices.Index(states, o.wait) {
		return nil
	}
	return withHint(fmt.Errorf("event %s is stored for good but was not %s in time", id, o.wait),
		"get its proof later with: treeline proof "+id)
}
