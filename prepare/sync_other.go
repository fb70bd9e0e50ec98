//go:build !unix

package prepare

// syncDir does nothing: these systems have no handle to sync a directory with.
func syncDir(string) error { return nil }
