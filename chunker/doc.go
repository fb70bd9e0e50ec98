// Package chunker reads a server's data files while the server writes them and
// gives their content to an archive: InnoDB files in page-aligned chunks whose
// every page was checked, other files as they are.
//
// Promises:
//
//   - No page leaves that does not pass the check of its format. A torn page is
//     read again; one that stays bad ends the copy with a *PageError, which
//     says where it is and wraps ErrDamagedPage.
//   - A file that disappears before it could be opened is no error: its result
//     says Gone. What becomes of it is settled by Reconcile, by space id.
//   - Open files are bounded by the number of workers, memory by one chunk a
//     worker and the names of the files.
//   - Nothing is locked here. The caller knows under which stage of the backup
//     a file stands still: see Class.Stage.
//
// What differs between server families, which is where files are and what they
// are called, is behind Discoverer.
package chunker
