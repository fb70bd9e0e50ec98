package innodb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/xbstream/xbstream/format"
)

// ChecksumError says how a page is not what its format wants.
type ChecksumError struct {
	// PageNo is the page that was expected; LSN what the page says.
	PageNo format.PageNo
	LSN    format.LSN
	// Problem names the field, as "checksum" or "page number"; Found is what
	// it holds and Want what it should hold. Both are 0 where the problem
	// is not about one number; Cause is set then.
	Problem     string
	Found, Want uint32
	Cause       error
}

func (e *ChecksumError) Error() string {
	at := fmt.Sprintf("page %d (lsn %d): %s", e.PageNo, e.LSN, e.Problem)
	if e.Cause != nil {
		return at + ": " + e.Cause.Error()
	}
	return fmt.Sprintf("%s is %#x, not %#x", at, e.Found, e.Want)
}

func (e *ChecksumError) Unwrap() error { return e.Cause }

// zeroPage is compared against to find pages that were never written.
var zeroPage [MaxPageSize]byte

// IsZero says whether p, of any length, is all zero.
func IsZero(p []byte) bool {
	if len(p) >= 16 && (binary.NativeEndian.Uint64(p)|binary.NativeEndian.Uint64(p[8:])) != 0 {
		return false // the page number alone settles most pages
	}
	for len(p) > len(zeroPage) {
		if !bytes.Equal(p[:len(zeroPage)], zeroPage[:]) {
			return false
		}
		p = p[len(zeroPage):]
	}
	return bytes.Equal(p, zeroPage[:len(p)])
}

// Verify checks one page, which must be f.Physical bytes long, against its
// checksum and its number. An all-zero page is sound: it was never written. A
// page that is not sound gives a *ChecksumError.
func (f PageFormat) Verify(page []byte, no format.PageNo) error {
	if len(page) != f.Physical || len(page) < MinPhysicalSize {
		return fmt.Errorf("page %d of %d bytes where the format has %d: %w", no, len(page), f.Physical, ErrFormat)
	}
	if f.isUnwritten(page) {
		return nil
	}
	// The number first: it is the cheapest, and a misplaced page is best
	// described by it.
	if found := PageNo(page); found != no {
		return &ChecksumError{PageNo: no, LSN: LSN(page), Problem: "page number", Found: uint32(found), Want: uint32(no)}
	}
	if e := f.verifySum(page); e != nil {
		e.PageNo, e.LSN = no, LSN(page)
		return e
	}
	return nil
}

// isUnwritten says whether the page is as the file system made it. Before
// full_crc32 bytes 26..33 may be set in a page that is zero otherwise.
func (f PageFormat) isUnwritten(page []byte) bool {
	if IsZero(page) {
		return true
	}
	return !f.FullCRC32 && IsZero(page[:offKeyVersion]) && IsZero(page[OffSpaceID:])
}

func (f PageFormat) verifySum(page []byte) *ChecksumError {
	switch {
	case f.FullCRC32:
		return verifyFull(page)
	case f.MySQL:
		return f.verifyMySQL(page)
	case f.Zip:
		return verifyZip(page)
	default:
		return f.verifyOld(page)
	}
}

// fullSize returns the number of bytes of the slot that a full_crc32 page uses,
// checksum included, and whether it is page_compressed.
func fullSize(page []byte) (size int, compressed bool) {
	t := Type(page)
	if t&typeFullCompressedMarker == 0 {
		return len(page), false
	}
	return int(t&^typeFullCompressedMarker) << 8, true
}

func verifyFull(page []byte) *ChecksumError {
	size, compressed := fullSize(page)
	if compressed && (size == 0 || size >= len(page)) {
		return &ChecksumError{Problem: "compressed size", Found: uint32(size), Want: uint32(len(page))}
	}
	end := size - checksumLength
	if want, found := crc(page[:end]), u32(page, end); found != want {
		return &ChecksumError{Problem: "checksum", Found: found, Want: want}
	}
	// The copy of the LSN is compressed or encrypted with the rest.
	if encrypted := u32(page, offChecksum) != 0; compressed || encrypted {
		return nil
	}
	return verifyLSNCopy(page, size-Trailer)
}

