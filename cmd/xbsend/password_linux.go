package main

import "unsafe"

// hide overwrites an argument of the process, or the end of one. The runtime
// does not copy arguments: os.Args lie in the memory that the kernel shows as
// /proc/PID/cmdline, which a process may write. What is left is what the
// servers' own clients leave.
func hide(arg string) {
	if arg == "" {
		return
	}
	b := unsafe.Slice(unsafe.StringData(arg), len(arg))
	clear(b)
	b[0] = 'x'
}
