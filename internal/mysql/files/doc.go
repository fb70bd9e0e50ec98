// Package files finds the files of a MySQL server: what is InnoDB's, what belongs
// to other engines, and what is no part of a backup. It reads directories, of the
// system tablespace the first pages, and asks the server's dictionary for
// tablespaces that are kept elsewhere.
//
// A file or directory that disappears while it is looked for is left out. The
// facts about names are of MySQL 8.0.30 and 9.7.
package files
