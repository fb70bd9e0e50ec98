// Package extract turns an archive back into a directory.
//
// Everything is written to a staging directory inside the target and published
// by rename at the very end. In order:
//
//  1. The target is refused unless it is empty, before the first byte is read.
//  2. Frames are written as they come, each file under its number: names are
//     not known before the manifest. Redo is joined into one log file.
//  3. After the end frame the manifest is compared with what arrived: every
//     file, every size, redo from checkpoint to end LSN, nothing left over.
//  4. Files are renamed to their final names within the staging directory and
//     get owner and mode; then the caller's Prepare runs there.
//  5. All of it is synced, then moved to the target entry by entry. The system
//     tablespace comes last, when the other entries are synced; then the target
//     is synced again, and once more without the staging directory.
//
// Tables with a DATA DIRECTORY can be mapped to directories beside the target.
// Each of these has a staging directory of its own, in which their files arrive;
// while the tree is prepared, symbolic links stand for them. They are published
// and synced before the target is, and a staging directory there names that of
// the target, which alone says whether all was published.
//
// Promises:
//
//   - On any error the staging directory is removed and nothing else in the
//     target was touched. A process killed at any moment, or a machine that
//     fails, leaves the target without a system tablespace and with the staging
//     directory, never something that looks like a data directory and is none.
//   - No name from an archive leads out of the staging directories (os.Root).
//   - Memory and open files depend on the number of workers, not on the
//     archive; what is kept of each file is one number.
package extract
