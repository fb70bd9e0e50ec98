// Package formattest makes archives that package format would not write, for
// tests of those who read them. It follows SPEC.md and uses no code of format.
package formattest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"

	"github.com/xbstream/xbstream/format"
)

// Sizes and types of SPEC.md §2 to §4.
const (
	archiveHeader = 32
	frameHeader   = 48
	typeManifest  = 6
	typeIndex     = 7
	typeEnd       = 8
	maxPayload    = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode is the text of a manifest, whatever is in it.
func Encode(m *format.Manifest) []byte {
	head := *m
	head.Format = 1
	text := must(json.Marshal(&head))
	text = append(text[:len(text)-1], ",\"files\":[\n"...)
	for i := range m.Files {
		text = append(text, must(json.Marshal(&m.Files[i]))...)
		if i < len(m.Files)-1 {
			text = append(text, ',')
		}
		text = append(text, '\n')
	}
	return append(text, "]}\n"...)
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// Rewrite returns the archive with another manifest and nothing else wrong: all
// numbers, checksums and the digest fit it. The manifest must not be compressed.
func Rewrite(archive []byte, change func(manifest []byte) []byte) []byte {
	w := &rewriter{id: archive[12:28], out: bytes.Clone(archive[:archiveHeader])}
	w.digest = bytes.Clone(w.out)
	var manifest []byte
	var after [][]byte // frames behind the manifest
	for off := archiveHeader; off < len(archive); {
		head := archive[off : off+frameHeader]
		n := frameHeader + int(binary.BigEndian.Uint32(head[32:]))
		f := bytes.Clone(archive[off : off+n])
		off += n
		switch {
		case head[4] == typeManifest:
			manifest = append(manifest, f[frameHeader:]...)
		case manifest == nil:
			w.frame(f)
		default:
			after = append(after, f)
		}
	}
	at, text := len(w.out), change(manifest)
	for pos := 0; pos < len(text); pos += maxPayload {
		w.frame(manifestFrame(text[pos:min(pos+maxPayload, len(text))], pos))
	}
	for _, f := range after {
		if f[4] == typeEnd {
			w.end(f, at)
			continue
		}
		w.frame(f)
	}
	return w.out
}

type rewriter struct {
	id     []byte
	out    []byte
	digest []byte // all headers
	seq    uint64
	index  int // where the last INDEX frame is
}

func manifestFrame(text []byte, pos int) []byte {
	f := make([]byte, frameHeader, frameHeader+len(text))
	copy(f, "XBF1")
	f[4] = typeManifest
	binary.BigEndian.PutUint32(f[20:], uint32(len(text)))
	binary.BigEndian.PutUint64(f[24:], uint64(pos))
	binary.BigEndian.PutUint32(f[32:], uint32(len(text)))
	return append(f, text...)
}

// frame writes a frame under the next number.
func (w *rewriter) frame(f []byte) {
	if f[4] == typeIndex {
		w.index = len(w.out)
	}
	w.sealed(f)
	w.digest = append(w.digest, f[:frameHeader]...)
}

func (w *rewriter) sealed(f []byte) {
	binary.BigEndian.PutUint64(f[8:], w.seq)
	w.seq++
	if len(f) > frameHeader {
		binary.BigEndian.PutUint32(f[36:], crc32.Checksum(f[frameHeader:], castagnoli))
	}
	sum := crc32.Update(crc32.Checksum(w.id, castagnoli), castagnoli, f[:44])
	binary.BigEndian.PutUint32(f[44:], sum)
	w.out = append(w.out, f...)
}

// end writes the END frame of an archive whose manifest begins at at.
func (w *rewriter) end(f []byte, at int) {
	p := f[frameHeader:]
	binary.BigEndian.PutUint64(p, w.seq)
	binary.BigEndian.PutUint64(p[40:], uint64(at))
	binary.BigEndian.PutUint64(p[48:], uint64(w.index))
	sum := sha256.Sum256(w.digest)
	copy(p[56:], sum[:])
	w.sealed(f)
}
