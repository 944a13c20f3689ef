// Package client writes events to a Treeline server, and reads them back.
//
// There are two ways to write, and both are a Recorder:
//
//   - A Client is strict: Append returns when the server has stored the event durably, at its final index, or has said why not. It
//     repeats what may be repeated, under the same id, so that nothing is recorded twice.
//   - A Spool is buffered: Record returns when the event is in a file of this machine. A goroutine sends what is there, in order, for
//     as long as it takes. Neither a server that is away nor a process that is killed loses an event or records it twice.
//
// NewHandler makes either of them a slog.Handler, and Middleware records what HTTP requests did. The program in the folder example
// shows all of it in a small web application.
//
// The package has nothing but the standard library below it, and shares no code with the server: the two meet at the HTTP
// interface, whose description is at /openapi.yaml.
package client
