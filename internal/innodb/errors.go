package innodb

import "errors"

// ErrUnsupportedLog means a redo log of a kind that is not supported. The errors
// of the families wrap it and name the kind.
var ErrUnsupportedLog = errors.New("unsupported redo log format")
