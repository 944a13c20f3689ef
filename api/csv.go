package api

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/treeline-log/treeline/log"
)

// csvColumns are the columns of an export as CSV, in order. Where there is a pointer, the cell is the text of that claim.
var csvColumns = [...]struct {
	name, pointer string
	cell          func(dst []byte, r *log.Record, e *log.Event) []byte
}{
	{name: "index", cell: func(dst []byte, r *log.Record, _ *log.Event) []byte { return strconv.AppendUint(dst, r.Index, 10) }},
	{name: "received_at", cell: func(dst []byte, r *log.Record, _ *log.Event) []byte { return log.AppendTime(dst, r.ReceivedAt) }},
	{name: "id", pointer: "/id"},
	{name: "action", pointer: "/action"},
	{name: "occurred_at", pointer: "/occurred_at"},
	{name: "outcome", pointer: "/outcome"},
	{name: "actor_id", pointer: "/actor/id"},
	{name: "actor_type", pointer: "/actor/type"},
	{name: "actor_name", pointer: "/actor/name"},
	{name: "actor_email", pointer: "/actor/email"},
	{name: "target_id", pointer: "/targets/0/id"},
	{name: "target_type", pointer: "/targets/0/type"},
	{name: "target_name", pointer: "/targets/0/name"},
	{name: "more_targets", cell: func(dst []byte, _ *log.Record, e *log.Event) []byte { return appendMoreTargets(dst, e) }},
	{name: "ip", pointer: "/context/ip"},
	{name: "user_agent", pointer: "/context/user_agent"},
	{name: "location", pointer: "/context/location"},
	{name: "session_id", pointer: "/context/session_id"},
	{name: "request_id", pointer: "/context/request_id"},
	{name: "traceparent", pointer: "/context/traceparent"},
	{name: "changes", cell: func(dst []byte, _ *log.Record, e *log.Event) []byte { return appendChanges(dst, e) }},
	{name: "metadata", cell: func(dst []byte, _ *log.Record, e *log.Event) []byte { return append(dst, e.Metadata()...) }},
	{name: "credential", pointer: "/credential"},
	{name: "hash", cell: func(dst []byte, r *log.Record, _ *log.Event) []byte { return hex.AppendEncode(dst, r.Hash[:]) }},
	{name: "erased_by", cell: appendErasedBy},
	{name: "purged_by", cell: func(dst []byte, r *log.Record, _ *log.Event) []byte {
		if r.PurgedBy == nil {
			return dst
		}
		return append(dst, r.PurgedBy.ID...)
	}},
}

// csvColumnOf are the columns of claims, by their pointers.
var csvColumnOf = func() map[string]int {
	of := map[string]int{}
	for i, c := range csvColumns {
		if c.pointer != "" {
			of[c.pointer] = i
		}
	}
	return of
}()

// csvHead is the first line.
var csvHead = func() string {
	var names []string
	for _, c := range csvColumns {
		names = append(names, c.name)
	}
	return strings.Join(names, ",") + "\r\n"
}()

// recordCSV appends a record as a line of RFC 4180.
func recordCSV(dst []byte, r *log.Record) ([]byte, error) {
	e, err := r.Shown()
	if err != nil {
		return dst, fmt.Errorf("entry %d: %w", r.Index, err)
	}
	if e == nil { // it was purged
		e = new(log.Event)
	}
	var values [len(csvColumns)][]byte
	for _, c := range e.Claims() {
		if i, ok := csvColumnOf[c.Pointer]; ok {
			values[i] = c.Value
		}
	}
	var cell []byte
	for i := range csvColumns {
		if i > 0 {
			dst = append(dst, ',')
		}
		cell = cell[:0]
		if c := &csvColumns[i]; c.cell != nil {
			cell = c.cell(cell, r, e)
		} else if values[i] != nil {
			cell = appendText(cell, values[i])
		}
		dst = appendCell(dst, cell)
	}
	return append(dst, "\r\n"...), nil
}

// appendCell appends the text of a cell. Every cell that isn't empty is in quotation marks, so that a spreadsheet which separates by
// something else doesn't find more cells in it; and one that a spreadsheet would take for a formula, or that begins with an
// apostrophe, has an apostrophe before it. So a reader that takes away one apostrophe from the beginning has the text.
func appendCell(dst, text []byte) []byte {
	if len(text) == 0 {
		return dst
	}
	dst = append(dst, '"')
	if startsFormula(text) || text[0] == '\'' {
		dst = append(dst, '\'')
	}
	for {
		before, after, found := bytes.Cut(text, []byte(`"`))
		dst = append(dst, before...)
		if !found {
			return append(dst, '"')
		}
		dst, text = append(dst, `""`...), after
	}
}

// startsFormula reports whether a spreadsheet might run a cell with the text (OWASP, CSV Injection): those that begin with =, +, -
// and @, also in their full-width forms, and with the white space that some programs skip before them.
func startsFormula(text []byte) bool {
	switch text[0] {
	case '=', '+', '-', '@', '\t', '\r', '\n':
		return true
	}
	for _, wide := range []string{"＝", "＋", "－", "＠"} {
		if bytes.HasPrefix(text, []byte(wide)) {
			return true
		}
	}
	return false
}

// appendText appends the content of a JSON string.
func appendText(dst, value []byte) []byte {
	if bytes.IndexByte(value, '\\') < 0 {
		return append(dst, value[1:len(value)-1]...)
	}
	var text string
	if err := json.Unmarshal(value, &text); err != nil {
		panic(err) // it is a string of a canonical event
	}
	return append(dst, text...)
}

// claimOf returns the value of a claim, nil if the event has no such claim.
func claimOf(e *log.Event, pointer string) []byte {
	claims := e.Claims()
	i, found := slices.BinarySearchFunc(claims, pointer, func(c log.EventClaim, p string) int { return strings.Compare(c.Pointer, p) })
	if !found {
		return nil
	}
	return claims[i].Value
}

// appendErasedBy appends the ids of the events that erased claims, with spaces between them.
func appendErasedBy(dst []byte, r *log.Record, _ *log.Event) []byte {
	for i, by := range r.ErasedBy {
		if i > 0 {
			dst = append(dst, ' ')
		}
		dst = append(dst, by.ID...)
	}
	return dst
}

// appendMoreTargets appends the targets but for the first as a JSON array, nothing if there are no more.
func appendMoreTargets(dst []byte, e *log.Event) []byte {
	for i := 1; ; i++ {
		target := "/targets/" + strconv.Itoa(i) + "/"
		id := claimOf(e, target+"id")
		if id == nil {
			if i > 1 {
				dst = append(dst, ']')
			}
			return dst
		}
		dst = append(append(append(dst, separator(i == 1)), `{"id":`...), id...)
		for _, name := range []string{"name", "type"} {
			if value := claimOf(e, target+name); value != nil {
				dst = append(append(append(append(dst, `,"`...), name...), `":`...), value...)
			}
		}
		dst = append(dst, '}')
	}
}

// appendChanges appends the changes as a JSON array, nothing if there are none.
func appendChanges(dst []byte, e *log.Event) []byte {
	for i := 0; ; i++ {
		change := claimOf(e, "/changes/"+strconv.Itoa(i))
		if change == nil {
			if i > 0 {
				dst = append(dst, ']')
			}
			return dst
		}
		dst = append(append(dst, separator(i == 0)), change...)
	}
}

// separator is what stands before an element of a JSON array.
func separator(first bool) byte {
	if first {
		return '['
	}
	return ','
}
