package innodb

import (
	"bytes"

	"github.com/xbstream/xbstream/format"
)

// Crypt is what page 0 says of the encryption of its tablespace. It holds no
// key.
type Crypt struct {
	MinKeyVersion, KeyID uint32
	// Mode is 0 for the server's default, 1 on, 2 off.
	Mode byte
}

// Encrypted says whether pages of the tablespace may be encrypted. Only
// "switched off, and no key in use" is a sure no: the server turns encryption
// on and off page by page.
func (c Crypt) Encrypted() bool { return c.Mode != cryptOff || c.MinKeyVersion != 0 }

const (
	cryptOff       = 2
	cryptIVLength  = 16
	cryptDataBytes = 6 + 1 + 1 + cryptIVLength + 4 + 4 + 1
)

// cryptMagic starts the encryption data (InnoDB fil0crypt.cc).
var cryptMagic = []byte{0x73, 0x0E, 0x0C, 0x52, 0x45, 0x74}

// CryptData reads the encryption data of page 0; ok is false where there are
// none.
func (f PageFormat) CryptData(page0 []byte) (c Crypt, ok bool) {
	off := f.cryptOffset()
	if off+cryptDataBytes > len(page0) || !bytes.HasPrefix(page0[off:], cryptMagic) {
		return Crypt{}, false
	}
	p := page0[off+len(cryptMagic):]
	if scheme := p[0]; scheme == 0 || p[1] != cryptIVLength {
		return Crypt{}, false
	}
	p = p[2+cryptIVLength:]
	return Crypt{MinKeyVersion: u32(p, 0), KeyID: u32(p, 4), Mode: p[8]}, true
}

// SaysEncrypted says whether page 0 says that pages may be encrypted.
func (f PageFormat) SaysEncrypted(page0 []byte) bool {
	if f.MySQL {
		return f.Encrypted || f.mysqlEncryptionInfo(page0)
	}
	c, ok := f.CryptData(page0)
	return ok && c.Encrypted()
}

// cryptOffset is where the encryption data start: after the extent descriptors,
// one for every extent the page describes (InnoDB fsp0fsp.h).
func (f PageFormat) cryptOffset() int {
	extent := f.ExtentSize()
	descriptor := 24 + extent*2/8
	return offAfterXDES + f.Physical/extent*descriptor
}

// ExtentSize returns the number of pages in an extent: 1 MiB of pages up to
// 16 KiB, 64 pages above.
func (f PageFormat) ExtentSize() int { return max(64, 1<<20/f.Logical) }

// PageRange is a run of pages.
type PageRange struct {
	First format.PageNo
	Count uint32
}

// Contains says whether no lies in the run.
func (r PageRange) Contains(no format.PageNo) bool {
	return no >= r.First && uint32(no-r.First) < r.Count
}

// Offsets and magic numbers of the doublewrite header, counted from 200 bytes
// before the end of the TRX_SYS page (InnoDB trx0sys.h).
const (
	doublewriteFromEnd = 200
	doublewriteMagic   = 536853855
)

// DoublewriteRange reads from the TRX_SYS page, which is page 5 of the system
// tablespace, which runs of its pages are the doublewrite buffer: raw copies of
// pages of any tablespace, which fit no check. ok is false where the server
// never made one.
func (f PageFormat) DoublewriteRange(trxSys []byte) (r [2]PageRange, ok bool) {
	if len(trxSys) < doublewriteFromEnd || f.Logical == 0 {
		return r, false
	}
	p := trxSys[len(trxSys)-doublewriteFromEnd:]
	if u32(p, 10) != doublewriteMagic {
		return r, false
	}
	for i := range r {
		first := format.PageNo(u32(p, 14+4*i))
		r[i] = PageRange{First: first, Count: uint32(f.ExtentSize())}
	}
	return r, true
}
