package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash/fnv"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// disk is a directory as processes see it, and what of it was synced. It is as
// hard as POSIX allows:
//
//   - the content of a file is durable after fsync of that file;
//   - a name in a directory, new, removed or renamed, after fsync of that
//     directory, in whatever order;
//   - of a rename between two directories the new name may be durable while the
//     old one still is, never the other way round: no file system in use loses
//     the file;
//   - syncfs makes everything durable, sync_file_range nothing.
type disk struct {
	t     *testing.T
	base  string
	root  *node
	count uint64 // of nodes and updates so far
	// mounts are directories that are file systems of their own.
	mounts []string
}

// node is a file or a directory.
type node struct {
	id  uint64
	dir bool

	now, synced []byte // content
	shared      bool   // now and synced are the same slice, which then does not change
	sum         [32]byte
	summed      bool // sum is that of the content, while shared

	names, syncedNames map[string]*node
	pending            []*update // of names, in order
}

// update is a change to the names of one directory that was not synced.
type update struct {
	id     uint64
	set    map[string]*node // nil: the name goes
	needs  *update          // durable only together with that one
	synced bool
}

// newDisk reads base, which counts as durable.
func newDisk(t *testing.T, base string) *disk {
	t.Helper()
	d := &disk{t: t, base: base}
	d.root = d.read(base)
	return d
}

func (d *disk) read(path string) *node {
	d.t.Helper()
	st, err := os.Lstat(path)
	check(d.t, err)
	if !st.IsDir() {
		n := d.newFile()
		n.now, err = os.ReadFile(path)
		check(d.t, err)
		n.synced = n.now
		return n
	}
	n := d.newDir()
	entries, err := os.ReadDir(path)
	check(d.t, err)
	for _, e := range entries {
		n.names[e.Name()] = d.read(filepath.Join(path, e.Name()))
	}
	n.syncedNames = maps.Clone(n.names)
	return n
}

func (d *disk) newDir() *node {
	d.count++
	return &node{id: d.count, dir: true, names: map[string]*node{}, syncedNames: map[string]*node{}}
}

func (d *disk) newFile() *node {
	d.count++
	return &node{id: d.count, shared: true}
}

// inside says whether a path lies on the disk.
func (d *disk) inside(path string) bool { return path == d.base || strings.HasPrefix(path, d.base+"/") }

// find returns what a path names now, nil if nothing.
func (d *disk) find(path string) *node {
	n := d.root
	rel, err := filepath.Rel(d.base, path)
	check(d.t, err)
	for _, name := range strings.Split(rel, "/") {
		if name != "." {
			if n = n.names[name]; n == nil {
				return nil
			}
		}
	}
	return n
}

func (d *disk) mustFind(path string) *node {
	d.t.Helper()
	n := d.find(path)
	if n == nil {
		d.t.Fatalf("the recorded run uses %q, which it never made", path)
	}
	return n
}

// set changes names of a directory, not durably.
func (d *disk) set(dir string, needs *update, names map[string]*node) *update {
	d.t.Helper()
	n := d.mustFind(dir)
	d.count++
	u := &update{id: d.count, set: names, needs: needs}
	apply(n.names, u)
	n.pending = append(n.pending, u)
	return u
}

func apply(names map[string]*node, u *update) {
	for name, n := range u.set {
		if n == nil {
			delete(names, name)
		} else {
			names[name] = n
		}
	}
}

// punch makes a hole within a file, whose size stays.
func (d *disk) punch(p string, off, n int64) bool {
	d.t.Helper()
	if !d.inside(p) {
		return false
	}
	if n = min(n, int64(len(d.mustFind(p).now))-off); n <= 0 {
		return false
	}
	return d.write(p, make([]byte, n), off)
}

