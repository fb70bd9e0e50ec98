package innodb

import (
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/anchore/go-lzo"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zlib"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz/lzma"
)

// Why a page cannot be expanded.
var (
	// ErrAlgorithm: the page names a compression algorithm we do not have.
	ErrAlgorithm = errors.New("unknown page compression algorithm")
	// ErrEncrypted: the page is encrypted, and we have no keys.
	ErrEncrypted = errors.New("page is encrypted")
)

// errStream is the cause where a library only says false.
var errStream = errors.New("damaged stream")

// scratch holds a page of the largest size.
var scratch = sync.Pool{New: func() any { return new([MaxPageSize]byte) }}

func getScratch() *[MaxPageSize]byte { return scratch.Get().(*[MaxPageSize]byte) }

func putScratch(p *[MaxPageSize]byte) { scratch.Put(p) }

// Decompress expands a page_compressed page into dst, which must be f.Logical
// bytes long: all bytes of the original page, its header and trailer included.
// page and dst must not overlap. Errors wrap ErrAlgorithm, ErrEncrypted or
// ErrFormat.
func (f PageFormat) Decompress(dst, page []byte) error {
	if len(dst) != f.Logical || len(page) != f.Physical {
		return fmt.Errorf("expanding %d bytes into %d with page size %d: %w", len(page), len(dst), f.Logical, ErrFormat)
	}
	if f.MySQL && f.Compressed(page) {
		return f.expandMySQL(dst, page)
	}
	stream, algorithm, err := f.stream(page)
	if err != nil {
		return err
	}
	if algorithm == AlgorithmNone || int(algorithm) >= len(expanders) {
		return fmt.Errorf("algorithm %d: %w", algorithm, ErrAlgorithm)
	}
	if err := expanders[algorithm](dst, stream); err != nil {
		return fmt.Errorf("expanding page (%s): %w: %w", algorithmNames[algorithm], err, ErrFormat)
	}
	return nil
}

var algorithmNames = [...]string{"none", "zlib", "lz4", "lzo", "lzma", "bzip2", "snappy"}

// expanders fill dst from a stream, by algorithm; less than dst is an error.
var expanders = [...]func(dst, stream []byte) error{
	AlgorithmZlib:   expandZlib,
	AlgorithmLZ4:    expandLZ4,
	AlgorithmLZO:    expandLZO,
	AlgorithmLZMA:   expandXZ,
	AlgorithmBzip2:  expandBzip2,
	AlgorithmSnappy: expandSnappy,
}

// stream finds the compressed stream in a page.
func (f PageFormat) stream(page []byte) (stream []byte, algorithm byte, err error) {
	if len(page) < MinPageSize || !f.Compressed(page) {
		return nil, 0, fmt.Errorf("page of type %d is not page_compressed: %w", Type(page), ErrFormat)
	}
	if f.FullCRC32 {
		return f.fullStream(page)
	}
	return oldFormatStream(page)
}

func (f PageFormat) fullStream(page []byte) ([]byte, byte, error) {
	if u32(page, offChecksum) != 0 {
		return nil, 0, ErrEncrypted
	}
	size, _ := fullSize(page)
	end := size - checksumLength
	if size >= len(page) || end <= fullStream {
		return nil, 0, fmt.Errorf("compressed size %d: %w", size, ErrFormat)
	}
	if f.storesLength() {
		// The byte before the checksum is the low byte of the length with
		// its own byte and the checksum; size is that rounded up to 256.
		if low := int(page[end-1]); low != 0 {
			end = size + low - 256 - checksumLength
		}
		end--
	}
	if end <= fullStream {
		return nil, 0, fmt.Errorf("compressed stream ends at %d: %w", end, ErrFormat)
	}
	return page[fullStream:end], f.Algorithm, nil
}

// storesLength tells the algorithms that cannot find the end of their stream
// (InnoDB fil0fil.h, full_crc32_page_compressed_len).
func (f PageFormat) storesLength() bool {
	return f.Algorithm == AlgorithmLZ4 || f.Algorithm == AlgorithmLZO || f.Algorithm == AlgorithmSnappy
}

