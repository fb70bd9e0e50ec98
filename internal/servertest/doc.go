// Package servertest starts real MariaDB servers, keeps them under a write
// load, and says whether a copy holds what its source holds.
//
// It promises:
//
//   - Every server lives in a directory of its own below one temporary
//     directory of the process, listens on a unix socket there (and, if asked,
//     on a loopback port), and reads no option file.
//   - No server outlives the process: Close stops it, and the kernel kills it
//     when the process dies first.
//   - Every wait has an end. A server that does not start or stop in time is an
//     error that carries the tail of its error log.
//   - Compare has no false "equal": it reads every row of every table, tells
//     NULL from the empty string, and uses no floating-point numbers.
//
// It needs Linux, mariadbd and mariadb-install-db in the path, and for further
// releases what make setup unpacks.
package servertest
