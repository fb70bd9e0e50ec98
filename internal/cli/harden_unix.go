//go:build unix

package cli

import "syscall"

// keepSecrets keeps the process's memory, with passwords and keys in it, out of
// core files and from other processes of the same user. Where the system refuses,
// it stays as it is.
func keepSecrets() {
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
	notDumpable()
}
