package format

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"testing"

	"filippo.io/age"
)

// variant is a damaged archive, and what was done to it.
type variant struct {
	what string
	a    []byte
}

// damages calls try for everything that a small archive must survive being
// told apart from: cut at every byte, every bit flipped, frames dropped,
// doubled, swapped and exchanged for those of another archive, two archives in
// one, none at all.
func damages(t *testing.T, a, other []byte, try func(variant)) {
	cuts(a, try)
	flips(a, func(int) bool { return true }, try)
	shuffles(t, a, other, try)
}

func cuts(a []byte, try func(variant)) {
	for n := range a {
		try(variant{fmt.Sprintf("cut after %d of %d bytes", n, len(a)), a[:n]})
	}
}

func flips(a []byte, every func(i int) bool, try func(variant)) {
	for i := range a {
		for bit := range 8 {
			if bit != i%8 && !every(i) {
				continue
			}
			a[i] ^= 1 << bit
			try(variant{fmt.Sprintf("bit %d of byte %d flipped", bit, i), a})
			a[i] ^= 1 << bit
		}
	}
}

// shuffles moves whole frames, all of them sound.
func shuffles(t *testing.T, a, other []byte, try func(variant)) {
	at, otherAt := frameBounds(t, a), frameBounds(t, other)
	frame := func(i int) []byte { return a[at[i]:at[i+1]] }
	do := func(what string, i int, parts ...[]byte) {
		try(variant{fmt.Sprintf("frame %d %s", i, what), bytes.Join(parts, nil)})
	}
	last := len(at) - 2
	for i := range last + 1 {
		before, after := a[:at[i]], a[at[i+1]:]
		do("dropped", i, before, after)
		do("doubled", i, before, frame(i), frame(i), after)
		do("exchanged for that of another archive", i, before, other[otherAt[i]:otherAt[i+1]], after)
		do("preceded by that of another archive", i, before, other[otherAt[i]:otherAt[i+1]], frame(i), after)
		do("and all behind it from another archive", i, before, other[otherAt[i]:])
		for j := i + 1; j <= last; j++ {
			do(fmt.Sprintf("swapped with frame %d", j), i, before, frame(j), a[at[i+1]:at[j]], frame(i), a[at[j+1]:])
		}
	}
	try(variant{"two archives", append(bytes.Clone(a), other...)})
	try(variant{"twice", append(bytes.Clone(a), a...)})
	try(variant{"one byte more", append(bytes.Clone(a), 0)})
	try(variant{"one byte less in front", a[1:]})
}

// place is how a message says where: an offset, or a part that is there once.
var placeSaid = regexp.MustCompile(`frame \d+ at offset \d+|after \d+ bytes|archive header|archive (version|flags)|not an xbsend archive|empty|age encryption|manifest, line \d+`)

// P2: whatever happens to an archive on its way, reading it fails, as damage,
// and the message says where.
func TestDamageSweep(t *testing.T) {
	tried := 0
	var id *age.X25519Identity
	try := func(kind string, v variant) {
		tried++
		_, err := readSealed(bytes.NewReader(v.a), id)
		switch {
		case !errors.Is(err, ErrDamaged) && !(kind == "age" && errors.Is(err, ErrNoKey)):
			t.Errorf("%s: %s: error %v, want ErrDamaged", kind, v.what, err)
		case errors.Is(err, ErrDamaged) && !placeSaid.MatchString(err.Error()):
			t.Errorf("%s: %s: error %q does not say where", kind, v.what, err)
		}
	}
	id, err := age.GenerateX25519Identity()
	check(t, err)
	for _, opt := range bothWays {
		kind := "plain"
		if opt.Compress != Store {
			kind = "zstd"
		}
		before := tried
		damages(t, threeFiles(t, 1, opt), threeFiles(t, 2, opt), func(v variant) { try(kind, v) })
		t.Logf("%s: %d variants", kind, tried-before)
	}

	before := tried
	plain, other := threeFiles(t, 1, WriterOptions{}), threeFiles(t, 2, WriterOptions{})
	sealed := seal(t, plain, id.Recipient())
	header := len(sealed) - len(plain) - 16 // of age, with the nonce
	cuts(sealed, func(v variant) { try("age", v) })
	flips(sealed, func(i int) bool { return i < header }, func(v variant) { try("age", v) })
	try("age", variant{"two sealed archives", append(bytes.Clone(sealed), sealed...)})
	try("age", variant{"one byte more", append(bytes.Clone(sealed), 0)})
	// Damaged before it was sealed.
	shuffles(t, plain, other, func(v variant) {
		try("age", variant{v.what + ", then sealed", seal(t, v.a, id.Recipient())})
	})
	t.Logf("age: %d variants", tried-before)
	t.Logf("%d variants in all", tried)
}
