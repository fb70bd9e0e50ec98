package format

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// ErrNoKey says that an archive is encrypted and that none of the identities
// given opens it. What is wrong with each is wrapped where there is more to say.
var ErrNoKey = errors.New("no key opens the archive")

// MaxRecipients is the most stanzas the age library reads in a header; a file
// with more could never be opened again.
const MaxRecipients = 1024

// sealedBuffer lies between age, which reads and writes 64 KiB pieces, and a
// pipe or file: fewer and longer system calls.
const sealedBuffer = 1 << 20

// Encrypt returns a writer that encrypts an archive to all of recipients and
// writes it to w (SPEC.md §8). Close writes the last piece; it must only be
// called once the archive is complete, for it is what makes the ciphertext
// complete. It does not close w. Recipients that must not be mixed, as
// post-quantum ones with others, are an error.
//
// Sealing runs in the goroutine that writes. Another one for the writes below
// was measured: on two cores it cost more than it gained.
func Encrypt(w io.Writer, recipients ...age.Recipient) (io.WriteCloser, error) {
	if len(recipients) > MaxRecipients {
		return nil, fmt.Errorf("encrypt: %d recipients, at most %d are possible", len(recipients), MaxRecipients)
	}
	buf := bufio.NewWriterSize(w, sealedBuffer)
	sealed, err := age.Encrypt(buf, recipients...)
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return &sealer{WriteCloser: sealed, buf: buf}, nil
}

type sealer struct {
	io.WriteCloser
	buf *bufio.Writer
}

func (s *sealer) Close() error {
	if err := s.WriteCloser.Close(); err != nil {
		return err
	}
	return s.buf.Flush()
}

// Open returns a reader of the archive in r, decrypted with one of ids if r is
// an age file, binary or armored, and as it is otherwise. It reads the first
// bytes only: what kind of archive it is, if any, is found out by NewReader.
//
// Without a key that fits the error wraps ErrNoKey. What the reader returns
// wraps ErrDamaged when the ciphertext is damaged or cut; errors of r are
// passed on without it.
func Open(r io.Reader, ids []age.Identity) (io.Reader, error) {
	src := &source{r: r}
	br := bufio.NewReader(src)
	kind, err := sniff(br)
	if err != nil {
		return nil, err
	}
	if kind == unsealed {
		return br, nil
	}
	var sealed io.Reader = bufio.NewReaderSize(br, sealedBuffer)
	if kind == sealedArmor {
		sealed = armor.NewReader(&shortLines{r: sealed})
	}
	k := newKeyring(ids)
	tail := &tail{r: sealed}
	text, err := age.Decrypt(tail, k.ids...)
	if err != nil {
		return nil, k.explain(err, src.failed())
	}
	return &opened{r: text, src: src, tail: tail}, nil
}

// OpenAt is Open for an archive of size bytes that is read at any offset. It
// returns the reader of the plaintext and its size. The end of the ciphertext
// is read and checked first, so an archive that was cut is refused here.
// Armored files wrap ErrUnsupported: they can only be read through.
func OpenAt(ra io.ReaderAt, size int64, ids []age.Identity) (io.ReaderAt, int64, error) {
	src := &source{at: ra}
	kind, err := sniff(bufio.NewReader(io.NewSectionReader(src, 0, size)))
	switch {
	case err != nil:
		return nil, 0, err
	case kind == unsealed:
		return ra, size, nil
	case kind == sealedArmor:
		return nil, 0, fmt.Errorf("%w: random access to an armored age file", ErrUnsupported)
	}
	k := newKeyring(ids)
	text, n, err := age.DecryptReaderAt(src, size, k.ids...)
	if err != nil && src.failed() == nil {
		// Where the header is good, it was the end that the key does not open.
		if _, header := age.Decrypt(io.NewSectionReader(src, 0, size), k.ids...); header == nil {
			return nil, 0, cutShort()
		}
	}
	if err != nil {
		return nil, 0, k.explain(err, src.failed())
	}
	return &openedAt{r: text, src: src}, n, nil
}

// sealKind is what lies around an archive.
type sealKind int

const (
	unsealed sealKind = iota
	sealedBinary
	sealedArmor
)

const ageIntro = "age-encryption.org/"

// sniff looks at the first bytes without taking them, and at no more than it
// must: the writer at the other end may have sent only an archive header. An
// input that ends early is no error here.
func sniff(br *bufio.Reader) (sealKind, error) {
	const maxSpace = 1024 // before armor, as the age command
	first, err := peek(br, 1)
	if len(first) == 0 {
		return unsealed, err
	}
	var p []byte
	switch first[0] {
	case ageIntro[0]:
		if p, err = peek(br, len(ageIntro)); string(p) == ageIntro {
			return sealedBinary, nil
		}
	case armor.Header[0], ' ', '\t', '\r', '\n':
		p, err = peek(br, maxSpace+len(armor.Header))
		if bytes.HasPrefix(bytes.TrimSpace(p), []byte(armor.Header)) {
			return sealedArmor, nil
		}
	}
	return unsealed, err
}

func peek(br *bufio.Reader, n int) ([]byte, error) {
	p, err := br.Peek(n)
	if err == nil || err == io.EOF {
		return p, nil
	}
	return p, fmt.Errorf("read archive: %w", err)
}

// keyring tries identities and remembers what each said. The library returns
// one error for a key that does not work, a header that is damaged and a source
// that cannot be read; which of them it was decides on the exit code.
type keyring struct {
	ids    []age.Identity
	given  int
	failed error // of the identity that ended the search
}

