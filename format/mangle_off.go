//go:build !race

package format

func mangle(*Buffer) {}
