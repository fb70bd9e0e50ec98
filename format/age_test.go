package format

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"
	"golang.org/x/crypto/ssh"
)

// pair is a recipient and its identity.
type pair struct {
	name string
	r    age.Recipient
	id   age.Identity
}

func pairs(t testing.TB) []pair {
	t.Helper()
	x, err := age.GenerateX25519Identity()
	check(t, err)
	h, err := age.GenerateHybridIdentity()
	check(t, err)
	_, key, err := ed25519.GenerateKey(nil)
	check(t, err)
	public, err := ssh.NewPublicKey(key.Public())
	check(t, err)
	sr, err := agessh.NewEd25519Recipient(public)
	check(t, err)
	si, err := agessh.NewEd25519Identity(key)
	check(t, err)
	return []pair{{"X25519", x.Recipient(), x}, {"hybrid", h.Recipient(), h}, {"ssh-ed25519", sr, si}}
}

func seal(t testing.TB, text []byte, rs ...age.Recipient) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := Encrypt(&out, rs...)
	check(t, err)
	_, err = w.Write(text)
	check(t, err)
	check(t, w.Close())
	return out.Bytes()
}

func inArmor(t testing.TB, sealed []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := armor.NewWriter(&out)
	_, err := w.Write(sealed)
	check(t, err)
	check(t, w.Close())
	return out.Bytes()
}

// readSealed opens, and reads to its end, whatever lies around an archive.
func readSealed(r io.Reader, ids ...age.Identity) ([]string, error) {
	opened, err := Open(r, ids)
	if err != nil {
		return nil, err
	}
	return readAll(opened)
}

func TestSealedArchivesAreRead(t *testing.T) {
	archive := threeFiles(t, 1, WriterOptions{})
	for _, p := range pairs(t) {
		sealed := seal(t, archive, p.r)
		if bytes.Contains(sealed, []byte("first file")) {
			t.Errorf("%s: not encrypted", p.name)
		}
		for kind, text := range map[string][]byte{"binary": sealed, "armored": inArmor(t, sealed), "plain": archive,
			"armored after spaces": append([]byte("\r\n  \n"), inArmor(t, sealed)...)} {
			frames, err := readSealed(iotest.OneByteReader(bytes.NewReader(text)), p.id)
			if err != nil {
				t.Errorf("%s, %s: %v", p.name, kind, err)
				continue
			}
			compareFrames(t, frames)
		}
	}
}

func TestSealedArchivesAreReadAtAnyOffset(t *testing.T) {
	text := make([]byte, 5*64<<10+17)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(text)
	p := pairs(t)[0]
	for name, in := range map[string][]byte{"sealed": seal(t, text, p.r), "plain": text} {
		ra, size, err := OpenAt(bytes.NewReader(in), int64(len(in)), []age.Identity{p.id})
		check(t, err)
		if size != int64(len(text)) {
			t.Fatalf("%s: size %d, want %d", name, size, len(text))
		}
		for _, at := range []int{0, 1, 64<<10 - 1, 64 << 10, 200_000, len(text) - 1} {
			part := make([]byte, min(70_000, len(text)-at))
			if _, err := ra.ReadAt(part, int64(at)); err != nil && err != io.EOF {
				t.Errorf("%s: at %d: %v", name, at, err)
			}
			if !bytes.Equal(part, text[at:at+len(part)]) {
				t.Errorf("%s: at %d: other bytes", name, at)
			}
		}
	}
	if _, _, err := OpenAt(strings.NewReader(armor.Header+"\n"), 40, nil); !errors.Is(err, ErrUnsupported) {
		t.Errorf("armored: error %v, want ErrUnsupported", err)
	}
}

// refused tells whether an archive was refused as design.md demands.
func refused(err error) bool { return errors.Is(err, ErrDamaged) || errors.Is(err, ErrNoKey) }

