package format

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// This file holds what SPEC.md §5 demands of the strings and numbers of a
// manifest by themselves. They go into option files, into files that scripts
// read, to the command line of a server and to terminals: what a writer of our
// own never says is refused before anything is made of it.

// isControl says whether r is a control character: of ASCII, DEL or C1.
func isControl(r rune) bool { return unicode.IsControl(r) }

// checkStrings refuses control characters in any string of v: a pointer to a
// struct, whatever is in it.
func checkStrings(v reflect.Value, name string) error {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			return checkStrings(v.Elem(), name)
		}
	case reflect.Slice:
		for i := range v.Len() {
			if err := checkStrings(v.Index(i), name); err != nil {
				return err
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if key, _, _ := strings.Cut(f.Tag.Get("json"), ","); f.IsExported() && key != "-" {
				if err := checkStrings(v.Field(i), key); err != nil {
					return err
				}
			}
		}
	case reflect.String:
		if strings.ContainsFunc(v.String(), isControl) {
			return fmt.Errorf("%s %q: control character in it", name, clip(v.String()))
		}
	}
	return nil
}

// Types of a backup.
const (
	// TypeFull is a backup that depends on no other.
	TypeFull = "full"
	// typeFullOld is what the first archives call it.
	typeFullOld = "full-backuped"
)

// checkHead checks everything but the files. It gives the type of a backup its
// name of today.
func checkHead(m *Manifest) error {
	if err := checkStrings(reflect.ValueOf(m), "manifest"); err != nil {
		return err
	}
	if m.Backup == nil {
		return nil
	}
	return checkBackup(m.Backup)
}

