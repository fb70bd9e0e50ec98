package source

import (
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many links the kernel follows on one path.
const maxLinks = 40

// walk opens a path component by component, as the kernel would do it for the
// owner of the data directory.
type walk struct {
	root     *Root
	wantFile bool // else a directory
	linked   bool

	at      int      // the directory reached, opened with O_PATH
	rest    []string // components yet to come
	depth   int      // components taken below the root
	outside bool     // a link was followed: the owner's rights count
	links   int
}

// open opens abs, or rel below the root.
func (w *walk) open(abs, rel string, below bool) (fd int, st unix.Stat_t, err error) {
	if below {
		d, err := w.root.dir()
		if err != nil {
			return -1, st, err
		}
		// The root's own descriptor must outlive the walk's.
		if w.at, err = retry(func() (int, error) { return unix.FcntlInt(d.Fd(), unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
			return -1, st, err
		}
		w.rest = split(rel)
	} else {
		w.outside = true
		if w.at, err = openDir(unix.AT_FDCWD, "/"); err != nil {
			return -1, st, err
		}
		w.rest = split(abs)
	}
	defer func() { unix.Close(w.at) }()
	for len(w.rest) > 1 {
		if err := w.step(); err != nil {
			return -1, st, err
		}
	}
	return w.last()
}

func split(path string) []string {
	return strings.FieldsFunc(filepath.Clean(path), func(r rune) bool { return r == filepath.Separator })
}

// step goes one component further, into a directory.
func (w *walk) step() error {
	name := w.rest[0]
	next, st, err := w.look(name)
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		defer unix.Close(next)
		return w.follow(next, w.depth == 0) // the directory of a database
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		unix.Close(next)
		return unix.ENOTDIR
	}
	unix.Close(w.at)
	w.at, w.rest, w.depth = next, w.rest[1:], w.depth+1
	return nil
}

// look opens what name is in the directory reached, without reading it and
// without following a link.
func (w *walk) look(name string) (fd int, st unix.Stat_t, err error) {
	if err := w.mayPass(); err != nil {
		return -1, st, err
	}
	fd, err = retry(func() (int, error) {
		return unix.Openat(w.at, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return -1, st, err
	}
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, st, err
	}
	return fd, st, nil
}

// mayPass makes sure, behind a link, that the owner may use the directory.
func (w *walk) mayPass() error {
	if !w.outside {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(w.at, &st); err != nil {
		return err
	}
	o, err := w.root.owner()
	if err != nil || o.may(&st, mayPass) {
		return err
	}
	return w.root.notForServer(o)
}

// follow puts the target of a link in the place of the first component.
func (w *walk) follow(link int, allowed bool) error {
	if !w.outside && !allowed {
		return &RefusedError{Reason: "it is a symbolic link, and the server makes none in this place"}
	}
	if w.links++; w.links > maxLinks {
		return unix.ELOOP
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(link, "", buf)
	if err != nil {
		return err
	}
	target := string(buf[:n])
	w.outside = true
	if filepath.IsAbs(target) {
		top, err := openDir(unix.AT_FDCWD, "/")
		if err != nil {
			return err
		}
		unix.Close(w.at)
		w.at = top
	}
	// Not cleaned: what ".." means depends on the links before it.
	parts := strings.FieldsFunc(target, func(r rune) bool { return r == filepath.Separator })
	w.rest = append(parts, w.rest[1:]...)
	if len(w.rest) == 0 { // a link to "/"
		w.rest = []string{"."}
	}
	return nil
}

// last opens the last component, which may be a link to more of them.
func (w *walk) last() (fd int, st unix.Stat_t, err error) {
	for {
		if len(w.rest) == 0 {
			w.rest = []string{"."}
		}
		if len(w.rest) > 1 {
			if err := w.step(); err != nil {
				return -1, st, err
			}
			continue
		}
		found, st, err := w.look(w.rest[0])
		if err != nil {
			return -1, st, err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			err := w.follow(found, w.linked)
			unix.Close(found)
			if err != nil {
				return -1, st, err
			}
			continue
		}
		defer unix.Close(found)
		if w.wantFile {
			return w.reopen(found)
		}
		return w.reopenDir(found)
	}
}

// reopen checks a file before it is opened, since to open a device may already do
// something, and makes sure afterwards that it is still the same.
func (w *walk) reopen(found int) (fd int, st unix.Stat_t, err error) {
	if err := w.root.check(found, &st, w.outside); err != nil {
		return -1, st, err
	}
	was := st
	fd, err = retry(func() (int, error) { return unix.Openat(w.at, w.rest[0], readFlags, 0) })
	if err != nil {
		return -1, st, err
	}
	err = w.root.check(fd, &st, w.outside)
	if err == nil && (st.Dev != was.Dev || st.Ino != was.Ino) && w.outside {
		err = &RefusedError{Reason: "it became another file while it was opened"}
	}
	if err != nil {
		unix.Close(fd)
		return -1, st, err
	}
	return fd, st, nil
}

func (w *walk) reopenDir(found int) (fd int, st unix.Stat_t, err error) {
	if err := unix.Fstat(found, &st); err != nil {
		return -1, st, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return -1, st, unix.ENOTDIR
	}
	if w.outside {
		o, err := w.root.owner()
		if err != nil {
			return -1, st, err
		}
		if !o.may(&st, mayRead|mayPass) {
			return -1, st, w.root.notForServer(o)
		}
	}
	// "." of the directory that was checked.
	fd, err = retry(func() (int, error) {
		return unix.Openat(found, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	return fd, st, err
}

func openDir(at int, path string) (int, error) {
	return retry(func() (int, error) {
		return unix.Openat(at, path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
}
