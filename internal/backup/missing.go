package backup

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// This file makes sure that a partial backup has what was asked for: a name that
// was mistyped is no reason to copy something else.

// unmatched are names and expressions of a partial backup that match nothing.
type unmatched struct{ include, exclude []string }

func (u unmatched) String() string {
	var parts []string
	if len(u.include) > 0 {
		parts = append(parts, "to back up: "+strings.Join(u.include, ", "))
	}
	if len(u.exclude) > 0 {
		parts = append(parts, "to leave out: "+strings.Join(u.exclude, ", "))
	}
	return strings.Join(parts, "; ")
}

// NamesError says that names of a partial backup match nothing.
type NamesError struct {
	why   string
	names unmatched
}

func (e *NamesError) Error() string {
	return fmt.Sprintf("%s (%s): correct the names, or give --allow-missing", e.why, e.names)
}

func (u unmatched) any() bool { return len(u.include)+len(u.exclude) > 0 }

// findUnmatched looks at the databases and tables there are now.
func (b *run) findUnmatched(ctx context.Context) (unmatched, error) {
	include, exclude := b.Filter.Include.Tally(), b.Filter.Exclude.Tally()
	err := b.discoverer().Tally(ctx, include, exclude)
	return unmatched{include.Unmatched(), exclude.Unmatched()}, err
}

// checkNames refuses names that match nothing, before anything is copied.
func (b *run) checkNames(ctx context.Context) (err error) {
	if b.Filter == nil {
		return nil
	}
	b.unmatched, err = b.findUnmatched(ctx)
	switch {
	case err != nil || !b.unmatched.any():
		return err
	case !b.AllowMissing:
		return &NamesError{"no database or table has these names", b.unmatched}
	case b.planning:
		b.warnUnmatched()
	}
	return nil // there may be tables of these names when the backup ends
}

// recheckNames looks again when no DDL can change the names any more: a table may
// have been dropped or renamed since, and one that was missing may be there. For
// what was to be left out it is enough to have been there at some time.
func (p *phases) recheckNames(ctx context.Context) error {
	if p.Filter == nil {
		return nil
	}
	now, err := p.findUnmatched(ctx)
	if err != nil {
		return err
	}
	now.exclude = slices.DeleteFunc(now.exclude, func(name string) bool { return !slices.Contains(p.unmatched.exclude, name) })
	p.unmatched = now
	if now.any() && !p.AllowMissing {
		return &NamesError{"dropped or renamed during the backup, which does not hold them", now}
	}
	return nil
}

func (b *run) warnUnmatched() {
	if b.unmatched.any() {
		b.Log.Warn("no database or table has these names: " + b.unmatched.String())
	}
}
