// Package apply applies the redo records of MySQL 8.0.30 and later to pages, so
// that a page becomes byte for byte what the server's own recovery makes of it.
// It does no I/O.
//
// Records of index pages say what to do, not which bytes change: insert this row
// after that one. The package does what the server does with its list of rows,
// its directory and its heap. The record describes the index, so no dictionary is
// needed.
//
// A page of ROW_FORMAT=COMPRESSED is kept in two forms: as it lies in the file,
// and expanded. A change is made to both; in the file it is appended to the
// page's modification log. If the server compresses the page, the record holds it
// as a whole, unless innodb_log_compressed_pages is OFF: then two records say only
// that this was done. The page is compressed here in that case. It has the same
// rows and other bytes, which depend on the version of zlib, and it may not fit:
// ErrRecompress.
//
// Promises: any bytes may be given as page and as records; what does not fit
// gives ErrMalformed, never a panic, and leaves the page in any state.
//
// Facts are from the sources of MySQL 8.0.30 (the file is named where they stand)
// and were checked on hot copies of a real server.
package apply
