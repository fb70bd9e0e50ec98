package chunker

import "golang.org/x/sys/unix"

// Allocated returns the bytes that files take on disk, without holes. A file that
// went away takes none.
func Allocated(files []File) (n int64) {
	for _, f := range files {
		var st unix.Stat_t
		if unix.Stat(f.Abs, &st) == nil {
			n += st.Blocks * 512
		}
	}
	return n
}