func verifyLSNCopy(page []byte, off int) *ChecksumError {
	if found, want := u32(page, off), u32(page, offLSN+4); found != want {
		return &ChecksumError{Problem: "copy of the LSN", Found: found, Want: want}
	}
	return nil
}

func verifyZip(page []byte) *ChecksumError {
	want := zipCRC(page)
	if encryptedOld(page) && u32(page, offCryptSum) == want {
		return nil
	}
	switch found := u32(page, offChecksum); {
	case found == want, found == noChecksum, found == zipAdler(page):
		return nil
	default:
		return &ChecksumError{Problem: "checksum", Found: found, Want: want}
	}
}

// encryptedOld says whether a page before full_crc32 looks encrypted. Page 0
// never is; spatial index pages have a number in the same place that hardly
// ever reaches it, so that a page is sound in either reading.
func encryptedOld(page []byte) bool {
	return u32(page, offKeyVersion) != 0 && PageNo(page) != 0
}

func (f PageFormat) verifyOld(page []byte) *ChecksumError {
	want := oldCRC(page)
	if encryptedOld(page) && u32(page, offCryptSum) == want {
		return nil
	}
	if f.PageCompressed {
		switch Type(page) {
		case TypePageCompressed:
			return f.verifyOldCompressed(page)
		case TypePageCompressedCrypt:
			return f.verifyOldCryptCompressed(page)
		}
	}
	return f.verifyPlain(page)
}

// verifyPlain checks a page before full_crc32 that is neither compressed nor
// encrypted.
func (f PageFormat) verifyPlain(page []byte) *ChecksumError {
	want, trailer := oldCRC(page), len(page)-Trailer
	first, second := u32(page, offChecksum), u32(page, trailer)
	if first != want || second != want {
		if !legacySums(page, first, second) {
			return &ChecksumError{Problem: "checksum", Found: first, Want: want}
		}
	}
	return verifyLSNCopy(page, trailer+4)
}

// legacySums accepts what innodb_checksum_algorithm=none and =innodb wrote:
// a data directory that came a long way still has such pages.
func legacySums(page []byte, first, second uint32) bool {
	if first == noChecksum && second == noChecksum {
		return true
	}
	// The second was the high half of the LSN, by mistake, for some years.
	return first == legacySum(page) &&
		(second == legacyTrailerSum(page) || second == u32(page, offLSN))
}

var errHeaders = errors.New("its header is not that of the page inside")

// verifyOldCompressed expands the page and checks what was inside, since the
// page as stored has no checksum.
func (f PageFormat) verifyOldCompressed(page []byte) *ChecksumError {
	inner := getScratch()
	defer putScratch(inner)
	buf := inner[:f.Logical]
	switch err := f.Decompress(buf, page); {
	case errors.Is(err, ErrAlgorithm):
		return nil // the header made sense, there is no way to tell more
	case err != nil:
		return &ChecksumError{Problem: "compressed page", Cause: err}
	}
	// The header outside is a copy of the one inside, but for the type.
	if !bytes.Equal(buf[OffPageNo:OffType], page[OffPageNo:OffType]) || SpaceID(buf) != SpaceID(page) {
		return &ChecksumError{Problem: "compressed page", Cause: errHeaders}
	}
	plain := PageFormat{Logical: f.Logical, Physical: f.Logical}
	return plain.verifyOld(buf)
}

