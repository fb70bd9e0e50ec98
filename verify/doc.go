// Package verify reads an archive or a restored directory to its last page and
// says everything that is wrong with it.
//
// Of an archive it checks every frame, the rules across frames, the manifest
// against the frames, and every page of every tablespace: its checksum, its
// number, and that it is not newer than the backup's end. It goes on after
// damage where it can. Of a directory it checks what the manifest says: files,
// sizes, and every page. The checksum of an encrypted page of MySQL needs the key:
// such pages are counted apart.
//
// A nil error means that all was read; whether it was good is in the Report.
package verify
