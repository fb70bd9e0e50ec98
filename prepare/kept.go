package prepare

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/xbstream/xbstream/internal/innodb/redolog"
)

// kept are the records that must be in the log that is left, by their key.
type kept struct {
	records map[uint64]keptRecord
	size    int
	seen    int
}

type keptRecord struct {
	seq    int // in the order of the log
	rank   redolog.Rank
	record []byte
}

// maxKept bounds the memory that records take, in bytes: some millions of tables.
const (
	maxKept      = 256 << 20
	keptOverhead = 64
)

// keep takes note of a run that is to be kept.
func (g *gatherer) keep(run []byte) error {
	if g.surveyed {
		return nil
	}
	key, rank, record, err := g.dialect.Keep(run)
	if err != nil {
		return err
	}
	k := &g.kept
	if k.records == nil {
		k.records = map[uint64]keptRecord{}
	}
	old, ok := k.records[key]
	if ok && slices.Compare(rank[:], old.rank[:]) < 0 {
		return nil
	}
	if k.size += len(record) - len(old.record); !ok {
		k.size += keptOverhead
	}
	if k.size > maxKept {
		return fmt.Errorf("AUTO_INCREMENT counters and marks of damaged indexes in the redo take more than %d bytes", maxKept)
	}
	k.seen++
	k.records[key] = keptRecord{seq: k.seen, rank: rank, record: bytes.Clone(record)}
	return nil
}

// list returns the records in the order of the log.
func (k *kept) list() [][]byte {
	all := slices.SortedFunc(maps.Values(k.records), func(a, b keptRecord) int { return cmp.Compare(a.seq, b.seq) })
	out := make([][]byte, len(all))
	for i, r := range all {
		out[i] = r.record
	}
	return out
}