// tried is an identity of a keyring.
type tried struct {
	age.Identity
	ring *keyring
}

// nobody stands for no identity at all, so that the header is read and its
// stanzas are named all the same.
type nobody struct{}

func (nobody) Unwrap([]*age.Stanza) ([]byte, error) { return nil, age.ErrIncorrectIdentity }

func newKeyring(ids []age.Identity) *keyring {
	k := &keyring{given: len(ids)}
	if len(ids) == 0 {
		ids = []age.Identity{nobody{}}
	}
	// Those that ask nothing come first, as the library sorts identities it
	// can see.
	ids = slices.Clone(ids)
	slices.SortStableFunc(ids, func(a, b age.Identity) int { return rank(a) - rank(b) })
	for _, id := range ids {
		k.ids = append(k.ids, &tried{id, k})
	}
	return k
}

func rank(id age.Identity) int {
	switch id.(type) {
	case *age.X25519Identity, *age.HybridIdentity, *age.ScryptIdentity:
		return 0
	}
	return 1
}

func (t *tried) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	key, err := t.Identity.Unwrap(stanzas)
	if err != nil && !errors.Is(err, age.ErrIncorrectIdentity) {
		t.ring.failed = err
	}
	return key, err
}

// explain turns an error of opening into ErrNoKey, ErrDamaged or the error of
// the source.
func (k *keyring) explain(err, source error) error {
	var none *age.NoIdentityMatchError
	switch {
	case source != nil:
		return fmt.Errorf("read archive: %w", source)
	case k.failed != nil:
		return fmt.Errorf("%w: %w", ErrNoKey, k.failed)
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: age encryption: %w", ErrDamaged, ErrTruncated)
	case !errors.As(err, &none):
		return fmt.Errorf("%w: age encryption: %w", ErrDamaged, err)
	case slices.Contains(none.StanzaTypes, "scrypt"):
		return fmt.Errorf("%w: it is encrypted with a passphrase, which only the age command asks for: age -d ARCHIVE | xbstream …", ErrNoKey)
	case k.given == 0:
		return fmt.Errorf("%w: it is encrypted with age; give the identity file with -i", ErrNoKey)
	}
	return &noMatch{k.given, none}
}

// noMatch is NoIdentityMatchError in our words; the library's are about its
// own parts.
type noMatch struct {
	given int
	err   *age.NoIdentityMatchError
}

func (e *noMatch) Error() string {
	return fmt.Sprintf("%v: it is encrypted for other keys (identities tried: %d)", ErrNoKey, e.given)
}

func (e *noMatch) Unwrap() []error { return []error{ErrNoKey, e.err} }

// source is the reader below the decryption. It remembers its error, for the
// layers above do not always pass it on.
type source struct {
	r   io.Reader
	at  io.ReaderAt
	err atomic.Pointer[error]
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.note(err)
	return n, err
}

func (s *source) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.at.ReadAt(p, off)
	s.note(err)
	return n, err
}

func (s *source) note(err error) {
	if err != nil && err != io.EOF {
		s.err.CompareAndSwap(nil, &err)
	}
}

func (s *source) failed() error {
	if p := s.err.Load(); p != nil {
		return *p
	}
	return nil
}

// cause tells the source's own errors from damage.
func (s *source) cause(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if failed := s.failed(); failed != nil {
		return failed
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: age encryption: %w", ErrDamaged, ErrTruncated)
	}
	return fmt.Errorf("%w: age encryption: %w", ErrDamaged, err)
}

type opened struct {
	r    io.Reader
	src  *source
	tail *tail
}

func (o *opened) Read(p []byte) (int, error) {
	n, err := o.r.Read(p)
	if err != nil && err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) && o.tail.ended && o.src.failed() == nil {
		return n, cutShort()
	}
	return n, o.src.cause(err)
}

// tail notes that the ciphertext has ended. Decryption reads it piece by piece, so
// that the piece it fails on was the last then.
type tail struct {
	r     io.Reader
	ended bool
}

func (t *tail) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	t.ended = t.ended || err == io.EOF
	return n, err
}

// cutShort is the error for an age file whose last piece does not open. A file that
// was cut ends in a part of a piece: nothing tells it from a piece that was
// changed, but it is by far the more likely.
func cutShort() error {
	return fmt.Errorf("%w: age encryption: %w, or its last 64 KiB are damaged", ErrDamaged, ErrTruncated)
}

type openedAt struct {
	r   io.ReaderAt
	src *source
}

func (o *openedAt) ReadAt(p []byte, off int64) (int, error) {
	n, err := o.r.ReadAt(p, off)
	return n, o.src.cause(err)
}

// shortLines refuses lines longer than armor can have. The armor reader gathers
// a whole line before it looks at its length.
type shortLines struct {
	r io.Reader
	n int // bytes of the line so far
}

const maxArmorLine = 4 << 10 // lines have 64; the space before the first may be longer

func (s *shortLines) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	for rest := p[:n]; len(rest) > 0; {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			s.n += len(rest)
		} else {
			s.n += i
		}
		if s.n > maxArmorLine {
			return 0, fmt.Errorf("armor: a line of more than %d bytes", maxArmorLine)
		}
		if i < 0 {
			break
		}
		s.n, rest = 0, rest[i+1:]
	}
	return n, err
}
