package redo

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/format"
)

// The bytes mariabackup --prepare of 10.11.19 left, read with a hex dump.
func TestMinimalLogMatchesThePeersBytes(t *testing.T) {
	const n = 0x0600FFDE
	log := MinimalLog(n, "Backup 10.11.19")
	if len(log) != 12304 {
		t.Fatalf("%d bytes, want 12304", len(log))
	}
	for _, want := range []struct {
		at    int
		bytes string
	}{
		{0, "5068797300000000000000000600ffde4261636b75702031302e31312e313900"},
		{508, "6893bce1"},
		{4096, "000000000600ffde000000000600ffde"},
		{4156, "3e67790b"},
		{12288, "fa0000000000000600ffde0147af607e"},
	} {
		if got := hex.EncodeToString(log[want.at : want.at+len(want.bytes)/2]); got != want.bytes {
			t.Errorf("at %d: %s, want %s", want.at, got, want.bytes)
		}
	}
	if !bytes.Equal(log[8192:12288], make([]byte, 4096)) {
		t.Error("second checkpoint block is not zero")
	}
}

func TestMinimalLogReadsBack(t *testing.T) {
	log := MinimalLog(4711000, "Backup 10.11.19")
	h, err := ParseHeader(log)
	if err != nil || h.FirstLSN != 4711000 || h.Creator != "Backup 10.11.19" || h.Encrypted() {
		t.Fatalf("header %+v, %v", h, err)
	}
	cp, err := NewestCheckpoint(log[:StartOffset], h.FirstLSN)
	if err != nil || cp != (Checkpoint{4711000, 4711000}) {
		t.Fatalf("checkpoint %+v, %v", cp, err)
	}
	m, err := ScanMTR(log[StartOffset:], false)
	if err != nil || m.Size != 16 || m.Marker != 1 {
		t.Fatalf("mtr %+v, %v", m, err)
	}
	f, err := FileRecords(m.Records)
	if err != nil || len(f) != 1 || f[0].Op != FileCheckpoint || f[0].Checkpoint != 4711000 {
		t.Fatalf("file records %+v, %v", f, err)
	}
}

func TestLinearHeadKeepsEncryption(t *testing.T) {
	var e Encryption
	for i := range e {
		e[i] = byte(i + 1)
	}
	back, err := ParseEncryption(e.String())
	if err != nil || back != e {
		t.Fatalf("encryption through its text: %v, %v", back, err)
	}
	head := LinearHead("Backup 10.11.19", e, Checkpoint{20000, 20100})
	h, err := ParseHeader(head)
	if err != nil {
		t.Fatal(err)
	}
	if h.Magic != MagicEncrypted || !h.Encrypted() || h.Encryption != e {
		t.Fatalf("header %+v", h)
	}
	if !bytes.Equal(head[48:76], e[:]) {
		t.Error("bytes 48..75 are not the encryption's")
	}
}

func TestParseEncryptionRefuses(t *testing.T) {
	for _, s := range []string{"00", "zz", strings.Repeat("0", 55), strings.Repeat("0", 58)} {
		if _, err := ParseEncryption(s); err == nil {
			t.Errorf("%q accepted", s)
		}
	}
	if e, err := ParseEncryption(""); err != nil || e != (Encryption{}) {
		t.Errorf("empty: %v, %v", e, err)
	}
}

func TestHeaderRefusesEveryFlippedBit(t *testing.T) {
	good := Header{Magic: MagicPlain, FirstLSN: 12288, Creator: "MariaDB 10.11.19"}.Encode()
	for bit := range len(good) * 8 {
		bad := good
		bad[bit/8] ^= 1 << (bit % 8)
		if h, err := ParseHeader(bad[:]); !errors.Is(err, ErrChecksum) && !errors.Is(err, ErrUnsupported) {
			t.Fatalf("bit %d: %+v, %v", bit, h, err)
		}
	}
	for n := range len(good) {
		if _, err := ParseHeader(good[:n]); !errors.Is(err, ErrChecksum) {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
}

func TestHeaderRefusesByName(t *testing.T) {
	for _, c := range []struct {
		name    string
		magic   uint32
		creator string
		keyID   byte
		want    []string
	}{
		{"10.5", 0x50485953, "MariaDB 10.6.4", 0, []string{"10.5 to 10.7", "MariaDB 10.6.4", "0x50485953"}},
		{"10.5 encrypted", 0xD0485953, "MariaDB 10.6.4", 0, []string{"10.5 to 10.7"}},
		{"10.4", 104, "MariaDB 10.4.1", 0, []string{"10.4"}},
		{"10.3", 103, "MariaDB 10.3.1", 0, []string{"10.3"}},
		{"10.2 encrypted", 0x80000001, "MariaDB 10.2.1", 0, []string{"10.2"}},
		{"5.7", 1, "MySQL 5.7.9", 0, []string{"MySQL 5.7"}},
		{"8.0", 6, "MySQL 8.0.30", 0, []string{"MySQL 8.0", "8.0.30"}},
		{"oldest", 0, "", 0, []string{"before 10.2.2"}},
		{"old encryption", MagicPlain, "MariaDB 10.11.2", 1, []string{"MDEV-36024", "MariaDB 10.11.2"}},
		{"future", 0x50687974, "MariaDB 14.0.1", 0, []string{"unknown", "MariaDB 14.0.1"}},
	} {
		h := Header{Magic: c.magic, FirstLSN: 50000, Creator: c.creator}
		h.Encryption[3] = c.keyID
		b := h.Encode()
		_, err := ParseHeader(b[:])
		var named *UnsupportedError
		if !errors.As(err, &named) || !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q does not name %q", c.name, err, w)
			}
		}
	}
}

