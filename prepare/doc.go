// Package prepare recovers a copied data directory in place, so that a server
// started on it need not recover any page.
//
// The directory holds data files copied while the server was writing them, and
// one linear redo log from a checkpoint before the first page was copied to an
// LSN after the last. Run applies that redo without any server; WithServer
// lets a server's own recovery do it, for what Run cannot read (encrypted
// tablespaces and logs). Export makes the tables of the result ready to be
// imported into another server.
//
// What a directory says of its backup is read by internal/backupdir, which file is
// which tablespace is found out by internal/spaces, and servers are run by
// internal/runserver. Here is what is done with the redo.
//
// Promises:
//
//   - nil means proven: the redo was whole up to the backup's end LSN, every
//     tablespace of the manifest is there, no page touched is newer than the
//     end LSN, and every page written passes its checksum.
//   - The log is read and checked to its end before the first page is written.
//   - Killed at any moment, the directory can be prepared again, by running the
//     same call. That holds for the process; when the machine fails, pages may
//     be torn, which the next run reports, and the backup is extracted again.
//     Data files are synced before the log is replaced, and the log
//     is replaced before xtrabackup_checkpoints says log-applied.
//   - A prepared directory is left alone.
//   - A server starts on the result without a binary log: the transactions that
//     the source had prepared by itself and not committed are made active, so
//     that the server rolls them back; MySQL does so as they are. Those of XA
//     PREPARE stay prepared.
//   - The log is replaced by one that a server starts from, with the redo that
//     belongs to no page, if the family has such (MySQL: AUTO_INCREMENT).
//   - Memory is bounded by Options.Memory: more redo than that is applied in
//     several batches by LSN, with the same result.
//   - Only files in the directory are written, and tablespaces that the manifest
//     says were elsewhere at the source and of which there is a link file (.isl)
//     instead: extraction makes these.
//   - Redo may be gathered while it still arrives, by a Feed: that changes when
//     the work is done and nothing of the result.
package prepare
