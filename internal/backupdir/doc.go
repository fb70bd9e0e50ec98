// Package backupdir is the state of a restored directory: what its files say of
// the backup in it, and whether that was prepared. It reads them in a directory
// that extraction made (xbstream_manifest.json, SPEC.md §5) and in one that
// mariabackup left (xtrabackup_checkpoints, backup-my.cnf).
//
// Promises:
//
//   - Nothing that came with a backup reaches a server as it is. The values of
//     backup-my.cnf are checked, and DataFiles names files that lie in the
//     directory, and no others.
//   - A file that is replaced is the old one or the new one, also when the
//     machine fails meanwhile, and keeps its owner and mode.
//   - Only MarkPrepared says that a directory is prepared.
//
// It does not recover anything, and looks into no page and no redo.
package backupdir
