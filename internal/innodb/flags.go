package innodb

import (
	"errors"
	"fmt"
)

// ErrFormat is wrapped when flags or a page have a form no server writes.
var ErrFormat = errors.New("not a known InnoDB format")

// Page sizes innodb_page_size can have.
const (
	MinPageSize = 4 << 10
	MaxPageSize = 64 << 10
	// MinPhysicalSize is the smallest page of ROW_FORMAT=COMPRESSED.
	MinPhysicalSize = 1 << 10
)

// Algorithms of page_compressed (InnoDB fil0fil.h, PAGE_*_ALGORITHM).
const (
	AlgorithmNone   byte = 0
	AlgorithmZlib   byte = 1
	AlgorithmLZ4    byte = 2
	AlgorithmLZO    byte = 3
	AlgorithmLZMA   byte = 4
	AlgorithmBzip2  byte = 5
	AlgorithmSnappy byte = 6
)

// PageFormat is the form of all pages of one tablespace.
type PageFormat struct {
	// FullCRC32 tells the format of MariaDB 10.4 and later from the older.
	FullCRC32 bool
	// MySQL tells the pages of MySQL 5.7 and later: each may be compressed or
	// encrypted, as its type says. PageCompressed is false then.
	MySQL bool
	// Encrypted is set by the flags of MySQL; in MariaDB they do not tell.
	Encrypted bool
	// Logical is innodb_page_size, Physical the size of a page in the file,
	// in bytes. They differ only for ROW_FORMAT=COMPRESSED.
	Logical, Physical int
	// Zip is ROW_FORMAT=COMPRESSED.
	Zip bool
	// PageCompressed says that pages may be page_compressed in MariaDB's way.
	PageCompressed bool
	// Algorithm is the one of page_compressed tablespaces of full_crc32;
	// older ones name it in every page.
	Algorithm byte
}

// Bits of FSP_SPACE_FLAGS (InnoDB fsp0types.h).
const (
	flagFullCRC32      = 1 << 4
	flagPostAntelope   = 1 << 0
	flagAtomicBlobs    = 1 << 5
	flagPageCompressed = 1 << 16
	// flagDataDir was set by MySQL 5.6 and MariaDB 10.0; the server ignores it.
	flagDataDir = 1 << 10
	// oldKnownFlags are all bits a MariaDB since 10.1.21 accepts on disk.
	oldKnownFlags = flagPostAntelope | 0xf<<1 | flagAtomicBlobs | 0xf<<6 | flagDataDir | flagPageCompressed
)

// ParseFlags reads FSP_SPACE_FLAGS as MariaDB 10.1.21 and later writes them.
// Flags no such server accepts give an error that wraps ErrFormat.
func ParseFlags(flags uint32) (PageFormat, error) {
	f, problem := parseOldFlags, ""
	if flags&flagFullCRC32 != 0 {
		// Safe to tell by this bit: in the old format it is the highest
		// of the zip size, which never exceeds 5.
		f = parseFullCRC32Flags
	}
	pf, problem := f(flags)
	if problem != "" {
		return PageFormat{}, fmt.Errorf("tablespace flags %#x: %s: %w", flags, problem, ErrFormat)
	}
	return pf, nil
}

// parseFullCRC32Flags: bits 0-3 page size, 4 marker, 5-7 algorithm, rest 0.
func parseFullCRC32Flags(flags uint32) (PageFormat, string) {
	f := PageFormat{FullCRC32: true, Algorithm: byte(flags >> 5 & 7)}
	f.Logical = 512 << (flags & 0xf)
	f.Physical = f.Logical
	f.PageCompressed = f.Algorithm != AlgorithmNone
	switch {
	case flags>>8 != 0:
		return f, "unknown bits"
	case f.Logical < MinPageSize || f.Logical > MaxPageSize:
		return f, fmt.Sprintf("page size %d", f.Logical)
	case f.Algorithm > AlgorithmSnappy:
		return f, fmt.Sprintf("compression algorithm %d", f.Algorithm)
	}
	return f, ""
}

// parseOldFlags: bit 0 post-Antelope, 1-4 zip size, 5 atomic blobs, 6-9 page
// size, 10 data directory, 16 page_compressed.
func parseOldFlags(flags uint32) (PageFormat, string) {
	f := PageFormat{Logical: 16 << 10, PageCompressed: flags&flagPageCompressed != 0}
	if ssize := flags >> 6 & 0xf; ssize != 0 {
		f.Logical = 512 << ssize
		if ssize == 5 {
			return f, "page size 16384 spelled out" // always written as 0
		}
	}
	f.Physical = f.Logical
	if zip := flags >> 1 & 0xf; zip != 0 {
		f.Zip, f.Physical = true, 512<<zip
	}
	blobs := flags&flagAtomicBlobs != 0
	switch {
	case flags&^uint32(oldKnownFlags) != 0:
		return f, "unknown bits"
	case f.Logical < MinPageSize || f.Logical > MaxPageSize:
		return f, fmt.Sprintf("page size %d", f.Logical)
	case f.Physical > f.Logical || f.Zip && f.Logical > 16<<10:
		return f, fmt.Sprintf("compressed page size %d in %d", f.Physical, f.Logical)
	case blobs && flags&flagPostAntelope == 0:
		return f, "off-page blobs without their row format"
	case f.Zip && !blobs:
		return f, "compressed pages without their row format"
	case f.Zip && f.PageCompressed:
		return f, "two kinds of compression"
	}
	return f, ""
}
