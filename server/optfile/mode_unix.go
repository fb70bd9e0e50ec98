//go:build !windows

package optfile

// worldWritableMatters: permission bits mean what they say here.
const worldWritableMatters = true
