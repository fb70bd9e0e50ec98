package format

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// The manifest is one JSON document written in lines (SPEC.md §5.1): the first
// line holds everything but the files and ends in filesOpen, each further line
// holds one file, the last line is filesClose. Any JSON reader takes it whole;
// ours takes it line by line, so that neither the number of files nor a hostile
// document decides how much memory is used.
const (
	filesOpen  = `,"files":[`
	filesClose = `]}`
)

// manifestVersion is the value of Manifest.Format this package writes and the
// only one it reads.
const manifestVersion = 1

// EncodeManifest writes m with all its files to w.
func EncodeManifest(w io.Writer, m *Manifest) error {
	e, err := NewManifestEncoder(w, m)
	for i := range m.Files {
		if err == nil {
			err = e.Add(&m.Files[i])
		}
	}
	if err != nil {
		return err
	}
	return e.Close()
}

// ManifestEncoder writes a manifest whose files come one by one.
type ManifestEncoder struct {
	w    io.Writer
	file []byte // the line of the file added last, nil before the first
}

// NewManifestEncoder writes m without its files. It refuses what DecodeManifest
// would refuse.
func NewManifestEncoder(w io.Writer, m *Manifest) (*ManifestEncoder, error) {
	head := readable(*m)
	head.Format = manifestVersion
	if err := checkHead(&head); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	b, err := json.Marshal(&head)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	return &ManifestEncoder{w: w}, writeLine(w, append(b[:len(b)-1], filesOpen...))
}

// Add adds a file.
func (e *ManifestEncoder) Add(f *File) error {
	if err := checkEntry(f); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	b, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("manifest, file %q: %w", f.Path, err)
	}
	if e.file != nil {
		err = writeLine(e.w, append(e.file, ','))
	}
	e.file = b
	return err
}

// Close writes the end. It does not close the underlying writer.
func (e *ManifestEncoder) Close() error {
	if e.file != nil {
		if err := writeLine(e.w, e.file); err != nil {
			return err
		}
	}
	return writeLine(e.w, []byte(filesClose))
}

func writeLine(w io.Writer, b []byte) error {
	if len(b)+1 > MaxManifestLine {
		return fmt.Errorf("manifest: line of %d bytes, over the limit of %d: %s", len(b), MaxManifestLine, clip(string(b)))
	}
	_, err := w.Write(append(b, '\n'))
	return err
}

// DecodeManifest reads a manifest and calls each for every file, in order. The
// returned manifest has no Files. Errors wrap ErrDamaged or ErrUnsupported, or
// are those of r and of each. Strings and numbers are checked, each by itself;
// what they say together is for Entries.
func DecodeManifest(r io.Reader, each func(*File) error) (*Manifest, error) {
	d := manifestDecoder{r: bufio.NewReaderSize(r, MaxManifestLine)}
	m, err := d.head()
	if err != nil {
		return nil, err
	}
	for {
		f, err := d.file()
		if err == io.EOF {
			return m, nil
		}
		if err != nil {
			return nil, err
		}
		if err := each(f); err != nil {
			return nil, err
		}
	}
}

// DecodeManifestHead reads a manifest without its files.
func DecodeManifestHead(r io.Reader) (*Manifest, error) {
	d := manifestDecoder{r: bufio.NewReaderSize(r, MaxManifestLine)}
	return d.head()
}

// ReadManifest reads a manifest with all its files into memory.
func ReadManifest(r io.Reader) (*Manifest, error) {
	var files []File
	m, err := DecodeManifest(r, func(f *File) error {
		files = append(files, *f)
		return nil
	})
	if err != nil {
		return nil, err
	}
	m.Files = files
	return m, nil
}

type manifestDecoder struct {
	r    *bufio.Reader
	line int  // from 1
	last bool // the previous file line had no comma: only filesClose may follow
}

func (d *manifestDecoder) next() ([]byte, error) {
	d.line++
	b, err := d.r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, d.damaged(fmt.Errorf("longer than %d bytes", MaxManifestLine))
	case err == io.EOF:
		return nil, d.damaged(io.ErrUnexpectedEOF)
	case err != nil:
		return nil, fmt.Errorf("manifest, line %d: %w", d.line, err)
	}
	return b[:len(b)-1], nil
}

