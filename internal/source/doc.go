// Package source opens the files of a live server for reading. Whoever owns the
// data directory decides what lies in it, and xbsend often runs as root, so
// every file of the server is opened here.
//
// It promises:
//   - Opening never waits: a FIFO, a device, a socket or a directory in a file's
//     place gives a *RefusedError, and nothing is read from it.
//   - Below the data directory a symbolic link is followed only where the server
//     or its administrator makes one: for the directory of a database, and for a
//     file that the caller says may be linked.
//   - Behind a link, nothing is opened that the owner of the data directory could
//     not open: every directory on the way must let that user pass, and the file
//     must let it read. The same holds for a file with several hard links. Mode
//     bits decide; access control lists are not read.
//   - What was checked is what was opened, also if names change meanwhile.
package source
