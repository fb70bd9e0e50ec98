package sparse

import "os"

var zeroBytes [64 << 10]byte

// writeZeros writes zeros, but does not make the file longer.
func writeZeros(f *os.File, off, n int64) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	for end := min(off+n, st.Size()); off < end; {
		w, err := f.WriteAt(zeroBytes[:min(end-off, int64(len(zeroBytes)))], off)
		if err != nil {
			return err
		}
		off += int64(w)
	}
	return nil
}
