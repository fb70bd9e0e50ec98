// Package innodb knows InnoDB pages as they lie on disk: where the header
// fields are, which format a tablespace has, how a page is checked, sealed and
// expanded. It does no I/O and holds no state.
//
// Promises:
//
//   - Any bytes may be passed in. A damaged page gives a *ChecksumError or an
//     error that wraps ErrFormat, never a panic.
//   - A page that Verify accepts is a page the server wrote whole, or one that
//     was never written (all zero), as far as the checksum of its format can
//     tell. Encrypted pages are verified without keys.
//   - Verify does not allocate, except for page_compressed pages of the format
//     before full_crc32, whose checksum is inside the compressed stream.
//
// The format is a property of each tablespace, chosen when it was created and
// told by FSP_SPACE_FLAGS of its page 0: see ParseFlags. All integers on pages
// are big-endian.
package innodb
