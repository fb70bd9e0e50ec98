package backupdir

import "errors"

// What can be wrong with the backup in a directory, for those who decide on it.
var (
	// ErrNotBackup: the directory does not hold a backup.
	ErrNotBackup = errors.New("not a backup directory")
	// ErrIncomplete: redo or a tablespace is missing.
	ErrIncomplete = errors.New("backup is incomplete")
	// ErrDamaged: redo or a page is not what it claims to be.
	ErrDamaged = errors.New("backup is damaged")
	// ErrEncrypted: redo or a tablespace is encrypted, and only a server with the
	// key can recover it.
	ErrEncrypted = errors.New("encrypted: only a server that has the keys can recover it; use --with-server, and --server-option for what it needs to find them")
)
