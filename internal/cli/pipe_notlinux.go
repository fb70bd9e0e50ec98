//go:build unix && !linux

package cli

import "os"

func growPipe(*os.File, int) {}

func letReaderGoOn() {}