func (d *manifestDecoder) damaged(err error) error {
	return fmt.Errorf("%w: manifest, line %d: %w", ErrDamaged, d.line, err)
}

func (d *manifestDecoder) head() (*Manifest, error) {
	b, err := d.next()
	if err != nil {
		return nil, err
	}
	rest, ok := bytes.CutSuffix(b, []byte(filesOpen))
	if !ok {
		return nil, d.damaged(errors.New("not the first line of a manifest"))
	}
	m := new(Manifest)
	if err := unmarshal(append(rest, '}'), m); err != nil {
		return nil, d.damaged(err)
	}
	if m.Format != manifestVersion {
		return nil, fmt.Errorf("%w: manifest version %d, this program reads version %d", ErrUnsupported, m.Format, manifestVersion)
	}
	if err := checkHead(m); err != nil {
		if errors.Is(err, ErrUnsupported) {
			return nil, fmt.Errorf("manifest: %w", err)
		}
		return nil, d.damaged(err)
	}
	return m, nil
}

func (d *manifestDecoder) file() (*File, error) {
	b, err := d.next()
	if err != nil {
		return nil, err
	}
	if string(b) == filesClose {
		return nil, d.tail()
	}
	if d.last {
		return nil, d.damaged(errors.New("the list of files should have ended"))
	}
	if d.line > MaxFiles+1 { // the first line has no file
		return nil, d.damaged(fmt.Errorf("more than %d files", MaxFiles))
	}
	b, more := bytes.CutSuffix(b, []byte(","))
	d.last = !more
	f := new(File)
	if err := unmarshal(b, f); err != nil {
		return nil, d.damaged(err)
	}
	if err := checkEntry(f); err != nil {
		return nil, d.damaged(err)
	}
	return f, nil
}

// unmarshal is json.Unmarshal for what must be UTF-8 and an object; the package
// would mend the one and take null for the other.
func unmarshal(b []byte, v any) error {
	if !utf8.Valid(b) {
		return errors.New("not UTF-8")
	}
	if b = bytes.TrimLeft(b, " \t\r\n"); len(b) == 0 || b[0] != '{' {
		return errors.New("not a JSON object")
	}
	return json.Unmarshal(b, v)
}

// tail makes sure that nothing follows the last line.
func (d *manifestDecoder) tail() error {
	if _, err := d.r.ReadByte(); err != io.EOF {
		if err != nil {
			return fmt.Errorf("manifest: %w", err)
		}
		return d.damaged(errors.New("something follows the manifest"))
	}
	return io.EOF
}

func checkEntry(f *File) error {
	if err := CheckPath(f.Path); err != nil {
		return err
	}
	if strings.ContainsFunc(f.Source, isControl) {
		return fmt.Errorf("file %q: control character in its source %q", f.Path, clip(f.Source))
	}
	if f.Size < 0 || f.Size > MaxFileSize {
		return fmt.Errorf("file %q: size %d", f.Path, f.Size)
	}
	switch f.Kind {
	case KindDir:
		if f.No != 0 || f.Size != 0 || f.Space != nil {
			return fmt.Errorf("directory %q with a number, a size or a tablespace", f.Path)
		}
		return nil
	case KindLeftOut:
		if f.No != 0 || f.Size != 0 || f.Space == nil || f.Space.FirstPage != 0 {
			return fmt.Errorf("left out file %q with a number, a size or without a tablespace of its own", f.Path)
		}
		return nil
	}
	if !f.Kind.ofFile() {
		return fmt.Errorf("%w: file %q of kind %q", ErrUnsupported, f.Path, f.Kind)
	}
	if f.Kind != KindFile && f.Space == nil {
		return fmt.Errorf("file %q of kind %s without a tablespace", f.Path, f.Kind)
	}
	if f.No == 0 || f.No > MaxFiles {
		return fmt.Errorf("file %q with number %d", f.Path, f.No)
	}
	return nil
}
