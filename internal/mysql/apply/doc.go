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
// page's modification log. Nothing is compressed anew: if the server does that,
// the record holds the whole page, unless innodb_log_compressed_pages is OFF.
// Then two records say only that the page was compressed; the same bytes need the
// same version of zlib, and ErrRecompress is returned.
//
// Promises: any bytes may be given as page and as records; what does not fit
// gives ErrMalformed, never a panic, and leaves the page in any state.
//
// Facts are from the sources of MySQL 8.0.30 (the file is named where they stand)
// and were checked on hot copies of a real server.
package apply
