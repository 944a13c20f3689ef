// Package api is Treeline's HTTP interface: who may do what, what a request means, and how an answer looks.
//
// A request passes through: Server.ServeHTTP (request id, panics), the route's handler as routes.go
// lists it (authentication, role, the log it is about), and one function that does the work by calling package log. Every
// error ends in writeError, whose one switch gives it a status and a stable code.
//
// Only cmd/treeline imports this package; it imports log and what log builds on.
package api
