package format

import "strconv"

// LSN is a position in a server's redo stream, in bytes.
type LSN uint64

// String prints the LSN as the servers do: decimal.
func (l LSN) String() string { return strconv.FormatUint(uint64(l), 10) }

// SpaceID is the number of a tablespace.
type SpaceID uint32

// String prints the number in decimal.
func (s SpaceID) String() string { return strconv.FormatUint(uint64(s), 10) }

// PageNo is the number of a page within its tablespace, from 0.
type PageNo uint32

// String prints the number in decimal.
func (p PageNo) String() string { return strconv.FormatUint(uint64(p), 10) }

// FileNo is the number of a file within one archive, from 1 in the order of
// the FILE frames. 0 means "no file".
type FileNo uint32

// String prints the number in decimal.
func (n FileNo) String() string { return strconv.FormatUint(uint64(n), 10) }