// P2: truncated at any byte, under encryption too.
func TestCutSealedArchiveIsRefused(t *testing.T) {
	p := pairs(t)[0]
	small := seal(t, threeFiles(t, 1, WriterOptions{}), p.r)
	cuts, armoredCuts := 0, 0
	for n := range len(small) {
		if _, err := readSealed(bytes.NewReader(small[:n]), p.id); !refused(err) {
			t.Errorf("cut after %d of %d bytes: error %v", n, len(small), err)
		}
		if _, err := readSealedAt(small[:n], p.id); !refused(err) {
			t.Errorf("random access, cut after %d of %d bytes: error %v", n, len(small), err)
		}
		cuts++
	}
	armored := inArmor(t, small)
	for n := range len(armored) - 1 { // the last byte is a line feed that may be missing
		if _, err := readSealed(bytes.NewReader(armored[:n]), p.id); !refused(err) {
			t.Errorf("armored, cut after %d of %d bytes: error %v", n, len(armored), err)
		}
		armoredCuts++
	}
	t.Logf("%d cuts read through and at random, %d in armor", cuts, armoredCuts)
}

func readSealedAt(sealed []byte, ids ...age.Identity) ([]byte, error) {
	ra, size, err := OpenAt(bytes.NewReader(sealed), int64(len(sealed)), ids)
	if err != nil {
		return nil, err
	}
	if _, err := OpenArchive(ra, size); err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(ra, 0, size))
}

// The end of a piece, of 64 KiB and 16 bytes, is where a cut would be easiest
// to overlook.
func TestCutBetweenPiecesIsRefused(t *testing.T) {
	p := pairs(t)[0]
	text := bytes.Repeat([]byte("0123456789abcdef"), 4*4096)
	sealed := seal(t, text, p.r)
	head := len(sealed) - len(text) - 4*16
	for _, pieces := range []int{0, 1, 2, 3} {
		for _, more := range []int{0, 1, 15, 16, 17} {
			n := head + pieces*(64<<10+16) + more
			r, err := Open(bytes.NewReader(sealed[:n]), []age.Identity{p.id})
			check(t, err)
			got, err := io.ReadAll(r)
			if !errors.Is(err, ErrDamaged) || len(got) > pieces*64<<10 {
				t.Errorf("%d pieces and %d bytes: %d bytes read, error %v", pieces, more, len(got), err)
			}
		}
	}
}

// D4: with the key, a file that was cut ends too early, whoever did it; one that was
// changed before its end does not.
func TestCutSealedArchiveEndsTooEarly(t *testing.T) {
	p := pairs(t)[0]
	text := bytes.Repeat([]byte("0123456789abcdef"), 4*4096)
	sealed := seal(t, text, p.r)
	read := map[string]func([]byte) error{
		"from front to end": func(b []byte) error { _, err := readSealed(bytes.NewReader(b), p.id); return err },
		"at random":         func(b []byte) error { _, err := readSealedAt(b, p.id); return err },
		"decrypted only": func(b []byte) error {
			r, err := Open(bytes.NewReader(b), []age.Identity{p.id})
			if err == nil {
				_, err = io.Copy(io.Discard, r)
			}
			return err
		},
	}
	for how, read := range read {
		for _, n := range []int{40, 150, 190, 1000, 64<<10 + 16, 100_000, len(sealed) - 17, len(sealed) - 1} {
			if how == "from front to end" && n > 1000 {
				continue // what is in there is no archive
			}
			err := read(sealed[:n])
			if !errors.Is(err, ErrDamaged) || !errors.Is(err, ErrTruncated) || strings.Contains(err.Error(), "tampered") {
				t.Errorf("%s, cut after %d of %d bytes: %v", how, n, len(sealed), err)
			}
		}
		bad := bytes.Clone(sealed)
		bad[1000] ^= 1
		if err := read(bad); how != "at random" && (errors.Is(err, ErrTruncated) || !errors.Is(err, ErrDamaged)) {
			t.Errorf("%s, a byte was changed: %v", how, err)
		}
	}
}