func oldFormatStream(page []byte) ([]byte, byte, error) {
	if Type(page) == TypePageCompressedCrypt {
		return nil, 0, ErrEncrypted
	}
	algorithm, length := binary.BigEndian.Uint64(page[offOldAlgorithm:]), u16(page, offOldLength)
	if u32(page, offChecksum) != noChecksum || length == 0 || oldStream+length > len(page) {
		return nil, 0, fmt.Errorf("compressed page of %d bytes: %w", length, ErrFormat)
	}
	if algorithm >= uint64(len(expanders)) {
		return nil, 0, fmt.Errorf("algorithm %d: %w", algorithm, ErrAlgorithm)
	}
	return page[oldStream : oldStream+length], byte(algorithm), nil
}

// zlibReaders keeps readers, whose window is expensive to make.
var zlibReaders sync.Pool

func expandZlib(dst, stream []byte) error {
	src := bytes.NewReader(stream)
	r, ok := zlibReaders.Get().(io.ReadCloser)
	var err error
	if ok {
		err = r.(zlib.Resetter).Reset(src, nil)
	} else {
		r, err = zlib.NewReader(src)
	}
	if err != nil {
		return err
	}
	defer zlibReaders.Put(r)
	return readWhole(r, dst)
}

// readWhole fills dst and sees that the stream has no more. What comes after
// the stream is padding, over which some readers stumble; the stream's own
// checksum is left to the checksum of the page, outside or inside.
func readWhole(r io.Reader, dst []byte) error {
	if _, err := io.ReadFull(r, dst); err != nil {
		return err
	}
	var more [1]byte
	if n, _ := r.Read(more[:]); n != 0 {
		return errors.New("longer than a page")
	}
	return nil
}

func expandLZ4(dst, stream []byte) error {
	n, err := lz4.UncompressBlock(stream, dst)
	return wholeBlock(n, err, dst)
}

func expandLZO(dst, stream []byte) error {
	n, err := lzo.Decompress(stream, dst)
	return wholeBlock(n, err, dst)
}

func wholeBlock(n int, err error, dst []byte) error {
	if err == nil && n != len(dst) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func expandSnappy(dst, stream []byte) error {
	// Asked first, because Decode allocates what the stream claims.
	n, err := snappy.DecodedLen(stream)
	if err := wholeBlock(n, err, dst); err != nil {
		return err
	}
	_, err = snappy.Decode(dst, stream)
	return err
}

func expandBzip2(dst, stream []byte) error {
	return readWhole(bzip2.NewReader(bytes.NewReader(stream)), dst)
}

// expandXZ reads an .xz stream of one block without integrity check, which is
// what the server writes. The block is given to the LZMA2 reader directly: the
// .xz reader would allocate the dictionary size that the stream claims, up to
// 4 GiB, where no page needs more than its own size.
func expandXZ(dst, stream []byte) error {
	block, err := xzBlock(stream)
	if err != nil {
		return err
	}
	r, err := lzma.Reader2Config{DictCap: MaxPageSize}.NewReader2(bytes.NewReader(block))
	if err != nil {
		return err
	}
	return readWhole(r, dst)
}

// xzBlock returns what follows the first block header (The .xz File Format,
// version 1.2, sections 2.1.1 and 3.1).
func xzBlock(stream []byte) ([]byte, error) {
	const streamHeader = 12
	if len(stream) < streamHeader+8 || !bytes.HasPrefix(stream, []byte("\xFD7zXZ\x00\x00")) {
		return nil, errStream
	}
	if crc32.ChecksumIEEE(stream[6:8]) != binary.LittleEndian.Uint32(stream[8:]) {
		return nil, errStream
	}
	stream = stream[streamHeader:]
	size := (int(stream[0]) + 1) * 4
	if stream[0] == 0 || size > len(stream) {
		return nil, errStream
	}
	sum := binary.LittleEndian.Uint32(stream[size-4:])
	if crc32.ChecksumIEEE(stream[:size-4]) != sum || !isLZMA2(stream[1:size-4]) {
		return nil, errStream
	}
	return stream[size:], nil
}

// isLZMA2 says whether a block header, after its size, names LZMA2 as the only
// filter.
func isLZMA2(header []byte) bool {
	const filters, hasSize, hasUnpackedSize, lzma2 = 0x03, 0x40, 0x80, 0x21
	flags, rest := header[0], header[1:]
	for _, size := range []byte{hasSize, hasUnpackedSize} {
		if flags&size != 0 {
			_, n := binary.Uvarint(rest)
			if n <= 0 {
				return false
			}
			rest = rest[n:]
		}
	}
	return flags&filters == 0 && len(rest) >= 3 && rest[0] == lzma2
}