// verifyOldCryptCompressed checks the encrypted bytes as if the rest of the slot
// were zero, as it was when the server computed the checksum. A rewritten page
// that compressed better than before leaves old bytes there, because the server
// writes only the blocks it needs and does not always punch out the others.
func (f PageFormat) verifyOldCryptCompressed(page []byte) *ChecksumError {
	end := min(f.Used(page), len(page)-Trailer)
	sum := crc32.Update(crc(page[OffData:end]), castagnoli, zeroPage[:len(page)-Trailer-end])
	want := crc(page[OffPageNo:offKeyVersion]) ^ sum
	if found := u32(page, offCryptSum); found != want {
		return &ChecksumError{Problem: "checksum of the encrypted page", Found: found, Want: want}
	}
	return nil
}

// Seal writes the copy of the LSN and the checksum that the format wants, after
// a page was changed. The page must be plain: neither page_compressed nor
// encrypted. It must be f.Physical bytes long.
//
// In the old format the server also clears the split sequence number of a
// spatial index's page whenever it writes one (InnoDB buf0flu.cc): its counter
// begins anew when it starts, and a number from before would make every search
// think that the page was split meanwhile and go through its neighbour twice.
// Redo sets that number, so it must be cleared here as well. MySQL does not.
func (f PageFormat) Seal(page []byte) {
	if !f.FullCRC32 && !f.MySQL && Type(page) == TypeRTree {
		clear(page[offKeyVersion:OffSpaceID])
	}
	switch n := len(page); {
	case f.FullCRC32:
		putU32(page, n-Trailer, u32(page, offLSN+4))
		putU32(page, n-checksumLength, crc(page[:n-checksumLength]))
	case f.Zip:
		putU32(page, offChecksum, zipCRC(page))
	default:
		putU32(page, n-4, u32(page, offLSN+4))
		sum := oldCRC(page)
		putU32(page, offChecksum, sum)
		putU32(page, n-Trailer, sum)
	}
}

// Compressed says whether a sound page is page_compressed, so that it must go
// through Decompress before its content can be read.
func (f PageFormat) Compressed(page []byte) bool {
	if f.MySQL {
		return !f.Zip && (Type(page) == typeMySQLCompressed || Type(page) == typeMySQLCompressedEncrypted)
	}
	if !f.PageCompressed {
		return false
	}
	t := Type(page)
	if f.FullCRC32 {
		return t&typeFullCompressedMarker != 0
	}
	return t == TypePageCompressed || t == TypePageCompressedCrypt
}

// PageEncrypted says whether a sound page is stored encrypted.
func (f PageFormat) PageEncrypted(page []byte) bool {
	if f.MySQL {
		return mysqlEncrypted(page)
	}
	if f.FullCRC32 {
		return u32(page, offChecksum) != 0
	}
	if f.PageCompressed && Type(page) == TypePageCompressedCrypt {
		return true
	}
	if !encryptedOld(page) {
		return false
	}
	// The key version alone could be the number of a spatial index page.
	if f.Zip {
		return u32(page, offCryptSum) == zipCRC(page)
	}
	return u32(page, offCryptSum) == oldCRC(page)
}

// Unchecked says whether Verify can say nothing of the content of a page without its
// key: MySQL encrypts a page with the checksum of the plain one.
func (f PageFormat) Unchecked(page []byte) bool { return f.MySQL && mysqlEncrypted(page) }

// Used returns how many bytes at the start of a sound page carry content; the
// rest of its slot is padding, which the server punches out of the file, or
// leaves as it was: it may be replaced by zeros.
func (f PageFormat) Used(page []byte) int {
	if !f.Compressed(page) {
		return len(page)
	}
	var used int
	switch {
	case f.MySQL && mysqlEncrypted(page):
		used = len(page)
	case f.MySQL:
		used = OffData + u16(page, offMySQLLength)
	case f.FullCRC32:
		used, _ = fullSize(page)
	case Type(page) == TypePageCompressed:
		used = oldStream + u16(page, offOldLength)
	default:
		used = oldCryptedStream + u16(page, offOldLength)
	}
	return min(used, len(page))
}