// do is one call of the recorded run. It returns whether anything changed.
func (d *disk) do(c call) (changed bool) {
	t := d.t
	t.Helper()
	switch c.name {
	case "openat":
		return strings.Contains(c.args[2], "O_CREAT|") && d.open(c) || strings.Contains(c.args[2], "O_TRUNC") && d.open(c)
	case "mkdirat":
		return d.make(c.at(t, 0), d.newDir())
	case "symlinkat":
		return d.make(c.at(t, 1), d.newFile())
	case "unlinkat":
		p := c.at(t, 0)
		if !d.inside(p) {
			return false
		}
		d.set(filepath.Dir(p), nil, map[string]*node{filepath.Base(p): nil})
		return true
	case "renameat", "renameat2":
		return d.rename(c.at(t, 0), c.at(t, 2))
	case "pwrite64":
		return d.write(c.file(t, 0), c.bytes(t, 1)[:c.result], c.number(t, 3))
	case "write":
		if p := c.file(t, 0); d.inside(p) { // all files are written from the start
			return d.write(p, c.bytes(t, 1)[:c.result], int64(len(d.mustFind(p).now)))
		}
		return false
	case "ftruncate":
		return d.truncate(c.file(t, 0), c.number(t, 1))
	case "fallocate":
		if strings.Contains(c.args[1], "PUNCH_HOLE") {
			return d.punch(c.file(t, 0), c.number(t, 2), c.number(t, 3))
		}
		if !strings.Contains(c.args[1], "KEEP_SIZE") {
			t.Fatalf("%v: the disk does not know that", c)
		}
		return false // room for later writes
	case "fsync", "fdatasync":
		return d.fsync(c.file(t, 0))
	case "syncfs":
		if p := c.file(t, 0); d.inside(p) {
			d.syncAll(d.mountOf(p))
		}
		return true
	case "mmap":
		if strings.Contains(c.args[3], "MAP_SHARED") && strings.Contains(c.args[2], "PROT_WRITE") {
			t.Fatalf("%v: the disk does not see what is written there", c)
		}
		return false
	case "execve", "access", "newfstatat", "readlinkat", "readlink", "statfs", "fchownat", "fchmodat", "sync_file_range",
		"utimensat", "getcwd", "faccessat2", "statx", "inotify_add_watch", "syscall_0x1c4", "fchmodat2":
		return false
	}
	t.Fatalf("%v: unknown to the disk", c)
	return false
}

func (d *disk) make(p string, n *node) bool {
	if !d.inside(p) {
		return false
	}
	d.set(filepath.Dir(p), nil, map[string]*node{filepath.Base(p): n})
	return true
}

func (d *disk) open(c call) bool {
	p := c.at(d.t, 0)
	if !d.inside(p) {
		return false
	}
	n := d.find(p)
	if n == nil {
		return d.make(p, d.newFile())
	}
	if strings.Contains(c.args[2], "O_TRUNC") {
		n.resize(0)
	}
	return true
}

func (d *disk) rename(from, to string) bool {
	if !d.inside(from) {
		return false
	}
	n := d.mustFind(from)
	gone, come := map[string]*node{filepath.Base(from): nil}, map[string]*node{filepath.Base(to): n}
	if filepath.Dir(from) == filepath.Dir(to) {
		maps.Copy(gone, come)
		d.set(filepath.Dir(from), nil, gone)
		return true
	}
	d.set(filepath.Dir(from), d.set(filepath.Dir(to), nil, come), gone)
	return true
}

func (d *disk) write(p string, b []byte, off int64) bool {
	if p == "" || !d.inside(p) {
		return false
	}
	n := d.mustFind(p)
	n.resize(max(int64(len(n.now)), off+int64(len(b))))
	copy(n.now[off:], b)
	return true
}

func (d *disk) truncate(p string, size int64) bool {
	if p == "" || !d.inside(p) {
		return false
	}
	d.mustFind(p).resize(size)
	return true
}

// resize makes the content the node's own and gives it a size.
func (n *node) resize(size int64) {
	if n.shared {
		n.now, n.shared, n.summed = bytes.Clone(n.now), false, false
	}
	if size <= int64(len(n.now)) {
		n.now = n.now[:size:size]
	} else {
		n.now = append(n.now, make([]byte, size-int64(len(n.now)))...)
	}
}

func (d *disk) fsync(p string) bool {
	if p == "" || !d.inside(p) {
		return false
	}
	d.mustFind(p).sync()
	return true
}

func (n *node) sync() {
	if !n.dir {
		n.synced, n.shared = n.now, true
		return
	}
	for _, u := range n.pending {
		apply(n.syncedNames, u)
		u.synced = true
	}
	n.pending = nil
}