func TestHeaderRefusesSenseless(t *testing.T) {
	low := Header{Magic: MagicPlain, FirstLSN: StartOffset - 1}.Encode()
	if _, err := ParseHeader(low[:]); !errors.Is(err, ErrChecksum) {
		t.Errorf("first LSN below the payload: %v", err)
	}
	odd := Header{Magic: MagicPlain, FirstLSN: StartOffset}.Encode()
	odd[7] = 1
	binary.BigEndian.PutUint32(odd[508:], crc32c(odd[:508]))
	if _, err := ParseHeader(odd[:]); !errors.Is(err, ErrChecksum) {
		t.Errorf("reserved word: %v", err)
	}
}

func TestBackupCreator(t *testing.T) {
	for in, want := range map[string]string{
		"MariaDB 10.11.19": "Backup 10.11.19",
		"Backup 10.11.19":  "Backup 10.11.19",
		"odd":              "Backup odd",
	} {
		if got := BackupCreator(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestNewestCheckpoint(t *testing.T) {
	type blocks [2]Checkpoint
	for _, c := range []struct {
		name  string
		in    blocks
		tear  int // block to damage, 0 none, 3 both
		first format.LSN
		want  Checkpoint
		ok    bool
	}{
		{"first newer", blocks{{300, 310}, {200, 210}}, 0, 100, Checkpoint{300, 310}, true},
		{"second newer", blocks{{200, 210}, {300, 310}}, 0, 100, Checkpoint{300, 310}, true},
		{"tie goes to the second", blocks{{200, 210}, {200, 220}}, 0, 100, Checkpoint{200, 220}, true},
		{"first torn", blocks{{300, 310}, {200, 210}}, 1, 100, Checkpoint{200, 210}, true},
		{"second torn", blocks{{200, 210}, {300, 310}}, 2, 100, Checkpoint{200, 210}, true},
		{"both torn", blocks{{200, 210}, {300, 310}}, 3, 100, Checkpoint{}, false},
		{"below the log", blocks{{90, 110}, {80, 90}}, 0, 100, Checkpoint{}, false},
		{"end before start", blocks{{300, 299}, {200, 210}}, 0, 100, Checkpoint{200, 210}, true},
	} {
		head := make([]byte, StartOffset)
		for i, cp := range c.in {
			b := cp.Encode()
			if c.tear&(i+1) != 0 {
				b[9] ^= 1
			}
			copy(head[4096*(i+1):], b[:])
		}
		got, err := NewestCheckpoint(head, c.first)
		if got != c.want || (err == nil) != c.ok || (err != nil && !errors.Is(err, ErrNoCheckpoint)) {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
	if _, err := NewestCheckpoint(make([]byte, StartOffset), 0); !errors.Is(err, ErrNoCheckpoint) {
		t.Errorf("empty file: %v", err)
	}
}

func TestCheckpointRefusesEveryFlippedBit(t *testing.T) {
	good := Checkpoint{0x0102030405, 0x0102030506}.Encode()
	for bit := range len(good) * 8 {
		bad := good
		bad[bit/8] ^= 1 << (bit % 8)
		if c, ok := ParseCheckpoint(bad[:]); ok {
			t.Fatalf("bit %d: accepted %+v", bit, c)
		}
	}
	reserved := good
	reserved[20] = 1
	binary.BigEndian.PutUint32(reserved[60:], crc32c(reserved[:60]))
	if _, ok := ParseCheckpoint(reserved[:]); ok {
		t.Error("reserved bytes accepted")
	}
}

func TestRing(t *testing.T) {
	r, err := NewRing(Header{FirstLSN: 50000}, StartOffset+1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		lsn format.LSN
		off int64
		bit byte
	}{
		{50000, 12288, 1}, {50999, 13287, 1}, {51000, 12288, 0}, {51999, 13287, 0},
		{52000, 12288, 1}, {52001, 12289, 1}, {50000 + 1<<62, 12288 + 1<<62%1000, 1 ^ byte(1<<62/1000&1)},
	} {
		if off, bit := r.Offset(c.lsn), r.SeqBit(c.lsn); off != c.off || bit != c.bit {
			t.Errorf("LSN %v: offset %d, bit %d, want %d, %d", c.lsn, off, bit, c.off, c.bit)
		}
	}
	if _, err := NewRing(Header{}, StartOffset); err == nil {
		t.Error("a file without payload has a ring")
	}
}
