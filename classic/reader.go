package classic

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"

	"github.com/xbstream/xbstream/format"
)

// Options of NewReader. The zero value works.
type Options struct {
	// Incomplete, if set, is told what is missing from a stream that ends too
	// early between two chunks, and the stream then counts as whole: files
	// that were not closed have the size that arrived. Without it such a
	// stream is damaged.
	Incomplete func(reason error)
}

// Reader reads one stream, chunk by chunk, as frames: FILE, DATA and CLOSE of
// the files, then the MANIFEST of an archive of ordinary files. A file that was
// removed or replaced later is not in the manifest, and counted as discarded.
// DATA may come for an offset that was written already.
//
// The checksum of a chunk is known to be right only once its last byte was
// read, so frames of a bad chunk may have been handed out before the error.
type Reader struct {
	r   *bufio.Reader
	opt Options

	off   int64 // in the stream, of the byte read next
	chunk uint64
	start int64  // offset of the chunk
	path  string // of the chunk

	tree tree
	open map[string]*file
	data data
	text *io.PipeReader // the manifest, once the stream has ended
	pos  uint64         // in the manifest

	pending []*format.Frame
	totals  format.Totals
	err     error // sticks
}

// file is one between its first chunk and its end.
type file struct {
	no   format.FileNo
	next int64 // offset of the byte expected next
	size int64 // so far
}

// data is the payload of the chunk that is being read.
type data struct {
	file *file
	runs []run  // what is left of it
	want uint32 // checksum
	sum  uint32 // so far
}

// NewReader returns a reader of the stream in r, which begins with Magic.
func NewReader(r io.Reader, opt Options) *Reader {
	return &Reader{
		r: bufio.NewReaderSize(r, 64<<10), opt: opt,
		tree: tree{byPath: map[string]format.FileNo{}}, open: map[string]*file{},
	}
}

// ID is empty: a classic stream has none, and its manifest is made up.
func (r *Reader) ID() string { return "" }

// Totals returns what was counted, after Next returned io.EOF.
func (r *Reader) Totals() format.Totals { return r.totals }

// Close ends the reading. A read that is under way in the underlying reader is
// not interrupted.
func (r *Reader) Close() {
	if r.text != nil {
		r.text.Close()
	}
	for _, f := range r.pending {
		f.Release()
	}
	r.pending = nil
}

// Next returns the next frame, and io.EOF when the stream ended as it should.
// Errors are a *ChunkError, or those of the underlying reader.
func (r *Reader) Next() (*format.Frame, error) {
	for len(r.pending) == 0 && r.err == nil {
		r.err = r.step()
	}
	if len(r.pending) == 0 {
		return nil, r.err
	}
	f := r.pending[0]
	r.pending = slices.Delete(r.pending, 0, 1)
	return f, nil
}

func (r *Reader) step() error {
	switch {
	case r.text != nil:
		return r.manifest()
	case r.data.file != nil:
		return r.piece()
	}
	return r.next()
}

// emit queues a frame.
func (r *Reader) emit(f *format.Frame) {
	f.Seq = r.totals.Frames
	r.totals.Frames++
	r.pending = append(r.pending, f)
}

// next reads a chunk up to its payload.
func (r *Reader) next() error {
	r.start, r.path = r.off, ""
	switch _, err := r.r.Peek(1); {
	case err == io.EOF:
		return r.finish()
	case err != nil:
		return r.failed(err)
	}
	var b [headSize]byte
	if err := r.read(b[:]); err != nil {
		return err
	}
	h, err := decodeHead(b[:])
	if err != nil {
		return r.damaged(err)
	}
	if err := r.readChunk(h); err != nil {
		return err
	}
	if r.data.file == nil {
		r.chunk++
	}
	return nil
}

func (r *Reader) readChunk(h head) error {
	raw, err := r.readPath(h.pathLen)
	if err != nil {
		return err
	}
	if !h.known() {
		return r.skip(h)
	}
	if r.path, err = cleanPath(raw); err != nil {
		return r.damaged(err)
	}
	switch h.typ {
	case typePayload:
		return r.payload(h)
	case typeSkip:
		return r.seekOrSparse(h)
	case typeEnd:
		return r.end(h)
	case typeRemove:
		return r.remove()
	default:
		return r.rename()
	}
}

