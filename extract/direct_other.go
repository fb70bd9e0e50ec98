//go:build !linux

package extract

import "os"

func setDirect(*os.File, bool) bool { return false }

func reserve(*os.File, int64, int64) bool { return false }
