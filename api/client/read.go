package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Event returns the record of an event. There is none if IsCode(err, "not_found").
func (c *Client) Event(ctx context.Context, id string) (*Record, error) {
	return get[Record](ctx, c, "/v1/events/"+url.PathEscape(id), nil, "record")
}

// Query selects events. Different members must all be met, and each is met by any of its values.
type Query struct {
	Words        []string // in the texts of an event: of each of these all words, whatever their capitals
	Actions      []string // an action, or with * at the end what it begins with: user.*
	ActorIDs     []string
	ActorEmails  []string
	TargetIDs    []string
	TargetTypes  []string
	Outcomes     []Outcome
	IPs          []string
	From, To     time.Time           // of OccurredAt, or else ReceivedAt: at or after From, before To
	ReceivedFrom time.Time           // of ReceivedAt
	ReceivedTo   time.Time           //
	Metadata     map[string][]string // by path, such as "plan" or "request.region"

	Oldest bool   // first; else the newest
	Limit  int    // records of a page, at most 1,000; 0: 50
	Cursor string // Next of the page before
}

// values returns the query's parameters.
func (q *Query) values() url.Values {
	v := url.Values{}
	for name, values := range map[string][]string{
		"q": q.Words, "action": q.Actions, "actor_id": q.ActorIDs, "actor_email": q.ActorEmails,
		"target_id": q.TargetIDs, "target_type": q.TargetTypes, "ip": q.IPs,
	} {
		if len(values) > 0 {
			v[name] = values
		}
	}
	for _, o := range q.Outcomes {
		v.Add("outcome", string(o))
	}
	for path, values := range q.Metadata {
		v["metadata."+path] = values
	}
	for name, t := range map[string]time.Time{"from": q.From, "to": q.To, "received_from": q.ReceivedFrom, "received_to": q.ReceivedTo} {
		if !t.IsZero() {
			v.Set(name, t.UTC().Format(time.RFC3339Nano))
		}
	}
	if q.Oldest {
		v.Set("order", "oldest")
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Cursor != "" {
		v.Set("cursor", q.Cursor)
	}
	return v
}

// Page is a part of a list. It may hold fewer records than were asked for, or none, and still not be the last.
type Page struct {
	Records []Record `json:"data"`
	Next    string   `json:"next_cursor"` // "" if this is the last page
	More    bool     `json:"has_more"`
	Size    uint64   `json:"size"` // of the log, when the page was made
	// Searched is the part of the log that the page is about: every event from index From up to before To.
	Searched struct {
		From uint64 `json:"from"`
		To   uint64 `json:"to"`
	} `json:"searched"`
}

// Events returns a page of the events that the query selects.
func (c *Client) Events(ctx context.Context, q Query) (*Page, error) {
	return get[Page](ctx, c, "/v1/events", q.values(), "page of records")
}

// All returns all events that the query selects, page by page as they are taken. An error is the last thing it yields.
func (c *Client) All(ctx context.Context, q Query) iter.Seq2[*Record, error] {
	return func(yield func(*Record, error) bool) {
		for {
			page, err := c.Events(ctx, q)
			if err != nil {
				yield(nil, err)
				return
			}
			for i := range page.Records {
				if !yield(&page.Records[i], nil) {
					return
				}
			}
			if !page.More {
				return
			}
			q.Cursor = page.Next
		}
	}
}

// feed is a page of a log from an index on.
type feed struct {
	Data []Record `json:"data"`
	Next uint64   `json:"next"`
}

// Follow returns the log's events from an index on, in order and without gaps, and waits for those that are yet to come until the
// context ends. An error is the last thing it yields; go on after the index of the last record.
func (c *Client) Follow(ctx context.Context, from uint64) iter.Seq2[*Record, error] {
	return func(yield func(*Record, error) bool) {
		for {
			page, err := get[feed](ctx, c, "/v1/feed", url.Values{"from": {strconv.FormatUint(from, 10)}}, "page of records")
			if err != nil {
				yield(nil, err)
				return
			}
			for i := range page.Data {
				if !yield(&page.Data[i], nil) {
					return
				}
			}
			from = page.Next
		}
	}
}

// Proof returns the proof file of an event, which anyone can check without this server (C2SP tlog-proof). It waits up to 10 s until
// the event is in the state, Signed or Witnessed; IsCode(err, "not_signed") if it isn't signed by then.
func (c *Client) Proof(ctx context.Context, id string, state State) ([]byte, error) {
	return c.do(ctx, request{
		method: http.MethodGet, path: "/v1/events/" + url.PathEscape(id) + "/proof", query: url.Values{"wait": {string(state)}},
	})
}

// Checkpoint is a log's newest signed state.
type Checkpoint struct {
	Log        string   `json:"log"`
	Origin     string   `json:"origin"`
	VKeys      []string `json:"vkeys"`      // that the log has ever signed with; for convenience, pin one that you were given otherwise
	Checkpoint string   `json:"checkpoint"` // a signed note with the cosignatures that there are
	Sizes      struct {
		Size      uint64 `json:"size"`
		Signed    uint64 `json:"signed"`
		Released  uint64 `json:"released"`
		Witnessed uint64 `json:"witnessed"`
	} `json:"sizes"`
}

// Checkpoint returns the log's newest signed checkpoint.
func (c *Client) Checkpoint(ctx context.Context) (*Checkpoint, error) {
	return get[Checkpoint](ctx, c, "/v1/checkpoint", nil, "checkpoint")
}