func (h head) known() bool {
	switch h.typ {
	case typePayload, typeEnd, typeSkip, typeRemove, typeRename:
		return true
	}
	return false
}

// cleanPath checks a path. xbstream extracts what find calls ./a as a.
func cleanPath(raw string) (string, error) {
	p := strings.TrimPrefix(raw, "./")
	return p, format.CheckPath(p)
}

// skip passes over a chunk of an unknown type, which has the layout of a
// payload.
func (r *Reader) skip(h head) error {
	if h.flags&flagIgnorable == 0 {
		return r.damaged(fmt.Errorf("unknown type %q", h.typ))
	}
	p, err := r.readPayload()
	if err != nil {
		return err
	}
	sum := crc32.NewIEEE()
	n, err := io.CopyN(sum, r.r, p.size)
	r.off += n
	if err != nil {
		return r.failed(err)
	}
	if sum.Sum32() != p.crc {
		return r.damaged(checksumError(p.crc, sum.Sum32()))
	}
	return nil
}

// current returns the file of the chunk, which may begin with it.
func (r *Reader) current(h head) (*file, error) {
	if f := r.open[r.path]; f != nil {
		return f, nil
	}
	if r.tree.has(r.path) {
		if !h.rewrite() {
			return nil, r.damaged(errors.New("two files have this name"))
		}
		r.tree.remove(r.path)
	}
	if len(r.open) >= format.MaxOpenFiles {
		return nil, r.damaged(fmt.Errorf("more than %d files open at once", format.MaxOpenFiles))
	}
	no, err := r.tree.add(r.path)
	if err != nil {
		return nil, r.damaged(err)
	}
	f := &file{no: no}
	r.open[r.path] = f
	r.totals.Files++
	r.emit(&format.Frame{Type: format.FrameFile, File: no, Path: r.path, Kind: format.KindFile})
	return f, nil
}

// payload begins the data of a chunk.
func (r *Reader) payload(h head) error {
	p, err := r.readPayload()
	if err != nil {
		return err
	}
	return r.begin(h, p, []run{{size: p.size}}, 0)
}

func (r *Reader) begin(h head, p payload, runs []run, sum uint32) error {
	f, err := r.current(h)
	if err != nil {
		return err
	}
	if p.offset != f.next {
		return r.damaged(fmt.Errorf("data at offset %d, expected %d: chunks are missing, doubled or swapped", p.offset, f.next))
	}
	r.data = data{file: f, runs: runs, want: p.crc, sum: sum}
	return nil
}

// piece reads a piece of the payload; with the last one the chunk ends.
func (r *Reader) piece() error {
	d := &r.data
	if len(d.runs) == 0 {
		return r.endPayload()
	}
	cur, f := &d.runs[0], d.file
	if cur.skip > 0 {
		// What is left out counts for the size: xtrabackup leaves out the
		// end of the last page as well.
		f.next += cur.skip
		f.size = max(f.size, f.next)
		cur.skip = 0
	}
	if cur.size == 0 {
		d.runs = d.runs[1:]
		return nil
	}
	b := format.GetBuffer()
	b.SetLen(int(min(cur.size, format.ChunkSize)))
	if err := r.read(b.Bytes()); err != nil {
		b.Release()
		return err
	}
	d.sum = crc32.Update(d.sum, crc32.IEEETable, b.Bytes())
	frame := &format.Frame{Type: format.FrameData, File: f.no, Pos: uint64(f.next)}
	frame.SetPayload(b)
	cur.size -= frame.Len
	f.next += frame.Len
	f.size = max(f.size, f.next)
	r.totals.DataBytes += uint64(frame.Len)
	r.emit(frame)
	return nil
}

func (r *Reader) endPayload() error {
	if r.data.sum != r.data.want {
		return r.damaged(checksumError(r.data.want, r.data.sum))
	}
	r.data = data{}
	r.chunk++
	return nil
}

func checksumError(want, got uint32) error {
	return fmt.Errorf("payload checksum is %08x, computed %08x", want, got)
}

// seekOrSparse reads a chunk of the type that has two meanings. In MariaDB's
// the next chunk follows after eight bytes. In Percona's the upper half of the
// payload length lies where the first half of its magic would, and no payload
// is that long.
func (r *Reader) seekOrSparse(h head) error {
	b, err := r.r.Peek(seekSize + len(Magic))
	if err != nil && err != io.EOF {
		return r.failed(err)
	}
	if len(b) == seekSize || len(b) > seekSize && strings.HasPrefix(Magic, string(b[seekSize:])) {
		return r.seek(h)
	}
	return r.sparse(h)
}

