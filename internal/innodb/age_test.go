package innodb

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/xbstream/xbstream/format"
)

func TestReadAge(t *testing.T) {
	const flags = 0x15 // full_crc32, 16 KiB
	const never = ^uint64(0)
	file := func(lsns ...uint64) []byte {
		b := make([]byte, len(lsns)<<14)
		for i, lsn := range lsns {
			if lsn == never {
				continue
			}
			page := b[i<<14:]
			binary.BigEndian.PutUint32(page[OffPageNo:], uint32(i))
			binary.BigEndian.PutUint64(page[offLSN:], lsn)
			binary.BigEndian.PutUint32(page[OffSpaceID:], 7)
			if i == 0 {
				binary.BigEndian.PutUint32(page[offFSPFlags:], flags)
			}
		}
		return b
	}
	for _, c := range []struct {
		name  string
		file  []byte
		floor format.LSN
		want  Age
	}{
		{"empty", nil, 0, Age{}},
		{"no page 0", file(never, 5), 0, Age{}},
		{"shorter than a page", file(9)[:4096], 0, Age{Oldest: 9}},
		{"ordinary", file(900, 700, 900, 800, never, never), 0, Age{Oldest: 700}},
		{"imported", file(0, 0, 0, never), 0, Age{Unstamped: true}},
		{"imported and changed", file(0, 700, 0, 800), 0, Age{Oldest: 700, Unstamped: true}},
		{"imported, changed at the end", file(0, 0, 900, never, 800), 500, Age{Oldest: 800, Unstamped: true}},
		{"stops at a page that is old enough", file(900, 700, 0), 700, Age{Oldest: 700}},
		{"goes on until one is", file(900, 0, 700, 300), 500, Age{Oldest: 300, Unstamped: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ReadAge(bytes.NewReader(c.file), ParseFlags, c.floor)
			if err != nil || got != c.want {
				t.Errorf("%+v, %v; want %+v", got, err, c.want)
			}
		})
	}
	bad := file(9)
	bad[offFSPFlags] = 0xFF
	if _, err := ReadAge(bytes.NewReader(bad), ParseFlags, 0); err == nil {
		t.Error("flags that no server writes are accepted")
	}
}
