// Package classic reads the XBSTCK01 stream of mbstream (MariaDB) and xbstream
// (Percona), as mariabackup and xtrabackup write it, and hands it out as frames
// of an archive of ordinary files (SPEC.md §11).
//
// Promises:
//
//   - No length in a stream decides on how much is allocated: payloads are
//     passed on in pieces, everything else is bounded.
//   - Every path was checked by format.CheckPath; the offsets of a file join.
//   - Chunks that remove, rename and write again act on the names of files that
//     the stream itself brought, and on nothing else.
//   - A stream ends well only between two chunks, with all files closed, and
//     with the two files that every backup brings at its end. What mbstream
//     takes for a whole stream often is none.
//
// The format has no checksum over its headers. What is not noticed: a file that
// is missing with all its chunks or is empty for want of its only data, a name
// flipped in a chunk that renames or removes or is an empty file's only one.
package classic
