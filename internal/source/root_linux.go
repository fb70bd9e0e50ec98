package source

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Root is a directory that the server's configuration names. Links on the way to
// it are followed, those below it only where Open says so. Its methods may be
// called from several goroutines. It opens nothing before it is used, and its
// descriptor lives as long as the Root.
type Root struct {
	path string
	// trusted is what decides what may be read behind a link: the data
	// directory, nil if that is this one.
	trusted *Root
	dir     func() (*os.File, error)
	owner   func() (owner, error)
}

// NewRoot returns the data directory at path, which is absolute.
func NewRoot(path string) *Root {
	r := &Root{path: filepath.Clean(path)}
	r.dir = sync.OnceValues(func() (*os.File, error) {
		fd, err := retry(func() (int, error) {
			return unix.Open(r.path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		})
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: r.path, Err: err}
		}
		return os.NewFile(uintptr(fd), r.path), nil
	})
	r.owner = sync.OnceValues(func() (owner, error) {
		if r.trusted != nil {
			return r.trusted.owner()
		}
		d, err := r.dir()
		if err != nil {
			return owner{}, err
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(d.Fd()), &st); err != nil {
			return owner{}, &fs.PathError{Op: "stat", Path: r.path, Err: err}
		}
		return ownerOf(&st), nil
	})
	return r
}

// Beside returns another directory of the same server: of its undo tablespaces,
// for one.
func (r *Root) Beside(path string) *Root {
	if filepath.Clean(path) == r.path {
		return r
	}
	other := NewRoot(path)
	other.trusted = r
	if r.trusted != nil {
		other.trusted = r.trusted
	}
	return other
}

// Path returns the directory's path.
func (r *Root) Path() string { return r.path }

// Open opens the regular file at abs, an absolute path, for reading and returns
// its descriptor and what fstat says of it. linked says that the file itself may
// be a symbolic link. A path that is not below the root is where a file of the
// server's says that another lies; it is treated as if a link had led there.
//
// Errors are *RefusedError and *fs.PathError.
func (r *Root) Open(abs string, linked bool) (fd int, st unix.Stat_t, err error) {
	rel, below := r.relative(abs)
	if below {
		fd, st, err = r.openPlain(rel)
		if err == nil || !errors.Is(err, errLinks) {
			return fd, st, r.named(abs, err)
		}
	}
	w := &walk{root: r, wantFile: true, linked: linked}
	fd, st, err = w.open(abs, rel, below)
	return fd, st, r.named(abs, err)
}

// ReadDir returns what is in the directory at abs, sorted by name. The directory
// itself may be a symbolic link.
func (r *Root) ReadDir(abs string) ([]fs.DirEntry, error) {
	rel, below := r.relative(abs)
	w := &walk{root: r, linked: true}
	fd, _, err := w.open(abs, rel, below)
	if err != nil {
		return nil, r.named(abs, err)
	}
	d := os.NewFile(uintptr(fd), abs)
	defer d.Close()
	entries, err := d.ReadDir(-1)
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, err
}

func (r *Root) relative(abs string) (string, bool) {
	rel, err := filepath.Rel(r.path, abs)
	return rel, err == nil && filepath.IsLocal(rel)
}

func (r *Root) named(abs string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*RefusedError](err); ok {
		e.Path = abs
		return e
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return err
	}
	return &fs.PathError{Op: "open", Path: abs, Err: err}
}

// errLinks says that openPlain has to leave it to a walk.
var errLinks = errors.New("a link is on the way")

// openPlain opens a file with no link on the way to it, in one system call, where
// the kernel can do that.
func (r *Root) openPlain(rel string) (fd int, st unix.Stat_t, err error) {
	d, err := r.dir()
	if err != nil {
		return -1, st, err
	}
	how := &unix.OpenHow{
		Flags:   readFlags &^ unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH,
	}
	fd, err = retry(func() (int, error) { return unix.Openat2(int(d.Fd()), rel, how) })
	switch err {
	case nil:
	case unix.ELOOP, unix.EXDEV, unix.EAGAIN, // a link
		unix.ENXIO,                           // a socket or a device
		unix.ENOSYS, unix.EPERM, unix.EINVAL: // an old kernel, a filter of system calls
		return -1, st, errLinks
	default:
		return -1, st, err
	}
	if err := r.check(fd, &st, false); err != nil {
		unix.Close(fd)
		return -1, st, err
	}
	return fd, st, nil
}

// check makes sure that an open file is a regular one, and one that the server
// may read if it can be known by another name.
func (r *Root) check(fd int, st *unix.Stat_t, outside bool) error {
	if err := unix.Fstat(fd, st); err != nil {
		return err
	}
	if kind := kindOf(st); kind != "" {
		return &RefusedError{Reason: "it is " + kind + ", not a regular file"}
	}
	if !outside && st.Nlink < 2 {
		return nil
	}
	o, err := r.owner()
	if err != nil || o.may(st, mayRead) {
		return err
	}
	return r.notForServer(o)
}

func (r *Root) notForServer(o owner) error {
	return &RefusedError{Reason: fmt.Sprintf("it leads to what the owner of the data directory, user id %d, may not read", o.uid)}
}

// readFlags open a file without waiting for whatever it may be.
const readFlags = unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_NOFOLLOW

// Open opens the regular file at path for reading, through whatever links, and
// without waiting. It is for files that are not the server's.
func Open(path string) (fd int, st unix.Stat_t, err error) {
	fd, err = retry(func() (int, error) { return unix.Open(path, readFlags&^unix.O_NOFOLLOW, 0) })
	if err != nil {
		return -1, st, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	if err = unix.Fstat(fd, &st); err == nil {
		if kind := kindOf(&st); kind != "" {
			err = &RefusedError{Path: path, Reason: "it is " + kind + ", not a regular file"}
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, st, err
	}
	return fd, st, nil
}

// RefusedError says why a file is not opened.
type RefusedError struct{ Path, Reason string }

// Error quotes the path, which somebody else has chosen.
func (e *RefusedError) Error() string { return fmt.Sprintf("%q is refused: %s", e.Path, e.Reason) }

// kindOf names what is no regular file; empty for one that is.
func kindOf(st *unix.Stat_t) string {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return ""
	case unix.S_IFIFO:
		return "a FIFO"
	case unix.S_IFSOCK:
		return "a socket"
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFLNK:
		return "a symbolic link"
	}
	return "a device"
}

func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
