package source

import "testing"

// G3: what two looks at ddl.log say. A server busy with DDL may have made it longer
// than it was before it truncated it.
func TestChangeOfTheLog(t *testing.T) {
	old := sight{dev: 1, inode: 2, size: 10, mtime: 100, ctime: 100, head: "0123456789"}
	with := func(change func(*sight)) sight {
		s := old
		change(&s)
		return s
	}
	for _, c := range []struct {
		name     string
		old, now sight
		want     change
	}{
		{"the same", old, old, untouched},
		{"only read", old, with(func(s *sight) { s.ctime++ }), untouched},
		{"emptied", old, with(func(s *sight) { s.size, s.mtime, s.head = 0, 101, "" }), truncated},
		{"emptied, and it was empty", sight{dev: 1, inode: 2, mtime: 100}, sight{dev: 1, inode: 2, mtime: 101}, truncated},
		{"made", sight{}, old, truncated},
		{"another file", old, with(func(s *sight) { s.inode++ }), truncated},
		{"a line more", old, with(func(s *sight) { s.size, s.mtime, s.head = 15, 101, "0123456789abcde" }), appended},
		{"emptied, then longer than before", old, with(func(s *sight) { s.size, s.mtime, s.head = 15, 101, "abcde0123456789" }), truncated},
		{"emptied, then as long as before", old, with(func(s *sight) { s.mtime, s.head = 101, "abcdefghij" }), truncated},
		{"longer, and it was empty", sight{dev: 1, inode: 2, mtime: 100}, old, unclear},
		{"longer, and it cannot be read", with(func(s *sight) { s.head = "" }), with(func(s *sight) { s.size, s.head = 20, "" }), unclear},
	} {
		if got := c.now.since(c.old); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
