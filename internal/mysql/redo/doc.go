// Package redo knows the redo log of MySQL 8.0.30 and later (format 6) as it
// lies on disk: files, headers, checkpoint blocks, log blocks, the chain of
// files, mini-transactions and the lengths of their records. It reads what it is
// given and keeps no state.
//
// The log is one stream of 512-byte blocks; the files #innodb_redo/#ib_redoN are
// windows on it. An LSN counts all bytes of the stream, block headers and
// trailers too. The records lie in the payload of the blocks only, 496 bytes in
// each: a Position counts those.
//
// A record has no length of its own: to find the next one, every type must be
// known. Records of index pages describe their index, so that no dictionary is
// needed (Index).
//
// Promises: any bytes may be given to any function; malformed ones give an
// error, never a panic, and nothing is allocated whose size the input claims.
// What a function returns as a slice points into its argument.
//
// Facts are from the sources of MySQL 8.0.30 and 9.7 (the file is named where
// they stand) and were checked on logs of real servers.
package redo
