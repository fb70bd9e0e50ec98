//go:build !linux

package runserver

import "syscall"

func dieWithParent() *syscall.SysProcAttr { return nil }
