package innodb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sync"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zlib"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
)

// PunchSize is what file systems can punch out of a page_compressed page, in
// bytes: their usual block.
const PunchSize = 4096

// Compress makes a page_compressed page of a plain, sealed one, as the server
// does when it writes it, and says whether it did: the page stays plain if it is
// of a type that the server leaves plain, if we cannot compress with that
// algorithm, or if no block of the file would be saved. dst and page are
// f.Physical bytes long and do not overlap. What the page does not use of dst is
// zero; without a compressed page dst holds anything.
//
// The server also keeps a compressed page that saves no block (InnoDB
// fil0pagecompress.cc compares whole pages or multiples of 256 bytes); it reads
// both.
func (f PageFormat) Compress(dst, page []byte, algorithm byte) bool {
	if !f.PageCompressed || len(dst) != len(page) || !compressible(page) || !CanCompress(algorithm) {
		return false
	}
	head, tail := oldStream, 0
	if f.FullCRC32 {
		head, tail = fullStream, checksumLength
		if f.storesLength() {
			tail++
		}
	}
	limit := len(page) - PunchSize - tail
	if limit <= head {
		return false
	}
	n, ok := compressors[algorithm](dst[head:limit], page)
	if !ok {
		return false
	}
	clear(dst[head+n:])
	if f.FullCRC32 {
		f.sealFullCompressed(dst, page, head+n)
	} else {
		sealOldCompressed(dst, page, algorithm, n)
	}
	return f.expandsTo(dst, page)
}

// compressible says whether the server compresses pages of that type.
func compressible(page []byte) bool {
	switch Type(page) {
	case TypeAllocated, TypeFSPHeader, TypeXDES, TypePageCompressed:
		return false
	}
	return true
}

// sealFullCompressed writes what is around the stream, which ends at used.
func (f PageFormat) sealFullCompressed(dst, page []byte, used int) {
	size := used + checksumLength
	if f.storesLength() {
		size++
	}
	size = (size + 255) &^ 255
	copy(dst[:fullStream], page)
	binary.BigEndian.PutUint16(dst[OffType:], typeFullCompressedMarker|uint16(size>>8))
	if f.storesLength() {
		dst[size-checksumLength-1] = byte(used + 1 + checksumLength)
	}
	putU32(dst, size-checksumLength, crc(dst[:size-checksumLength]))
}

func sealOldCompressed(dst, page []byte, algorithm byte, n int) {
	copy(dst[:OffData], page)
	putU32(dst, offChecksum, noChecksum)
	binary.BigEndian.PutUint16(dst[OffType:], TypePageCompressed)
	binary.BigEndian.PutUint64(dst[offOldAlgorithm:], uint64(algorithm))
	binary.BigEndian.PutUint16(dst[offOldLength:], uint16(n))
}

// expandsTo says whether a compressed page is that page: what goes into a file
// was read back once.
func (f PageFormat) expandsTo(compressed, page []byte) bool {
	s := getScratch()
	defer putScratch(s)
	return f.Decompress(s[:f.Logical], compressed) == nil && bytes.Equal(s[:f.Logical], page)
}

// PageAlgorithm returns the algorithm of a page that is page_compressed and not
// encrypted.
func (f PageFormat) PageAlgorithm(page []byte) byte {
	if f.FullCRC32 {
		return f.Algorithm
	}
	return byte(binary.BigEndian.Uint64(page[offOldAlgorithm:]))
}

// CanCompress says whether Compress knows the algorithm. LZO and bzip2 are only
// read: no well-kept library writes them.
func CanCompress(algorithm byte) bool {
	return int(algorithm) < len(compressors) && compressors[algorithm] != nil
}

// compressors write the stream of a page to dst, by algorithm; false if it does
// not fit.
var compressors = [...]func(dst, page []byte) (n int, ok bool){
	AlgorithmZlib:   compressZlib,
	AlgorithmLZ4:    compressLZ4,
	AlgorithmLZMA:   compressXZ,
	AlgorithmSnappy: compressSnappy,
}

var errFull = errors.New("stream does not fit")

// bounded takes what fits into p.
type bounded struct {
	p []byte
	n int
}

func (b *bounded) Write(p []byte) (int, error) {
	if len(p) > len(b.p)-b.n {
		return 0, errFull
	}
	b.n += copy(b.p[b.n:], p)
	return len(p), nil
}

// zlibWriters keeps writers, whose tables are large.
var zlibWriters = sync.Pool{New: func() any {
	w, err := zlib.NewWriterLevel(nil, zlibLevel)
	if err != nil {
		panic(err) // the level is a constant
	}
	return w
}}

// zlibLevel compresses no less than zlib does with innodb_compression_level=6,
// the server's default.
const zlibLevel = 7

func compressZlib(dst, page []byte) (int, bool) {
	w := zlibWriters.Get().(*zlib.Writer)
	defer zlibWriters.Put(w)
	out := bounded{p: dst}
	w.Reset(&out)
	_, err := w.Write(page)
	return out.n, errors.Join(err, w.Close()) == nil
}

var lz4Compressors = sync.Pool{New: func() any { return new(lz4.Compressor) }}

func compressLZ4(dst, page []byte) (int, bool) {
	c := lz4Compressors.Get().(*lz4.Compressor)
	defer lz4Compressors.Put(c)
	n, err := c.CompressBlock(page, dst)
	return n, err == nil && n > 0
}

// snappyScratch holds the longest stream of a page.
var snappyScratch = sync.Pool{New: func() any {
	b := make([]byte, snappy.MaxEncodedLen(MaxPageSize))
	return &b
}}

func compressSnappy(dst, page []byte) (int, bool) {
	b := snappyScratch.Get().(*[]byte)
	defer snappyScratch.Put(b)
	stream := snappy.Encode(*b, page)
	return copy(dst, stream), len(stream) <= len(dst)
}

// compressXZ writes an .xz stream without integrity check, as the server does.
func compressXZ(dst, page []byte) (int, bool) {
	out := bounded{p: dst}
	w, err := xz.WriterConfig{DictCap: MaxPageSize, NoCheckSum: true}.NewWriter(&out)
	if err != nil {
		return 0, false
	}
	_, err = w.Write(page)
	return out.n, errors.Join(err, w.Close()) == nil
}
