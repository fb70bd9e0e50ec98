package prepare

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/xbstream/xbstream/internal/backupdir"
	"github.com/xbstream/xbstream/internal/innodb/filename"
	"github.com/xbstream/xbstream/internal/spaces"
)

// Export writes, beside every tablespace of a table in a prepared dir, the .cfg
// file that ALTER TABLE … IMPORT TABLESPACE reads, as FLUSH TABLES … FOR EXPORT
// does, and returns the number of tables. For one that MySQL encrypts, there is a .cfp
// file besides, with its key.
//
// A tablespace that is imported elsewhere must hold nothing that was not
// committed, and nothing of it may be in the change buffer. To roll back and to
// merge takes a server: it is started on dir, with networking off, does so,
// writes the files, and is stopped. Errors wrap ErrServer where it is the
// server that failed.
func Export(ctx context.Context, dir, binary string, opt Options) (tables int, err error) {
	opt = opt.withDefaults()
	opt.ServerArgs = append(slices.Clone(exportArgs), opt.ServerArgs...)
	state, err := backupdir.Read(dir)
	if err != nil {
		return 0, err
	}
	if !state.Prepared() {
		return 0, fmt.Errorf("export %s: it is not prepared", dir)
	}
	if err := checkNotLinked(dir, state); err != nil {
		return 0, err
	}
	e := &export{tree: spaces.NewTree(dir, state.Server.PageSize), opt: opt}
	if err := withServer(ctx, dir, binary, state, opt, e.run); err != nil {
		e.abandon()
		return 0, err
	}
	if err := state.GiveToOwner(dir); err != nil {
		return 0, err
	}
	return len(e.tables()), e.finish()
}

// checkNotLinked refuses to export a directory of which some tables lie
// elsewhere: their files for the import would not be found.
func checkNotLinked(dir string, state *backupdir.State) error {
	tr := spaces.NewTree(dir, state.Server.PageSize)
	if err := tr.ReadLinks(state.Manifest); err != nil {
		return fmt.Errorf("export %s: %w", dir, err)
	}
	for rel, to := range tr.Links {
		return fmt.Errorf("export %s: %s is in %s; extract the backup again without mapping its tablespaces", dir, rel, to)
	}
	return nil
}

// exportArgs keep purge from using the change buffer again once it is merged.
var exportArgs = []string{"--loose-innodb-change-buffering=none"}

// export is one Export.
type export struct {
	tree *spaces.Tree
	opt  Options
	// spaces are the tablespaces to export, by path without ending.
	spaces []string
}

const (
	endConfig = ".cfg"
	endKey    = ".cfp"
	// pollTransactions is longer than the 0.1 s for which InnoDB answers from
	// memory what its transactions are, counted from the last question: asked
	// more often, it never looks again (trx0i_s.cc).
	pollTransactions = 250 * time.Millisecond
	// exportAtOnce is how many tables are locked together.
	exportAtOnce = 100
)

func (e *export) run(ctx context.Context, db *sql.DB) error {
	if err := e.settled(ctx, db); err != nil {
		return err
	}
	names, err := e.tree.Glob("*.ibd")
	if err != nil {
		return err
	}
	for _, rel := range names {
		if db, file := path.Split(rel); db != "" && db != "mysql/" && !strings.HasPrefix(strings.ToUpper(file), "FTS_") && !strings.HasPrefix(file, "#") {
			e.spaces = append(e.spaces, strings.TrimSuffix(rel, ".ibd"))
		}
	}
	all := e.tables()
	done, total := int64(0), e.bytes(all)
	for tables := range slices.Chunk(all, exportAtOnce) {
		if err := e.flush(ctx, db, tables); err != nil {
			return err
		}
		done += e.bytes(tables)
		e.opt.Progress("export tables", done, total)
	}
	return nil
}

