package redo

import (
	"strings"

	"github.com/xbstream/xbstream/format"
)

// FileRecord is a record about the file of a tablespace (InnoDB fil0fil.cc,
// fil_tablespace_redo_create, ..._rename, ..._delete, ..._extend).
type FileRecord struct {
	Type  Type
	Space format.SpaceID
	// Flags are those of the tablespace, of a FILE_CREATE; whether it holds SDI
	// is not among them.
	Flags uint32
	// Name is the file's name as the server wrote it: "./db/t.ibd", or an
	// absolute path. NewName is the one after a rename. They are not to be
	// trusted as paths.
	Name, NewName string
	// Offset and Size are what FILE_EXTEND adds to the file.
	Offset, Size int64
}

// ParseFile parses a record about a file. The error is ErrMalformed.
func (r *Record) ParseFile() (FileRecord, error) {
	f := FileRecord{Type: r.Type, Space: r.Space}
	if !r.Type.File() {
		return f, ErrMalformed
	}
	c := Cursor{b: r.Body}
	switch r.Type {
	case FileCreate:
		f.Flags = c.U32()
		f.Name = c.name()
	case FileDelete:
		f.Name = c.name()
	case FileRename:
		f.Name, f.NewName = c.name(), c.name()
	case FileExtend:
		offset, size := c.U64(), c.U64()
		if offset > 1<<60 || size > 1<<60 {
			c.Fail(ErrMalformed)
		}
		f.Offset, f.Size = int64(offset), int64(size)
	}
	if c.err != nil {
		return f, ErrMalformed
	}
	return f, nil
}

// name reads a name that ends in a zero byte, which its length counts.
func (c *Cursor) name() string {
	s, ended := strings.CutSuffix(string(c.Take(c.U16())), "\x00")
	if c.err == nil && (!ended || s == "" || strings.Contains(s, "\x00")) {
		c.Fail(ErrMalformed)
	}
	return s
}

// AppendFileRecord appends a record about a file.
func AppendFileRecord(dst []byte, f FileRecord) []byte {
	dst = AppendHeader(dst, f.Type, f.Space, 0)
	switch f.Type {
	case FileCreate:
		dst = append(dst, byte(f.Flags>>24), byte(f.Flags>>16), byte(f.Flags>>8), byte(f.Flags))
		dst = appendName(dst, f.Name)
	case FileDelete:
		dst = appendName(dst, f.Name)
	case FileRename:
		dst = appendName(appendName(dst, f.Name), f.NewName)
	case FileExtend:
		for _, v := range []int64{f.Offset, f.Size} {
			for shift := 56; shift >= 0; shift -= 8 {
				dst = append(dst, byte(v>>shift))
			}
		}
	}
	return dst
}

func appendName(dst []byte, s string) []byte {
	n := len(s) + 1
	dst = append(dst, byte(n>>8), byte(n))
	return append(append(dst, s...), 0)
}
