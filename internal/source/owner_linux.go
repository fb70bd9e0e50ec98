package source

import (
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"
)

// owner is the user whose rights count behind a link.
type owner struct {
	uid    uint32
	groups map[uint32]bool
}

// ownerOf returns the owner of the data directory. A user that this machine does
// not know, as of a container, has the directory's group.
func ownerOf(st *unix.Stat_t) owner {
	o := owner{uid: st.Uid, groups: map[uint32]bool{}}
	u, err := user.LookupId(strconv.FormatUint(uint64(st.Uid), 10))
	if err != nil {
		o.groups[st.Gid] = true
		return o
	}
	ids, err := u.GroupIds()
	if err != nil {
		ids = []string{u.Gid}
	}
	for _, id := range ids {
		if n, err := strconv.ParseUint(id, 10, 32); err == nil {
			o.groups[uint32(n)] = true
		}
	}
	return o
}

// Permission bits, as for others.
const (
	mayRead = 0o4
	mayPass = 0o1
)

// may says whether the mode bits let the owner do all of want.
func (o owner) may(st *unix.Stat_t, want uint32) bool {
	bits := st.Mode
	switch {
	case o.uid == 0:
		return true
	case o.uid == st.Uid:
		bits >>= 6
	case o.groups[st.Gid]:
		bits >>= 3
	}
	return bits&want == want
}
