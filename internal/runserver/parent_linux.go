package runserver

import "syscall"

// dieWithParent makes the kernel end the server when this process dies: a
// server left behind would keep writing to a directory nobody watches.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
