// Package redotail takes redo off a running server's log, in LSN order, before
// the server overwrites it, and keeps it until a consumer asks for it.
//
// A Log is a server family's log as it is being written; each family has a
// folder of its own (internal/mariadb/tail). A Tailer reads a Log at its own pace
// and never waits for its consumer: what is not yet wanted lies in memory and
// then in a file, both bounded.
//
// Promises: every byte handed out belongs to a mini-transaction that was whole,
// had the right checksum and could not have been overwritten while it was
// read; pieces join without a gap. Redo that was lost, damage, a full spool and
// a log that does not move on are errors of their own, at once and by LSN.
// After the end the consumer gets io.EOF, and io.EOF means that the end was
// reached: every failure is an error.
package redotail
