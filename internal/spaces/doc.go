// Package spaces finds out which file of a restored directory is which tablespace,
// and brings the files to where redo says they end: under their last names, those
// that were dropped removed. Page 0 says which tablespace a file is of; the manifest,
// or mariabackup's marker files, say what the sender saw last; the file records of
// the redo say what happened from there to the end of the backup.
//
// Promises:
//
//   - A file is of the tablespace that its page 0 names, whatever its own name is.
//     One whose page 0 was never written is of the tablespace to which redo gives
//     that name.
//   - What the manifest lists, and is neither there nor explained by redo, is an
//     error.
//   - It can be interrupted anywhere and run again, with the same result: names that
//     change pass through names of their own, and a file is only touched when it is
//     the one that is meant.
//   - Names in redo and in marker files are not trusted: whatever they are, nothing
//     comes or goes but files of databases in the directory, and those elsewhere that
//     extraction made a link file for.
//
// Pages behind page 0 are for who recovers them: of redo, only file records and
// what a tablespace was cut to come here.
package spaces
