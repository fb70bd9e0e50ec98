// Package files finds the files of a MariaDB server: what is InnoDB's, what
// belongs to other engines, and what is no part of a backup. It reads
// directories, and of the system tablespace the first pages.
//
// A file or directory that disappears while it is looked for is left out. The
// facts about names are of MariaDB 10.11.
package files
