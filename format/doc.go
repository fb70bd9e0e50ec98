// Package format is what travels: the archive that xbsend writes and xbstream
// reads, byte by byte as SPEC.md defines it.
//
// An archive is one header, then frames, then nothing. Every frame has a fixed
// header with its own checksum, tied to the archive's id, and a payload with a
// checksum. Frames of many files and of the redo log interleave freely. A
// manifest near the end says what the archive claims to hold, and one end frame
// closes it.
//
// Writer and Reader promise:
//
//   - A reader returns io.EOF only after a valid end frame that was the last
//     thing in the stream. Anything else, an empty stream included, is an
//     error that wraps ErrDamaged and names frame and offset.
//   - Nothing unverified leaves a Reader: header checksum, order, bounds and
//     payload checksum are checked before the caller sees a frame.
//   - Memory is bounded by the limits of SPEC.md §6, whatever the stream says.
//
// The package knows identifiers of a database (LSN, SpaceID, PageNo) and
// nothing else of it.
package format
