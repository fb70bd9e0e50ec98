// Package backup takes a hot backup of a live server: it knows in which order
// files, redo and locks are taken so that what was read at different times
// becomes one moment, and what to copy again when a file changed meanwhile.
//
// It knows no family of servers and speaks no SQL: a Source does. Connections,
// locks, files and redo are rooms of their own; this one is the order in which
// they are used.
//
// Promises:
//
//   - Redo is followed from a checkpoint that is older than the first page that
//     is read, up to the moment that the backup stands for, without a gap.
//   - Which copy stands for which tablespace is settled by space id, when no
//     DDL can change it any more.
//   - Locks that were given up cost nothing that was copied.
//   - An archive gets its end only if nothing failed.
package backup