// mountOf is the root of the file system that a path is on.
func (d *disk) mountOf(path string) *node {
	for _, m := range d.mounts {
		if path == m || strings.HasPrefix(path, m+"/") {
			return d.mustFind(m)
		}
	}
	return d.root
}

func (d *disk) syncAll(n *node) {
	n.sync()
	for _, c := range n.names {
		d.syncAll(c)
	}
}

// luck decides what a crash leaves of the changes that were not synced.
type luck struct {
	name  func(*update) bool
	block func(n *node, at int) bool // also of its size, at -1
}

var (
	nothing    = luck{func(*update) bool { return false }, func(*node, int) bool { return false }}
	everything = luck{func(*update) bool { return true }, func(*node, int) bool { return true }}
)

// chance keeps about half, the same for the same seed.
func chance(seed uint64) luck {
	coin := func(kind, id, at uint64) bool {
		h := fnv.New64a()
		_ = binary.Write(h, binary.LittleEndian, []uint64{seed, kind, id, at}) // a hash takes it
		return h.Sum64()>>20&1 == 1
	}
	return luck{
		name:  func(u *update) bool { return coin(1, u.id, 0) },
		block: func(n *node, at int) bool { return coin(2, n.id, uint64(at)) },
	}
}

// newest keeps of all only the last change of names: the worst order.
func (d *disk) newest() luck {
	last := d.count
	return luck{func(u *update) bool { return u.id == last }, nothing.block}
}

func (u *update) kept(l luck) bool {
	return u.synced || l.name(u) && (u.needs == nil || u.needs.kept(l))
}

// namesAfter are the names of a directory after a crash.
func (n *node) namesAfter(l luck) map[string]*node {
	names := maps.Clone(n.syncedNames)
	for _, u := range n.pending {
		if u.kept(l) {
			apply(names, u)
		}
	}
	return names
}

const diskBlock = 4096

// contentAfter is the content of a file after a crash: each block as it was
// synced or as it is now, and the size likewise.
func (n *node) contentAfter(l luck) []byte {
	if n.shared {
		return n.now
	}
	size := len(n.synced)
	if l.block(n, -1) {
		size = len(n.now)
	}
	out := make([]byte, size)
	copy(out, n.synced)
	for at := 0; at < min(size, len(n.now)); at += diskBlock {
		if l.block(n, at) {
			copy(out[at:min(at+diskBlock, size)], n.now[at:])
		}
	}
	return out
}

// digest is what a file or directory holds, by path.
type digest map[string][32]byte

var dirSum = [32]byte{1}

func (n *node) digest(l luck, path string, out digest) {
	for name, c := range n.namesAfter(l) {
		p := filepath.Join(path, name)
		if c.dir {
			out[p] = dirSum
			c.digest(l, p, out)
			continue
		}
		content := c.contentAfter(l)
		if !c.shared {
			out[p] = sha256.Sum256(content)
			continue
		}
		if !c.summed {
			c.sum, c.summed = sha256.Sum256(content), true
		}
		out[p] = c.sum
	}
}

// digestOf reads a directory.
func digestOf(t *testing.T, dir string) digest {
	t.Helper()
	out := digest{}
	check(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		check(t, err)
		if e.IsDir() {
			out[rel] = dirSum
			return nil
		}
		b, err := os.ReadFile(path)
		out[rel] = sha256.Sum256(b)
		return err
	}))
	return out
}

// put makes real what a crash leaves of a directory.
func (n *node) put(t *testing.T, l luck, dir string) {
	t.Helper()
	check(t, os.MkdirAll(dir, 0o700))
	for name, c := range n.namesAfter(l) {
		p := filepath.Join(dir, name)
		if c.dir {
			c.put(t, l, p)
			continue
		}
		putFile(t, p, c.contentAfter(l))
	}
}

// putFile writes a file and leaves holes where it is zero.
func putFile(t *testing.T, p string, content []byte) {
	t.Helper()
	f, err := os.Create(p)
	check(t, err)
	defer f.Close()
	check(t, f.Truncate(int64(len(content))))
	const piece = 64 << 10
	zero := make([]byte, piece)
	for at := 0; at < len(content); at += piece {
		b := content[at:min(at+piece, len(content))]
		if !bytes.Equal(b, zero[:len(b)]) {
			_, err := f.WriteAt(b, int64(at))
			check(t, err)
		}
	}
}
