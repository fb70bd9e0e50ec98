package backup

import "github.com/xbstream/xbstream/format"

// warnImported names the tables for which preparing will refuse the backup: an
// encrypted redo log hides what a server must not be shown of an import. All pages
// were seen, and all of the redo, so that it is known now; but it may be wrong, and
// --nothing-imported overrules it there.
func (b *run) warnImported(end format.LSN) {
	imported := b.redo.Imported(end)
	if imported == nil {
		return
	}
	for _, r := range b.settled {
		if r.Entry.Kind != format.KindTablespace {
			continue
		}
		if at, may := imported(r.Entry.Space.ID, r.Entry.Path, r.Age); may {
			b.Log.Warn(r.File.Table+" may have been imported within the redo of this backup, which is encrypted: preparing will refuse it, or needs --nothing-imported; a backup after the server's next checkpoint will not", "discarded_at_lsn", at)
		}
	}
}
