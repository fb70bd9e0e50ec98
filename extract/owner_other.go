//go:build !unix

package extract

import "fmt"

func (t *target) chooseOwner() error {
	if t.opt.Owner != nil {
		return fmt.Errorf("%w: owners cannot be set on this system (--chown)", ErrTarget)
	}
	return nil
}

func (t *target) own() error { return nil }