func checkBackup(b *Backup) error {
	switch b.Type {
	case typeFullOld, "":
		b.Type = TypeFull
	case TypeFull:
	default:
		return fmt.Errorf("%w: backup of type %q", ErrUnsupported, b.Type)
	}
	if f := b.Redo.Format; f != RedoMariaDB && f != RedoMySQL {
		return fmt.Errorf("%w: redo format %q", ErrUnsupported, f)
	}
	if d := b.Server.Dialect; (d == DialectMySQL) != (b.Redo.Format == RedoMySQL) {
		return fmt.Errorf("redo format %q of a server of the family %q", b.Redo.Format, clip(d))
	}
	if e := b.Redo.Encryption; e != "" {
		if raw, err := hex.DecodeString(e); err != nil || len(raw) != redoEncryptionSize {
			return fmt.Errorf("redo encryption %q: want %d bytes in hexadecimal", clip(e), redoEncryptionSize)
		}
	}
	for key, gtid := range map[string]string{"gtid": b.GTID, "gtid_slave_pos": b.GTIDReplicated} {
		if err := b.Server.checkGTID(gtid); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	if g := b.Galera; g != nil && !uuid.MatchString(g.StateUUID) {
		return fmt.Errorf("galera: state_uuid %q is no UUID", clip(g.StateUUID))
	}
	for _, r := range b.Replication {
		if r.Port < 0 || r.Port > 65535 {
			return fmt.Errorf("replication: port %d", r.Port)
		}
	}
	return b.Server.Check()
}

// redoEncryptionSize is the size of what an encrypted log's header says of the
// encryption.
const redoEncryptionSize = 28

// checksumAlgorithms are the values of innodb_checksum_algorithm, of all releases.
var checksumAlgorithms = []string{"", "crc32", "strict_crc32", "full_crc32", "strict_full_crc32", "innodb", "strict_innodb", "none", "strict_none"}

// The limits of a server's numbers, those of MariaDB and MySQL.
const (
	minPageSize, maxPageSize = 4 << 10, 64 << 10
	maxUndoTablespaces       = 127
	maxLogFileSize           = 1 << 49
	maxCompressionLevel      = 9
	maxLowerCase             = 2
)

// Check refuses values that no server has. They reach the command line of a
// server, and its option file. Values that are not given are fine.
func (s *Server) Check() error {
	switch p := s.PageSize; {
	case p != 0 && (p < minPageSize || p > maxPageSize || bits.OnesCount(uint(p)) != 1):
		return fmt.Errorf("innodb_page_size %d", p)
	case s.UndoTablespaces < 0 || s.UndoTablespaces > maxUndoTablespaces:
		return fmt.Errorf("innodb_undo_tablespaces %d", s.UndoTablespaces)
	case s.LogFileSize < 0 || s.LogFileSize > maxLogFileSize:
		return fmt.Errorf("innodb_log_file_size %d", s.LogFileSize)
	case s.CompressionLevel < 0 || s.CompressionLevel > maxCompressionLevel:
		return fmt.Errorf("innodb_compression_level %d", s.CompressionLevel)
	case s.LowerCaseTableNames < 0 || s.LowerCaseTableNames > maxLowerCase:
		return fmt.Errorf("lower_case_table_names %d", s.LowerCaseTableNames)
	case !slices.Contains(checksumAlgorithms, s.ChecksumAlgorithm):
		return fmt.Errorf("innodb_checksum_algorithm %q", clip(s.ChecksumAlgorithm))
	}
	_, err := s.SystemFiles()
	return err
}

// The grammars of what people paste into statements.
var (
	// MariaDB: domain-server-sequence, with commas between.
	gtidMariaDB = regexp.MustCompile(`^[0-9]{1,10}-[0-9]{1,10}-[0-9]{1,20}(,[0-9]{1,10}-[0-9]{1,10}-[0-9]{1,20})*$`)
	// MySQL: UUID, perhaps tags, intervals, with commas between.
	gtidMySQL = regexp.MustCompile(`^[0-9a-fA-F-]{36}(:[0-9a-z_-]{1,64})+(,[0-9a-fA-F-]{36}(:[0-9a-z_-]{1,64})+)*$`)
	uuid      = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
)

func (s *Server) checkGTID(gtid string) error {
	grammar := gtidMariaDB
	if s.Dialect == DialectMySQL {
		grammar = gtidMySQL
	}
	if gtid != "" && !grammar.MatchString(gtid) {
		return fmt.Errorf("%q is no GTID position", clip(gtid))
	}
	return nil
}

// visible replaces control characters by what they are written as in a string of
// Go or C.
func visible(s string) string {
	if !strings.ContainsFunc(s, isControl) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if isControl(r) {
			b.WriteString(strings.Trim(fmt.Sprintf("%q", r), "'"))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// readable returns m with visible control characters in the strings that are
// for people: what a user typed, or a server says of itself, must not make a
// backup fail.
func readable(m Manifest) Manifest {
	m.Tool, m.Command = visible(m.Tool), visible(m.Command)
	if m.Backup == nil {
		return m
	}
	b := *m.Backup
	b.Server.Comment, b.Redo.Creator = visible(b.Server.Comment), visible(b.Redo.Creator)
	if b.Filter != nil {
		f := *b.Filter
		for _, s := range []*string{&f.Databases, &f.DatabasesExclude, &f.DatabasesFile, &f.Tables, &f.TablesExclude, &f.TablesFile} {
			*s = visible(*s)
		}
		b.Filter = &f
	}
	m.Backup = &b
	return m
}

// stagingPrefix begins the name of a directory that an extraction has not
// finished yet.
const stagingPrefix = ".xbstream-partial-"

// ManifestName is the name of the manifest in a restored directory (SPEC.md §5.3).
const ManifestName = "xbstream_manifest.json"

// ownNames are those that a reader gives to files of its own.
var ownNames = []string{
	"ib_logfile0", ManifestName, "backup-my.cnf", "xtrabackup_checkpoints", "xtrabackup_info",
	"xtrabackup_binlog_info", "xtrabackup_slave_info", "xtrabackup_galera_info",
}

// CheckName refuses a final path that a reader uses itself (SPEC.md §5.3): in any
// archive, or in a stream of another format, that of a staging directory; in an
// archive also those of the files that a reader makes.
func CheckName(p string, foreign bool) error {
	if strings.HasPrefix(p, stagingPrefix) || !foreign && slices.Contains(ownNames, p) {
		return fmt.Errorf("file %q has a name that extraction itself uses", clip(p))
	}
	return nil
}

// errLink is the reason why link files are refused.
var errLink = errors.New("a backup has no link files: a server, and recovery, would write to whatever they name")
