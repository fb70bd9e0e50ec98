// Package cli is what xbsend and xbstream share as commands: exit codes,
// signals, messages on standard error, progress.
//
// Messages follow one set of rules. They go to standard error only. Each is one
// line that begins with the command's name. A command is quiet by default: a
// start line, warnings, a summary. The last line of a failed run is the error,
// with a hint after it where one helps.
package cli
