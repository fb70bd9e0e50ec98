package outlet

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// meter counts the bytes of the archive as they leave, and hashes them if that is
// asked for.
//
// Hashing is not done always: one core hashes 1.5 GB a second, which is as much
// time as all the rest of a backup into a fast pipe takes.
type meter struct {
	w      io.Writer
	bytes  int64
	sum    hash.Hash   // nil: count only
	hashed chan []byte // to the goroutine that hashes
	done   chan struct{}
}

func newMeter(w io.Writer, hash bool) *meter {
	m := &meter{w: w}
	if hash {
		m.sum, m.hashed, m.done = sha256.New(), make(chan []byte), make(chan struct{})
		go func() {
			for b := range m.hashed {
				m.sum.Write(b)
				m.done <- struct{}{}
			}
		}()
	}
	return m
}

// Write hashes b while it writes it. Both are done with it when it returns.
func (m *meter) Write(b []byte) (int, error) {
	if m.sum != nil {
		m.hashed <- b
	}
	n, err := m.w.Write(b)
	if m.sum != nil {
		<-m.done
	}
	m.bytes += int64(n)
	return n, err
}

// Close ends the goroutine. Nothing is written after it.
func (m *meter) Close() error {
	if m.sum != nil {
		close(m.hashed)
	}
	return nil
}

// digest is the SHA-256 of what was written, in hex; empty if it was not asked for.
func (m *meter) digest() string {
	if m.sum == nil {
		return ""
	}
	return fmt.Sprintf("%x", m.sum.Sum(nil))
}

// digestSuffixes are what people call files with digests.
var digestSuffixes = []string{".sha256", ".sha256sum"}

// digestLine is the line of sha256sum for the archive. The archive has no name
// when it leaves: it is the digest file's without its suffix, or standard input
// ("-") if that has none.
func digestLine(file, digest string) string {
	name, found := filepath.Base(file), false
	for _, suffix := range digestSuffixes {
		if base, ok := strings.CutSuffix(name, suffix); ok && base != "" {
			name, found = base, true
			break
		}
	}
	if !found {
		name = "-"
	}
	// As sha256sum writes names with such characters.
	escaped := strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`).Replace(name)
	if escaped != name {
		return `\` + digest + "  " + escaped + "\n"
	}
	return digest + "  " + name + "\n"
}

// digestFile is the file of --digest-file. It gets its name when it is complete;
// until then an older one of the same name stays.
type digestFile struct {
	name string
	tmp  *os.File
}

// createDigest begins the file before the backup, so that one that cannot be
// written does not end the backup after hours.
func createDigest(name string) (*digestFile, error) {
	dir, base := filepath.Split(name)
	if st, err := os.Stat(name); err == nil && st.IsDir() {
		return nil, fmt.Errorf("--digest-file: %s is a directory", name)
	}
	// Not os.CreateTemp, whose files only their owner may read.
	tmp, err := os.OpenFile(filepath.Join(dir, "."+base+"."+rand.Text()+".part"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return nil, fmt.Errorf("--digest-file: %w", err)
	}
	return &digestFile{name, tmp}, nil
}

// publish writes the file and gives it its name.
func (d *digestFile) publish(digest string) error {
	_, err := d.tmp.WriteString(digestLine(d.name, digest))
	if err = errors.Join(err, d.tmp.Sync(), d.tmp.Close()); err == nil {
		err = os.Rename(d.tmp.Name(), d.name)
	}
	if err == nil {
		err = syncDir(filepath.Dir(d.name))
	}
	if err != nil {
		return fmt.Errorf("the archive is complete, but its digest could not be written: %w", err)
	}
	return nil
}

// discard removes what was not published.
func (d *digestFile) discard() {
	d.tmp.Close()
	os.Remove(d.tmp.Name())
}

func syncDir(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
