package source

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/server"
)

// This file finds the file position that belongs to what a replica has committed.
//
// The server notes it after the commit. With parallel appliers that can be long
// after: one that waits for its predecessor's commit gives up MDL_BACKUP_COMMIT
// meanwhile, the predecessor commits for the whole group, and then it waits for the
// backup lock before it notes anything (10.11.19: copies that stopped with error
// 1032). The table mysql.gtid_slave_pos is part of the transactions, also for a
// connection that goes by file and position, and the relay log says where in the
// source's binary log each GTID ends.

// A gtid is one global transaction id.
type gtid struct{ domain, server, seq uint64 }

var gtidText = regexp.MustCompile(`GTID (\d+)-(\d+)-(\d+)`)

// committedGTIDs are the newest of each domain and server.
type committedGTIDs map[[2]uint64]uint64

// committedIn reads rows of mysql.gtid_slave_pos.
func committedIn(table []map[string]string) (committedGTIDs, error) {
	c := committedGTIDs{}
	for _, row := range table {
		g, err := parseGTID(row["domain_id"], row["server_id"], row["seq_no"])
		if err != nil {
			return nil, server.Unsupported("mysql.gtid_slave_pos: %w", err)
		}
		k := [2]uint64{g.domain, g.server}
		c[k] = max(c[k], g.seq)
	}
	return c, nil
}

func (c committedGTIDs) has(g gtid) bool {
	seq, known := c[[2]uint64{g.domain, g.server}]
	return known && g.seq <= seq
}

func parseGTID(domain, srv, seq string) (g gtid, err error) {
	for _, part := range []struct {
		to   *uint64
		text string
	}{{&g.domain, domain}, {&g.server, srv}, {&g.seq, seq}} {
		if *part.to, err = strconv.ParseUint(part.text, 10, 64); err != nil {
			return g, fmt.Errorf("%q is no part of a GTID", part.text)
		}
	}
	return g, nil
}

// relayGroup is a transaction in the relay log.
type relayGroup struct {
	gtid
	// file and end are where it ends in the binary log of the source.
	file string
	end  uint64
}

// relayReader collects transactions from the rows of SHOW RELAYLOG EVENTS.
type relayReader struct {
	base   string // of the names of the relay logs
	file   string // of the source's binary log, at this place
	groups []relayGroup
}

// add reads one row. next is the relay log that follows, at the end of one.
func (r *relayReader) add(row map[string]string) (next string, err error) {
	switch kind := row["Event_type"]; kind {
	case "Rotate":
		name, _, _ := strings.Cut(row["Info"], ";")
		if relayBaseName(name) == r.base {
			return name, nil
		}
		r.file = name
	case "Gtid":
		m := gtidText.FindStringSubmatch(row["Info"])
		if m == nil {
			return "", server.Unsupported("the relay log has a GTID event %q", row["Info"])
		}
		g, err := parseGTID(m[1], m[2], m[3])
		if err != nil {
			return "", server.Unsupported("the relay log: %w", err)
		}
		r.groups = append(r.groups, relayGroup{gtid: g})
	case "Format_desc", "Gtid_list", "Binlog_checkpoint", "Start_encryption", "Stop":
	default:
		if len(r.groups) == 0 {
			return "", nil // the rest of a transaction that was executed
		}
		end, err := strconv.ParseUint(row["End_log_pos"], 10, 64)
		if err != nil {
			return "", server.Unsupported("the relay log: %q is no position", row["End_log_pos"])
		}
		g := &r.groups[len(r.groups)-1]
		g.file, g.end = r.file, max(g.end, end)
	}
	return "", nil
}

// relayBaseName is the name of a relay log without its number.
func relayBaseName(name string) string {
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		return name[:i]
	}
	return name
}

// last returns the last of the groups at the beginning that were committed; ok is
// false if none was. Groups of one domain are committed in order, so one before a
// committed one is committed, though a newer one has taken its row.
func (r *relayReader) last(committed committedGTIDs) (g relayGroup, ok bool) {
	newest := map[uint64]int{}
	for i, g := range r.groups {
		if committed.has(g.gtid) {
			newest[g.domain] = i
		}
	}
	for i, one := range r.groups {
		if at, any := newest[one.domain]; !any || i > at || one.file == "" {
			break
		}
		g, ok = one, true
	}
	return g, ok
}

// unknown is how many groups follow the last committed one.
func (r *relayReader) unknown(committed committedGTIDs) int {
	for i := len(r.groups) - 1; i >= 0; i-- {
		if committed.has(r.groups[i].gtid) {
			return len(r.groups) - 1 - i
		}
	}
	return len(r.groups)
}

const (
	// relayPage is how many events are asked for at once.
	relayPage = 1000
	// relayAhead is how many transactions that were not committed are looked at
	// in search of one that was: more than appliers commit ahead.
	relayAhead = 1000
	// relayMost bounds the events that are read under the lock.
	relayMost = 100 * relayPage
)

// executed moves the position of a source on over what was committed and not yet
// noted. row is of statusQuery.
func (b *backup) executed(ctx context.Context, s *format.ReplicationSource, row map[string]string, committed committedGTIDs) error {
	log, pos := row["Relay_Log_File"], row["Relay_Log_Pos"]
	if log == "" || s.File == "" {
		return nil // nothing was executed yet
	}
	r := relayReader{base: relayBaseName(log), file: s.File}
	if _, err := strconv.ParseUint(pos, 10, 64); err != nil {
		return server.Unsupported("replication status: %q is not a position", pos)
	}
	// Rows do not say where an event ends in the relay log: those that were read
	// are skipped by their number.
	for read, skip := 0, 0; read < relayMost && r.unknown(committed) < relayAhead; {
		rows, err := b.Query(ctx, "ask for the events of the relay log", fmt.Sprintf(
			"SHOW RELAYLOG %s EVENTS IN %s FROM %s LIMIT %d, %d", text(s.Connection), text(log), pos, skip, relayPage))
		if err != nil {
			return err
		}
		next := ""
		for _, event := range rows {
			if next, err = r.add(event); err != nil {
				return err
			}
			if next != "" {
				break
			}
		}
		read, skip = read+len(rows), skip+len(rows)
		if next != "" {
			log, pos, skip = next, "4", 0
		} else if len(rows) < relayPage {
			break // that is all that was received
		}
	}
	if g, ok := r.last(committed); ok {
		s.File, s.Position = g.file, g.end
	}
	return nil
}