func TestFlippedBitOfSealedArchiveIsRefused(t *testing.T) {
	p := pairs(t)[0]
	sealed := seal(t, threeFiles(t, 1, WriterOptions{}), p.r)
	tried := 0
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1 << (i % 8)
		if _, err := readSealed(bytes.NewReader(bad), p.id); !refused(err) {
			t.Errorf("byte %d: error %v", i, err)
		}
		tried++
	}
	t.Logf("%d flips", tried)
}

func TestWhatFollowsASealedArchiveIsDamage(t *testing.T) {
	p := pairs(t)[0]
	archive := threeFiles(t, 1, WriterOptions{})
	sealed := seal(t, archive, p.r)
	for name, bad := range map[string][]byte{
		"a byte":                 append(bytes.Clone(sealed), 0),
		"joined":                 append(bytes.Clone(sealed), sealed...),
		"joined within":          seal(t, append(bytes.Clone(archive), archive...), p.r),
		"a plain one after it":   append(bytes.Clone(sealed), archive...),
		"it after a plain one":   append(bytes.Clone(archive), sealed...),
		"armored and text":       append(inArmor(t, sealed), "text"...),
		"age of a later version": []byte("age-encryption.org/v2\n-> X25519 x\n"),
	} {
		if _, err := readSealed(bytes.NewReader(bad), p.id); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: error %v, want ErrDamaged", name, err)
		}
	}
}

func TestErrorBelowTheEncryptionIsNotCalledDamage(t *testing.T) {
	p := pairs(t)[0]
	broken := errors.New("the disk is broken")
	sealed := seal(t, threeFiles(t, 1, WriterOptions{}), p.r)
	for _, text := range [][]byte{sealed, inArmor(t, sealed)} {
		for n := range len(text) + 1 {
			_, err := readSealed(io.MultiReader(bytes.NewReader(text[:n]), iotest.ErrReader(broken)), p.id)
			if !errors.Is(err, broken) || errors.Is(err, ErrDamaged) {
				t.Errorf("after %d of %d bytes: error %v", n, len(text), err)
			}
		}
	}
	for n := range len(sealed) {
		_, _, err := OpenAt(brokenAt{bytes.NewReader(sealed), int64(n), broken}, int64(len(sealed)), []age.Identity{p.id})
		if !errors.Is(err, broken) || errors.Is(err, ErrDamaged) {
			t.Errorf("random access, broken at %d: error %v", n, err)
		}
	}
}

// brokenAt cannot be read beyond a point.
type brokenAt struct {
	r   *bytes.Reader
	end int64
	err error
}

func (b brokenAt) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) <= b.end {
		return b.r.ReadAt(p, off)
	}
	n, _ := b.r.ReadAt(p[:max(0, b.end-off)], off)
	return n, b.err
}

func TestNoKey(t *testing.T) {
	archive := threeFiles(t, 1, WriterOptions{})
	all := pairs(t)
	pass, err := age.NewScryptRecipient("secret")
	check(t, err)
	pass.SetWorkFactor(10)
	for _, row := range []struct {
		name string
		r    age.Recipient
		ids  []age.Identity
		says string
	}{
		{"none given", all[0].r, nil, "-i"},
		{"another's", all[0].r, []age.Identity{pairs(t)[0].id}, "for other keys (identities tried: 1)"},
		{"other kinds", all[0].r, []age.Identity{all[1].id, all[2].id}, "for other keys (identities tried: 2)"},
		{"passphrase", pass, []age.Identity{all[0].id}, "passphrase"},
		{"broken identity", all[0].r, []age.Identity{failing{}}, "token not plugged in"},
	} {
		sealed := seal(t, archive, row.r)
		_, err := readSealed(bytes.NewReader(sealed), row.ids...)
		_, errAt := readSealedAt(sealed, row.ids...)
		for _, err := range []error{err, errAt} {
			if !errors.Is(err, ErrNoKey) || errors.Is(err, ErrDamaged) || !strings.Contains(fmt.Sprint(err), row.says) {
				t.Errorf("%s: error %v", row.name, err)
			}
		}
	}
}

