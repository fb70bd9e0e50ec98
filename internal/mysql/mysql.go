// Package mysql is the family of MySQL servers, 8.0.30 to 9.7. Its rooms are redo
// (the log on disk) and apply (what its records do to pages). This package puts
// them together. It has no source yet: no server of the family can be backed up.
package mysql
