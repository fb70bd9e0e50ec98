// Package mysql is the family of MySQL servers, 8.0.30 to 9.7. Its rooms are source
// (discovery, checks, locks, position), files (where they are and when they stand
// still), tail (the redo log of a running server), redo (that log on disk), apply
// (what its records do to pages) and pages (their form). This package puts them
// together.
package mysql
