// Package apply applies redo records of MariaDB 10.5 and later to pages.
//
// Records describe bytes, not rows: the data dictionary is not needed. A
// record that does not fit its page gives an error; nothing outside the page
// is ever read or written, whatever the bytes say.
package apply