// failing is an identity that finds out that it cannot work.
type failing struct{}

func (failing) Unwrap([]*age.Stanza) ([]byte, error) { return nil, errors.New("token not plugged in") }

func TestIdentitiesThatAskComeLast(t *testing.T) {
	p := pairs(t)[0]
	_, err := readSealed(bytes.NewReader(seal(t, threeFiles(t, 1, WriterOptions{}), p.r)), failing{}, p.id)
	check(t, err)
}

func TestEncryptRefusesRecipients(t *testing.T) {
	all := pairs(t)
	var many []age.Recipient
	for range MaxRecipients + 1 {
		many = append(many, all[0].r)
	}
	for name, rs := range map[string][]age.Recipient{"none": nil, "post-quantum and classic": {all[0].r, all[1].r}, "too many": many} {
		var out bytes.Buffer
		if _, err := Encrypt(&out, rs...); err == nil || out.Len() > 0 {
			t.Errorf("%s: error %v, %d bytes written", name, err, out.Len())
		}
	}
}

// What is not closed has no end, so that a backup that failed cannot be read.
func TestUnclosedEncryptionIsDamage(t *testing.T) {
	p := pairs(t)[0]
	var out bytes.Buffer
	w, err := Encrypt(&out, p.r)
	check(t, err)
	_, err = w.Write(make([]byte, 8<<20))
	check(t, err)
	r, err := Open(&out, []age.Identity{p.id})
	check(t, err)
	if n, err := io.Copy(io.Discard, r); !errors.Is(err, ErrDamaged) || n == 0 {
		t.Errorf("%d bytes, error %v", n, err)
	}
}

// P8: no end of a line, of a header, of armor: refused before memory is full.
func TestEndlessHeadersAreRefused(t *testing.T) {
	for name, row := range map[string]struct{ start, again string }{
		"binary, one line":    {"age-encryption.org/v1\n-> X25519 ", "A"},
		"binary, stanzas":     {"age-encryption.org/v1\n", "-> X25519 AAAA\n\n"},
		"binary, body":        {"age-encryption.org/v1\n-> X25519 AAAA\n", strings.Repeat("A", 64) + "\n"},
		"armored, one line":   {armor.Header + "\n", "A"},
		"armored, empty line": {armor.Header + "\n", "\n"},
		"armored, spaces":     {armor.Header + "\n", " "},
	} {
		endless := &repeated{rest: row.start, again: row.again}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := readSealed(endless, pairs(t)[0].id)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, ErrDamaged) || endless.n > 8<<20 || used > 64<<20 {
			t.Errorf("%s: error %v after %d bytes, %d bytes of memory", name, err, endless.n, used)
		}
	}
}

// repeated is a text without end, or nearly so: a reader that does not stop must
// not stop the machine.
type repeated struct {
	rest, again string
	n           int
}

func (r *repeated) Read(p []byte) (int, error) {
	if r.n > 256<<20 {
		return 0, io.EOF
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	for n < len(p) {
		m := copy(p[n:], r.again)
		r.rest = r.again[m:]
		n += m
	}
	r.n += n
	return n, nil
}

func BenchmarkEncrypt(b *testing.B) {
	p := pairs(b)[0]
	frame := make([]byte, 1<<20)
	b.SetBytes(int64(len(frame)))
	w, err := Encrypt(io.Discard, p.r)
	check(b, err)
	for b.Loop() {
		_, err := w.Write(frame)
		check(b, err)
	}
}

func BenchmarkOpen(b *testing.B) {
	p := pairs(b)[0]
	const size = 64 << 20
	sealed := seal(b, make([]byte, size), p.r)
	b.SetBytes(size)
	for b.Loop() {
		r, err := Open(bytes.NewReader(sealed), []age.Identity{p.id})
		check(b, err)
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, make([]byte, 1<<20))
		check(b, err)
	}
}