// bytes is the size of the tablespaces of tables, which are sorted; for those who
// watch, so that one that cannot be read counts as empty.
func (e *export) bytes(tables []string) (n int64) {
	for _, s := range e.spaces {
		if _, wanted := slices.BinarySearch(tables, tableOf(s)); wanted {
			if st, err := os.Stat(e.tree.Path(s + ".ibd")); err == nil {
				n += st.Size()
			}
		}
	}
	return n
}

// settled waits until the server has rolled back what was not committed when
// the backup ended. What XA has prepared is neither the one nor the other.
func (e *export) settled(ctx context.Context, db *sql.DB) error {
	for {
		prepared, err := count(ctx, db, "XA RECOVER")
		if err != nil {
			return err
		}
		if prepared > 0 {
			return fmt.Errorf("export: %d XA transactions are prepared, neither committed nor rolled back: end them on a server started on the directory (XA RECOVER lists them)", prepared)
		}
		active, err := count(ctx, db, "SELECT 1 FROM information_schema.INNODB_TRX")
		if err != nil || active == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pollTransactions):
		}
	}
}

// count returns how many rows a statement gives.
func count(ctx context.Context, db *sql.DB, query string) (n int, err error) {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", query, err)
	}
	defer rows.Close()
	for rows.Next() {
		n++
	}
	return n, rows.Err()
}

// tables returns the tables that the tablespaces belong to: db/table, in the
// letters of file names.
func (e *export) tables() []string {
	var tables []string
	for _, s := range e.spaces {
		tables = append(tables, tableOf(s))
	}
	slices.Sort(tables)
	return slices.Compact(tables)
}

// tableOf is the table of a tablespace, which may be that of a partition.
func tableOf(space string) string {
	table, _ := filename.CutPartition(space)
	return table
}

// flush has the server write the files of some tables, and puts them aside: it
// removes them when it unlocks the tables.
func (e *export) flush(ctx context.Context, db *sql.DB, tables []string) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	names := make([]string, len(tables))
	for i, t := range tables {
		db, table := path.Split(t)
		names[i] = quote(filename.Decode(path.Clean(db))) + "." + quote(filename.Decode(table))
	}
	if _, err := conn.ExecContext(ctx, "FLUSH TABLES "+strings.Join(names, ", ")+" FOR EXPORT"); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	for _, s := range e.spaces {
		if _, ok := slices.BinarySearch(tables, tableOf(s)); !ok {
			continue
		}
		if err := e.keep(s); err != nil {
			return fmt.Errorf("export: %w", err)
		}
	}
	_, err = conn.ExecContext(ctx, "UNLOCK TABLES")
	return err
}

func quote(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

// keep copies the files the server wrote for a tablespace.
func (e *export) keep(space string) error {
	err := e.keepFile(space + endKey)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return e.keepFile(space + endConfig)
}

func (e *export) keepFile(rel string) error {
	from, err := os.Open(e.tree.Path(rel))
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(e.tree.Path(rel+backupdir.TempSuffix), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Sync(), to.Close())
}

// finish gives the files their names, once the server has ended.
func (e *export) finish() error {
	for _, s := range e.spaces {
		key, config := e.tree.Path(s+endKey), e.tree.Path(s+endConfig)
		if err := os.Rename(key+backupdir.TempSuffix, key); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Rename(config+backupdir.TempSuffix, config); err != nil {
			return err
		}
	}
	if e.opt.Staged {
		return nil
	}
	return e.sync()
}

// abandon removes what was put aside.
func (e *export) abandon() {
	for _, s := range e.spaces {
		for _, end := range []string{endConfig, endKey} {
			os.Remove(e.tree.Path(s + end + backupdir.TempSuffix)) // some are not there yet
		}
	}
}

// sync makes the names durable.
func (e *export) sync() error {
	var dirs []string
	for _, s := range e.spaces {
		dirs = append(dirs, path.Dir(s))
	}
	slices.Sort(dirs)
	for _, dir := range slices.Compact(dirs) {
		if err := backupdir.SyncDir(e.tree.Path(dir)); err != nil {
			return err
		}
	}
	return nil
}
