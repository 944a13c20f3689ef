package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// MaxBatch is how many events a batch holds at most.
const MaxBatch = 10_000

// Append records an event and returns when the server has stored it durably, at its final index. What fails on the way is sent
// again under the same id.
//
// After an error the event may be stored or not. To be sure, give it an id of your own, and append it again with the same content.
func (c *Client) Append(ctx context.Context, e Event) (*Record, error) { return c.append(ctx, e, nil) }

// AppendAndWait does the same, and waits until the event is in the state, at most 10 s. The record says how far it came, and has the
// event's proof if that is far enough.
func (c *Client) AppendAndWait(ctx context.Context, e Event, state State) (*Record, error) {
	return c.append(ctx, e, url.Values{"wait": {string(state)}})
}

func (c *Client) append(ctx context.Context, e Event, query url.Values) (*Record, error) {
	data, err := prepare(&e, time.Now())
	if err != nil {
		return nil, err
	}
	body, err := c.do(ctx, request{http.MethodPost, "/v1/events", query, "application/json", data})
	if err != nil {
		return nil, fmt.Errorf("append event %s: %w", e.ID, err)
	}
	record := new(Record)
	if err := json.Unmarshal(body, record); err != nil {
		return nil, errAnswer("record", err)
	}
	return record, nil
}

// Record is Append for those to whom the place of the event doesn't matter: the strict Recorder.
func (c *Client) Record(ctx context.Context, e Event) error {
	_, err := c.Append(ctx, e)
	return err
}

// AppendBatch records events, all or none, at consecutive indices in this order, and returns their places. Events without an id get
// one, in the slice too, so that after an error the same slice can be appended again.
func (c *Client) AppendBatch(ctx context.Context, events []Event) ([]Place, error) {
	if len(events) == 0 {
		return nil, nil
	}
	var lines bytes.Buffer
	now := time.Now()
	for i := range events {
		data, err := prepare(&events[i], now)
		if err != nil {
			return nil, fmt.Errorf("event %d: %w", i, err)
		}
		lines.Write(data)
		lines.WriteByte('\n')
	}
	body, err := c.do(ctx, batchOf(lines.Bytes()))
	if err != nil {
		return nil, fmt.Errorf("append %d events: %w", len(events), err)
	}
	return places(body, len(events))
}

// batchOf returns the request that appends events, one a line.
func batchOf(lines []byte) request {
	return request{method: http.MethodPost, path: "/v1/events/batch", kind: "application/x-ndjson", body: lines}
}

// places decodes the answer to a batch of n events.
func places(body []byte, n int) ([]Place, error) {
	var answer struct {
		Data []Place `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, errAnswer("list of places", err)
	}
	if len(answer.Data) != n {
		return nil, fmt.Errorf("the server's answer has %d places, want %d", len(answer.Data), n)
	}
	return answer.Data, nil
}
