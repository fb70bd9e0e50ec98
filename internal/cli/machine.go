package cli

import (
	"errors"
	"fmt"
	"io"
	"syscall"
)

// machine are failures of the machine rather than of what is being done: no
// space, no quota, no descriptor, a disk that does not read or write.
var machine = []error{
	syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.EROFS, syscall.EIO, syscall.ESTALE,
	syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM,
}

// MachineFailed says whether err is such a failure: then that is what the exit
// code is about, whatever failed because of it.
func MachineFailed(err error) bool {
	for _, e := range machine {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// explained adds what helps, where that is known.
func explained(err error) error {
	switch {
	case errors.Is(err, syscall.EMFILE):
		return fmt.Errorf("%w; raise this process's limit of open files (ulimit -n)", err)
	case errors.Is(err, syscall.ENFILE):
		return fmt.Errorf("%w; the whole system has too many files open (sysctl fs.file-max)", err)
	}
	return err
}

// Report logs the error that ends a command, with what helps.
func (o *Output) Report(name string, stderr io.Writer, err error) {
	o.Logger(name, stderr).Error(explained(err).Error())
}
