package backup

import (
	"context"
	"slices"

	"github.com/xbstream/xbstream/chunker"
	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/server"
)

// This file refuses what nothing recovers in another place: encryption needs a
// server, and that would look for a table with a DATA DIRECTORY where it is here.

// recoverable looks at what lies on disk, before a byte is sent.
func (b *run) recoverable(ctx context.Context) error {
	files, err := b.discoverer().InnoDB(ctx)
	if err != nil {
		return err
	}
	files, _ = divide(files)
	return b.refuseBoth(files, func() (*chunker.File, error) { return chunker.FirstEncrypted(files, b.source.ParseFlags) })
}

// stillRecoverable looks at what was sent: the two may have met meanwhile. The end
// LSN is known, so that nothing more can come.
func (p *phases) stillRecoverable(ctx context.Context) error {
	p.settled = slices.DeleteFunc(slices.Concat(p.plan.Keep, p.late), func(r chunker.Result) bool { return r.Gone || r.Entry.Space == nil })
	files := make([]chunker.File, len(p.settled))
	for i, r := range p.settled {
		files[i] = r.File
	}
	return p.refuseBoth(files, func() (*chunker.File, error) { return p.firstEncrypted(ctx, p.settled) })
}

// firstEncrypted returns the first that cannot be recovered without a server, nil
// if there is none. One whose pages were encrypted after they were sent is none:
// the redo has them as they were. One without page 0 only the server knows.
func (p *phases) firstEncrypted(ctx context.Context, sent []chunker.Result) (*chunker.File, error) {
	var encrypted map[string]bool
	if slices.ContainsFunc(sent, func(r chunker.Result) bool { return r.Entry.Space.Rebuild }) {
		var err error
		if encrypted, err = p.source.EncryptedFiles(ctx); err != nil {
			return nil, err
		}
	}
	for i := range sent {
		r := &sent[i]
		if r.Encrypted || r.Entry.Space.Rebuild && (encrypted[r.Entry.Path] || encrypted[r.Entry.Source]) {
			return &r.File, nil
		}
	}
	return nil, nil
}

// refuseBoth refuses a table with a DATA DIRECTORY together with encryption, of
// which it asks only if there is one.
func (b *run) refuseBoth(files []chunker.File, firstEncrypted func() (*chunker.File, error)) error {
	far := slices.IndexFunc(files, func(f chunker.File) bool { return f.Kind == format.KindTablespace && f.Source != "" })
	if far < 0 {
		return nil
	}
	what := "the redo log"
	if !b.layout.InnoDB.EncryptLog {
		f, err := firstEncrypted()
		if f == nil || err != nil {
			return err
		}
		what = f.Table
	}
	return server.Unsupported("%s has a DATA DIRECTORY (%s), and %s is encrypted: only a server could recover the backup, and it would look for the table there",
		files[far].Table, files[far].Source, what)
}
