package redo

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/mysql/mysqltest"
)

func TestLinearHead(t *testing.T) {
	want := Linear{First: 8204, Checkpoint: 8210, Creator: "MySQL 8.0.30"}
	b := want.Encode()
	if got, err := ParseLinear(b); err != nil || got != want || len(b) != LinearStart {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := ParseHeader(b); !errors.Is(err, ErrUnsupported) {
		t.Errorf("a server reads it: %v", err)
	}
	server := Header{UUID: 1, Start: 8192}.Encode()
	if _, err := ParseLinear(server[:]); !errors.Is(err, ErrChecksum) {
		t.Errorf("a server's head: %v", err)
	}
	for i := range BlockSize {
		damaged := bytes.Clone(b)
		damaged[i] ^= 4
		if _, err := ParseLinear(damaged); err == nil {
			t.Errorf("byte %d changed: accepted", i)
		}
	}
	if _, err := ParseLinear(Linear{First: 8192}.Encode()); err == nil {
		t.Error("first LSN in the header of a block: accepted")
	}
}

// TestPackedBlocks: mini-transactions that were taken out of their blocks give
// the server's own blocks again.
func TestPackedBlocks(t *testing.T) {
	root := mysqltest.Fixtures(t)
	for _, name := range []string{"05", "10", "16"} {
		dir := mysqltest.Unpack(t, filepath.Join(root, "redo", name+".tar.zst"))
		files, _ := directory(t, mysqltest.Find(t, dir, Directory))
		log := NewLog(files)
		checkpoint, err := log.Checkpoint()
		if err != nil {
			t.Fatal(err)
		}
		var packed appender
		var p *Packer
		r := NewReader(log, checkpoint)
		for r.Next() {
			if p == nil {
				if p, err = NewPacker(&packed, r.Position().LSN()); err != nil {
					t.Fatal(err)
				}
			}
			m := r.MTR()
			if err := p.Add(AppendMTR(nil, m.Records)); err != nil {
				t.Fatal(err)
			}
		}
		if r.Err() != nil {
			t.Fatal(r.Err())
		}
		end := p.End()
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		from := Align(checkpoint)
		differ := 0
		for at := from + BlockSize; at < Align(end); at += BlockSize {
			f, ok := log.file(at)
			if !ok {
				t.Fatalf("no file for LSN %v", at)
			}
			raw := make([]byte, BlockSize)
			if _, err := f.Blocks.ReadAt(raw, f.Offset(at)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(raw, packed.b[at-from:at-from+BlockSize]) {
				differ++
			}
		}
		if differ != 0 {
			t.Errorf("%s: %d blocks differ from %v to %v", name, differ, from, end)
		}
	}
}

func TestEmptyLog(t *testing.T) {
	mtr := AppendMTR(nil, append(AppendHeader(nil, SecDeleteMark, 5, 6), 1, 0, 99))
	for _, end := range []format.LSN{8192, 8204, 8205, 8699, 70554182} {
		start := StartAfter(end)
		if start < end || start%BlockSize != blockHeader || start-end > BlockSize {
			t.Errorf("log after LSN %v starts at %v", end, start)
		}
		for _, kept := range [][][]byte{nil, {mtr, mtr}, {bytes.Repeat([]byte{byte(MultiEnd)}, 70_000)}} {
			b, err := EmptyLog(start, "MySQL 8.0.30", kept)
			if err != nil || len(b)%smallest != 0 {
				t.Fatalf("%d bytes, %v", len(b), err)
			}
			f, err := ReadFile(bytes.NewReader(b), 0, int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			log := NewLog([]File{f})
			if c, err := log.Checkpoint(); c != start || err != nil {
				t.Errorf("checkpoint %v, %v, want %v", c, err, start)
			}
			n := 0
			r := NewReader(log, start)
			for r.Next() {
				n += r.MTR().Size
			}
			if want := len(bytes.Join(kept, nil)); r.Err() != nil || n != want {
				t.Errorf("%d of %d bytes, %v", n, want, r.Err())
			}
		}
	}
	if _, err := EmptyLog(8192, "", nil); err == nil {
		t.Error("a log that starts in the header of a block")
	}
}
