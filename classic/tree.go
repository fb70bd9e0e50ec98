package classic

import (
	"errors"
	"fmt"
	"iter"
	"path"
	"strings"

	"github.com/xbstream/xbstream/format"
)

// Limits of what is kept of a stream in memory: one entry a file.
const (
	// MaxFiles bounds the files of a stream: so many keep a reader below 256 MiB.
	MaxFiles = 1 << 19
	// MaxPaths bounds all their paths together, in bytes.
	MaxPaths = 64 << 20
)

// tree is what the stream has brought so far: numbers are given to files as
// they begin, names change until the end.
type tree struct {
	files  []entry // of number n at n-1
	byPath map[string]format.FileNo
	paths  int // bytes, of the names taken back as well
}

// entry is a file; one without a path was removed or replaced.
type entry struct {
	path string
	size int64
}

// add gives a new file its number.
func (t *tree) add(p string) (format.FileNo, error) {
	if len(t.files) >= MaxFiles {
		return 0, fmt.Errorf("more than %d files", MaxFiles)
	}
	t.files = append(t.files, entry{})
	no := format.FileNo(len(t.files))
	return no, t.name(no, p)
}

func (t *tree) name(no format.FileNo, p string) error {
	if t.paths += len(p); t.paths > MaxPaths {
		return fmt.Errorf("paths of more than %d bytes", MaxPaths)
	}
	t.files[no-1].path = p
	t.byPath[p] = no
	return nil
}

// has says whether a file bears that name.
func (t *tree) has(p string) bool { return t.byPath[p] != 0 }

// size gives the bytes of a file that has that name and is closed.
func (t *tree) size(p string) int64 { return t.files[t.byPath[p]-1].size }

// remove takes a file away, if there is one: mariabackup removes files of
// dropped tables whether it had sent them or not.
func (t *tree) remove(p string) {
	if no := t.byPath[p]; no != 0 {
		t.files[no-1].path = ""
		delete(t.byPath, p)
	}
}

// rename moves a file, if there is one, in the place of another, if there is
// one. mariabackup repeats at the end every rename that the server did while it
// copied, and some files were copied under their new names already.
func (t *tree) rename(from, to string) error {
	no := t.byPath[from]
	if no == 0 || from == to {
		return nil
	}
	delete(t.byPath, from)
	t.remove(to)
	return t.name(no, to)
}

// discarded counts the files that are no longer part of the tree.
func (t *tree) discarded() int { return len(t.files) - len(t.byPath) }

// all yields the files that are part of the tree, in the order of the stream.
func (t *tree) all() iter.Seq2[format.FileNo, entry] {
	return func(yield func(format.FileNo, entry) bool) {
		for i, e := range t.files {
			if e.path != "" && !yield(format.FileNo(i+1), e) {
				return
			}
		}
	}
}

// check refuses a file where another one needs a directory. It waits for the
// end, when all names are final.
func (t *tree) check() error {
	for _, e := range t.all() {
		for dir := path.Dir(e.path); dir != "."; dir = path.Dir(dir) {
			if t.has(dir) {
				return fmt.Errorf("%q is a file, and %q lies below it", dir, e.path)
			}
		}
	}
	return nil
}

// tail are the files that mariabackup and xtrabackup send last, under the names
// of their releases. The second one of a line is what releases from MariaDB 11
// on call it.
var tail = [][]string{
	{"xtrabackup_checkpoints", "mariadb_backup_checkpoints"},
	{"xtrabackup_info", "mariadb_backup_info"},
}

// suffixes of files that were compressed or encrypted one by one.
var suffixes = []string{"", ".qp", ".lz4", ".zst", ".xbcrypt", ".qp.xbcrypt", ".lz4.xbcrypt", ".zst.xbcrypt"}

// complete makes sure that the backup came to its end.
func (t *tree) complete() error {
	if len(t.byPath) == 0 {
		return errors.New("nothing is in it")
	}
	for _, names := range tail {
		if !t.hasOne(names) {
			return fmt.Errorf("no file %s, which a backup has at its end", strings.Join(names, " or "))
		}
	}
	return nil
}

func (t *tree) hasOne(names []string) bool {
	for _, name := range names {
		for _, suffix := range suffixes {
			if t.has(name + suffix) {
				return true
			}
		}
	}
	return false
}
