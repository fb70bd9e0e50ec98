//go:build !unix

package extract

import "errors"

func (t *target) own(owner *Owner) error {
	if owner != nil {
		return errors.New("owners cannot be set on this system")
	}
	return nil
}
