//go:build !unix

package backupdir

// SyncDir does nothing: these systems have no handle to sync a directory with.
func SyncDir(string) error { return nil }
