//go:build !linux

package family

// Sender is what a backup needs of a family. xbsend runs on Linux.
type Sender interface{}
