package spaces

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/backupdir"
	"github.com/xbstream/xbstream/internal/innodb"
)

// firstPage is what page 0 of a file says.
type firstPage struct {
	size    int64
	written bool
	id      format.SpaceID
	pages   innodb.PageFormat
}

// readFirstPage looks at page 0 of a file. A page that is zero or not whole is
// not an error: the file was made while it was copied.
func (tr *Tree) readFirstPage(rel string) (p firstPage, err error) {
	f, err := os.Open(tr.Path(rel))
	if err != nil {
		return p, missing(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return p, err
	}
	p.size = st.Size()
	page := make([]byte, tr.PageSize)
	n, err := f.ReadAt(page, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return p, err
	}
	if page = page[:n]; n < innodb.HeaderSize || innodb.IsZero(page[:innodb.HeaderSize]) {
		return p, nil
	}
	p.id = innodb.FSPSpaceID(page)
	if p.pages, err = tr.ParseFlags(innodb.Flags(page)); err != nil {
		return p, fmt.Errorf("%s: %w: %w", rel, err, backupdir.ErrDamaged)
	}
	if n < p.pages.Physical {
		return p, nil
	}
	p.written = true
	page = page[:p.pages.Physical]
	if err := p.pages.Verify(page, 0); err != nil {
		return p, fmt.Errorf("%s: %w: %w", rel, err, backupdir.ErrDamaged)
	}
	if p.pages.SaysEncrypted(page) {
		return p, fmt.Errorf("%s (space %v): %w", rel, p.id, backupdir.ErrEncrypted)
	}
	if p.pages.Logical != tr.PageSize {
		return p, fmt.Errorf("%s (space %v): page size %d in an instance of %d: %w", rel, p.id, p.pages.Logical, tr.PageSize, backupdir.ErrDamaged)
	}
	return p, nil
}

// readFirstPages does it for many files at once, in no order.
func (tr *Tree) readFirstPages(parallel int, files []string, found func(rel string, p firstPage) error) error {
	type answer struct {
		rel string
		p   firstPage
	}
	answers := make(chan answer, parallel)
	var g errgroup.Group
	g.SetLimit(parallel)
	failed := make(chan error, 1)
	go func() {
		defer close(answers)
		for _, rel := range files {
			g.Go(func() error {
				p, err := tr.readFirstPage(rel)
				if err == nil {
					answers <- answer{rel, p}
				}
				return err
			})
		}
		failed <- g.Wait()
	}()
	var err error
	for a := range answers {
		if err == nil {
			err = found(a.rel, a.p)
		}
	}
	return errors.Join(<-failed, err)
}

// SpaceID returns the id that page 0 of a file says, encrypted or not, 0 if it was
// never written.
func (tr *Tree) SpaceID(rel string) (format.SpaceID, error) {
	f, err := os.Open(tr.Path(rel))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var head [innodb.HeaderSize]byte
	if _, err := f.ReadAt(head[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	return innodb.FSPSpaceID(head[:]), nil
}

// Age is innodb.ReadAge of a file.
func (tr *Tree) Age(rel string, floor format.LSN) (innodb.Age, error) {
	f, err := os.Open(tr.Path(rel))
	if err != nil {
		return innodb.Age{}, err
	}
	defer f.Close()
	a, err := innodb.ReadAge(f, tr.ParseFlags, floor)
	if err != nil {
		err = fmt.Errorf("%s: %w", rel, err)
	}
	return a, err
}