// seek moves to where the next data go. Unlike data it does not make a file
// longer.
func (r *Reader) seek(h head) error {
	var b [seekSize]byte
	if err := r.read(b[:]); err != nil {
		return err
	}
	off, err := decodeSeek(b[:])
	if err != nil {
		return r.damaged(err)
	}
	f, err := r.current(h)
	if err != nil {
		return err
	}
	f.next = off
	return nil
}

// sparse begins data with holes. The checksum is over map and payload.
func (r *Reader) sparse(h head) error {
	var b [4]byte
	if err := r.read(b[:]); err != nil {
		return err
	}
	n := binary.LittleEndian.Uint32(b[:])
	if n > maxSparse {
		return r.damaged(fmt.Errorf("sparse map of %d entries, over the limit of %d", n, maxSparse))
	}
	p, err := r.readPayload()
	if err != nil {
		return err
	}
	raw := make([]byte, n*sparseSize)
	if err := r.read(raw); err != nil {
		return err
	}
	runs, err := decodeSparse(raw, p)
	if err != nil {
		return r.damaged(err)
	}
	return r.begin(h, p, runs, crc32.ChecksumIEEE(raw))
}

// end closes a file. An empty one has no other chunk, and so no flag when
// mariabackup sends it again: nothing tells that from a chunk that came twice,
// and a file that has data keeps them.
func (r *Reader) end(h head) error {
	if r.open[r.path] == nil && r.tree.has(r.path) && !h.rewrite() {
		if r.tree.size(r.path) > 0 {
			return r.damaged(errors.New("two files have this name, and the second is empty: mariabackup writes such a stream when a table is emptied while it runs, and mbstream refuses it as well; take another backup"))
		}
		return nil
	}
	f, err := r.current(h)
	if err != nil {
		return err
	}
	r.close(r.path, f)
	return nil
}

func (r *Reader) close(path string, f *file) {
	delete(r.open, path)
	r.tree.files[f.no-1].size = f.size
	r.emit(&format.Frame{Type: format.FrameClose, File: f.no, Pos: uint64(f.size)})
}

func (r *Reader) remove() error {
	if r.open[r.path] != nil {
		return r.damaged(errors.New("removed before it was closed"))
	}
	r.tree.remove(r.path)
	return nil
}

func (r *Reader) rename() error {
	var b [4]byte
	if err := r.read(b[:]); err != nil {
		return err
	}
	n, err := decodePathLen(b[:])
	if err != nil {
		return r.damaged(err)
	}
	raw, err := r.readPath(n)
	if err != nil {
		return err
	}
	to, err := cleanPath(raw)
	if err == nil && (r.open[r.path] != nil || r.open[to] != nil) {
		err = fmt.Errorf("renamed to %q before one of them was closed", to)
	}
	if err == nil {
		err = r.tree.rename(r.path, to)
	}
	if err != nil {
		return r.damaged(err)
	}
	return nil
}

func (r *Reader) readPath(n int) (string, error) {
	b := make([]byte, n)
	err := r.read(b)
	return string(b), err
}

func (r *Reader) readPayload() (payload, error) {
	var b [payloadSize]byte
	if err := r.read(b[:]); err != nil {
		return payload{}, err
	}
	p, err := decodePayload(b[:])
	if err != nil {
		return p, r.damaged(err)
	}
	return p, nil
}

func (r *Reader) read(p []byte) error {
	n, err := io.ReadFull(r.r, p)
	r.off += int64(n)
	if err != nil {
		return r.failed(err)
	}
	return nil
}

// failed tells the end of the stream within a chunk from an error of the
// underlying reader.
func (r *Reader) failed(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return r.damaged(fmt.Errorf("%w: within a chunk, at offset %d", ErrIncomplete, r.off))
	}
	return fmt.Errorf("read classic stream at chunk %d: %w", r.chunk, err)
}

func (r *Reader) damaged(err error) error {
	return &ChunkError{Chunk: r.chunk, Offset: r.start, Path: r.path, Err: err}
}
