package redotail

import "github.com/xbstream/xbstream/format"

// lag watches how much redo the server has written that was not read yet. When
// that is as much as the log holds, redo is lost.
type lag struct {
	looked bool
	// start is how much it was at the first look. It is no sign of danger: a
	// tail begins at a checkpoint, which may be most of the log back.
	start  int64
	warned bool
}

// news is what a look at the lag has to say.
type news int

const (
	nothingNew news = iota
	fallsBehind
	inTimeAgain
)

// look says when half of the log is unread, and then, once, when less than a
// quarter is.
func (l *lag) look(unread, capacity int64) news {
	if !l.looked {
		l.looked, l.start = true, unread
	}
	switch {
	case unread < capacity/4:
		was := l.warned
		l.start, l.warned = 0, false
		if was {
			return inTimeAgain
		}
	case unread > max(capacity/2, l.start) && !l.warned:
		l.warned = true
		return fallsBehind
	}
	return nothingNew
}

// tellOfLag warns, while there is time, that redo may be lost: the server has
// written its log up to the LSN.
func (t *Tailer) tellOfLag(written format.LSN) {
	t.mu.Lock()
	if t.stopAt != 0 {
		written = min(written, t.stopAt) // nobody wants the rest
	}
	at, capacity := t.position, t.capacity
	unread := int64(max(written, at) - at)
	news := t.lag.look(unread, capacity)
	t.mu.Unlock() // to write a message may take long
	switch news {
	case fallsBehind:
		t.opt.Log.Warn("the redo log is read too slowly: the server may soon overwrite what was not copied; "+
			"a larger innodb_log_file_size gives more time, or let the disk of the log have less other work",
			"unread_bytes", unread, "log_bytes", capacity, "lsn", at)
	case inTimeAgain:
		t.opt.Log.Info("the redo log is read in time again", "unread_bytes", unread, "lsn", at)
	}
}
