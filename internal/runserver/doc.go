// Package runserver starts a database server on a directory that nobody else uses,
// waits until it answers, lets some work be done on it, and stops it.
//
// Promises:
//
//   - Nobody can connect but this process's user: there is no network, and the
//     socket is in a private directory, with the log and temporary files. Nothing
//     that the server starts by itself runs: no replication, no events.
//   - No option file counts, only the arguments given.
//   - The server is stopped cleanly only when that is asked for, else at once, so
//     that what it was doing can be tried again. On Linux the kernel ends it when
//     this process dies.
//   - When it fails, the end of its log says why.
//
// What the server is for, and with which settings it recovers a directory, its
// caller knows.
package runserver
