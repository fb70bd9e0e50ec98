// Package redo knows the redo log of MariaDB 10.8 and later as it lies on
// disk: header, checkpoint blocks, the ring, mini-transactions and the frame
// of their records. It does no I/O and keeps no state.
//
// Promises: any bytes may be given to any function; malformed ones give an
// error, never a panic, and nothing is allocated whose size the input claims.
// What a function returns as a slice points into its argument.
//
// An encrypted log is framed without its key: records of a mini-transaction
// can be told apart and its checksum checked, but neither page ids nor file
// names can be read.
package redo
