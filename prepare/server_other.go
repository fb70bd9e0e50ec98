//go:build !linux

package prepare

import "syscall"

func dieWithParent() *syscall.SysProcAttr { return nil }
