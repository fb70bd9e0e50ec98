package innodb

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// This file knows what MySQL does to a page when it writes it, and only then: it
// compresses or encrypts it, and says so in the page's type. The flags of the
// tablespace do not tell whether its pages are compressed.

// Types of such pages (MySQL fil0fil.h).
const (
	typeMySQLCompressed          = 14
	typeMySQLEncrypted           = 15
	typeMySQLCompressedEncrypted = 16
	typeMySQLEncryptedRTree      = 17
)

// Offsets in a compressed page, in place of the flush LSN (MySQL fil0types.h,
// FIL_PAGE_VERSION and so on). The stream starts behind the header.
const (
	offMySQLVersion      = 26 // u8, 1 or 2
	offMySQLAlgorithm    = 27 // u8
	offMySQLOriginalType = 28 // u16
	offMySQLOriginalSize = 30 // u16 of what was compressed: all but the header
	offMySQLLength       = 32 // u16 of the stream
)

// mysqlAlgorithms are MySQL's numbers of the algorithms (MySQL file.h,
// Compression::Type).
var mysqlAlgorithms = map[byte]byte{1: AlgorithmZlib, 2: AlgorithmLZ4}

// mysqlEncrypted says whether a page of MySQL's is stored encrypted.
func mysqlEncrypted(page []byte) bool {
	switch Type(page) {
	case typeMySQLEncrypted, typeMySQLCompressedEncrypted, typeMySQLEncryptedRTree:
		return true
	}
	return false
}

// verifyMySQL checks a page of MySQL's. Of an encrypted one, nothing can be said.
func (f PageFormat) verifyMySQL(page []byte) *ChecksumError {
	switch {
	case mysqlEncrypted(page):
		return nil
	case Type(page) == typeMySQLCompressed && !f.Zip:
		return f.verifyMySQLCompressed(page)
	case f.Zip:
		return verifyZip(page)
	}
	return f.verifyPlain(page)
}

// verifyMySQLCompressed checks what is inside: the page has the checksum that it had
// before it was compressed.
func (f PageFormat) verifyMySQLCompressed(page []byte) *ChecksumError {
	inner := getScratch()
	defer putScratch(inner)
	buf := inner[:f.Logical]
	if err := f.Decompress(buf, page); err != nil {
		return &ChecksumError{Problem: "compressed page", Cause: err}
	}
	return f.verifyPlain(buf)
}

// expandMySQL makes the page that was compressed.
func (f PageFormat) expandMySQL(dst, page []byte) error {
	if Type(page) != typeMySQLCompressed {
		return ErrEncrypted
	}
	length, size := u16(page, offMySQLLength), u16(page, offMySQLOriginalSize)
	switch v := page[offMySQLVersion]; {
	case v != 1 && v != 2:
		return fmt.Errorf("compressed page of version %d: %w", v, ErrFormat)
	case length == 0 || OffData+length > len(page) || size != len(page)-OffData:
		return fmt.Errorf("compressed page of %d bytes, %d before: %w", length, size, ErrFormat)
	}
	algorithm, ok := mysqlAlgorithms[page[offMySQLAlgorithm]]
	if !ok {
		return fmt.Errorf("algorithm %d: %w", page[offMySQLAlgorithm], ErrAlgorithm)
	}
	copy(dst[:OffData], page)
	binary.BigEndian.PutUint16(dst[OffType:], uint16(u16(page, offMySQLOriginalType)))
	clear(dst[offMySQLVersion:OffSpaceID])
	if err := expanders[algorithm](dst[OffData:], page[OffData:OffData+length]); err != nil {
		return fmt.Errorf("expanding page (%s): %w: %w", algorithmNames[algorithm], err, ErrFormat)
	}
	return nil
}

// SystemFlushLSN is where page 0 of the system tablespace says up to which LSN all
// files were written when the server was stopped: MySQL starts there if its log is
// empty (MySQL srv0start.cc). It is not part of the checksum.
const SystemFlushLSN = offKeyVersion

// mysqlEncryptionInfo says whether page 0 has MySQL's encryption information,
// whatever its flags say: so it is while the server encrypts or decrypts the
// tablespace (MySQL fsp0fsp.cc, fsp_header_get_encryption_offset).
func (f PageFormat) mysqlEncryptionInfo(page0 []byte) bool {
	extent := f.ExtentSize()
	off := offXDES + f.Physical/extent*(24+extent*2/8)
	return off+3 <= len(page0) && bytes.HasPrefix(page0[off:], []byte("lC")) && page0[off+2] >= 'A' && page0[off+2] <= 'C'
}
