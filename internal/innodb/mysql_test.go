package innodb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/xbstream/xbstream/format"
)

var ofMySQL = PageFormat{MySQL: true, Logical: 16 << 10, Physical: 16 << 10}

// mysqlPage is a sound index page with some text.
func mysqlPage(no format.PageNo) []byte {
	p := make([]byte, ofMySQL.Physical)
	putU32(p, OffPageNo, uint32(no))
	putU32(p, OffSpaceID, 7)
	SetLSN(p, 12345)
	binary.BigEndian.PutUint16(p[OffType:], TypeIndex)
	copy(p[OffData:], bytes.Repeat([]byte("some text "), 1000))
	ofMySQL.Seal(p)
	return p
}

// mysqlCompressed does what the server does to a page with COMPRESSION.
func mysqlCompressed(t *testing.T, page []byte, number byte) []byte {
	t.Helper()
	out := make([]byte, len(page))
	copy(out, page[:OffData])
	n, ok := compressors[mysqlAlgorithms[number]](out[OffData:], page[OffData:])
	if !ok {
		t.Fatal("it does not fit")
	}
	binary.BigEndian.PutUint16(out[OffType:], typeMySQLCompressed)
	out[offMySQLVersion], out[offMySQLAlgorithm] = 2, number
	binary.BigEndian.PutUint16(out[offMySQLOriginalType:], TypeIndex)
	binary.BigEndian.PutUint16(out[offMySQLOriginalSize:], uint16(len(page)-OffData))
	binary.BigEndian.PutUint16(out[offMySQLLength:], uint16(n))
	return out
}

func TestMySQLCompressedPages(t *testing.T) {
	for number, name := range map[byte]string{1: "zlib", 2: "lz4"} {
		t.Run(name, func(t *testing.T) {
			page := mysqlPage(3)
			c := mysqlCompressed(t, page, number)
			if err := ofMySQL.Verify(c, 3); err != nil || !ofMySQL.Compressed(c) || ofMySQL.PageEncrypted(c) {
				t.Fatalf("compressed %v: %v", ofMySQL.Compressed(c), err)
			}
			got := make([]byte, len(page))
			if err := ofMySQL.Decompress(got, c); err != nil || !bytes.Equal(got, page) {
				t.Errorf("expanded to another page: %v", err)
			}
			used := ofMySQL.Used(c)
			if used >= len(c)/2 || !IsZero(c[used:]) {
				t.Errorf("%d bytes used", used)
			}
			for _, at := range []int{offLSN + 7, offMySQLVersion, offMySQLAlgorithm, offMySQLOriginalSize, OffData + 20} {
				c[at] ^= 4
				if err := ofMySQL.Verify(c, 3); err == nil {
					t.Errorf("byte %d changed, and the page is sound", at)
				}
				c[at] ^= 4
			}
			if err := ofMySQL.Verify(c, 4); err == nil {
				t.Error("page 3 in the place of page 4")
			}
		})
	}
}

// Of an encrypted page only the number can be checked.
func TestMySQLEncryptedPages(t *testing.T) {
	for _, kind := range []uint16{typeMySQLEncrypted, typeMySQLCompressedEncrypted, typeMySQLEncryptedRTree} {
		p := mysqlPage(3)
		binary.BigEndian.PutUint16(p[OffType:], kind)
		if err := ofMySQL.Verify(p, 3); err != nil || !ofMySQL.PageEncrypted(p) || ofMySQL.Used(p) != len(p) {
			t.Errorf("type %d: %v", kind, err)
		}
		if err := ofMySQL.Verify(p, 4); err == nil {
			t.Errorf("type %d: page 3 in the place of page 4", kind)
		}
		if ofMySQL.Compressed(p) {
			if err := ofMySQL.Decompress(make([]byte, len(p)), p); !errors.Is(err, ErrEncrypted) {
				t.Errorf("type %d: %v", kind, err)
			}
		}
	}
	if zip := (PageFormat{MySQL: true, Zip: true, Logical: 16 << 10, Physical: 8 << 10}); zip.Compressed(mysqlCompressed(t, mysqlPage(1), 1)) {
		t.Error("a page of ROW_FORMAT=COMPRESSED is compressed a second time")
	}
}

// The flags say that a tablespace is encrypted, or the information in page 0 that it
// is about to be, at offset 10390 of 16 KiB.
func TestMySQLEncryptedTablespace(t *testing.T) {
	page := mysqlPage(0)
	if ofMySQL.SaysEncrypted(page) {
		t.Error("a plain one")
	}
	f := ofMySQL
	f.Encrypted = true
	if !f.SaysEncrypted(page) {
		t.Error("one with the flag")
	}
	copy(page[10390:], "lCC")
	if !ofMySQL.SaysEncrypted(page) {
		t.Error("one with encryption information")
	}
}

// MySQL keeps the split sequence number of a spatial index's page.
func TestMySQLSealKeepsSplitNumber(t *testing.T) {
	p := mysqlPage(3)
	binary.BigEndian.PutUint16(p[OffType:], TypeRTree)
	putU32(p, offKeyVersion, 5)
	ofMySQL.Seal(p)
	if err := ofMySQL.Verify(p, 3); err != nil || u32(p, offKeyVersion) != 5 {
		t.Errorf("%d, %v", u32(p, offKeyVersion), err)
	}
}
