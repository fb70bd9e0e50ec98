package server

import (
	"path/filepath"
	"strconv"
	"time"

	"github.com/xbstream/xbstream/format"
)

// Layout is where a server keeps what, and how, by its own variables. Paths are
// absolute and clean; an empty one is not used by the server. They are paths on
// the server's host, as the server's process sees them.
type Layout struct {
	Dialect string // the Dialect's name
	Identity
	// Hostname, Port and Socket are where the server says it is.
	Hostname string
	Port     int
	Socket   string
	ServerID uint32
	// ServerUUID is the server's identity: server_uid or server_uuid.
	ServerUUID string
	// Started is when the server process began, to the second.
	Started time.Time

	DataDir             string
	LowerCaseTableNames int
	TmpDirs             []string
	PidFile             string
	LogError            string // empty: standard error
	GeneralLog          string
	SlowLog             string

	InnoDB InnoDB
	// AriaLogDir is empty in a family without Aria.
	AriaLogDir string
	// MyISAMMmap says that MyISAM writes through a mapping.
	MyISAMMmap bool

	// BinlogOn says that the binary log is on; BinlogBase is its path without
	// number, BinlogIndex the list of its files.
	BinlogOn    bool
	BinlogBase  string
	BinlogIndex string
	// BinlogEngine is the engine that keeps the binary log, empty for files of
	// its own.
	BinlogEngine string
	// RelayBase is the relay log's path without number, also of a server that
	// has none yet. Named connections put a dash and their name behind it.
	RelayBase string

	// Variables holds all global variables by name, for what has no field.
	Variables map[string]string
}

// InnoDB is the part of a Layout that recovery needs.
type InnoDB struct {
	// DataHome is the directory of relative data files.
	DataHome string
	// DataFilePath is innodb_data_file_path as written; DataFiles is what it
	// says.
	DataFilePath string
	DataFiles    []DataFile
	// TempFiles is innodb_temp_data_file_path, never copied.
	TempFiles []DataFile

	UndoDir         string
	UndoTablespaces int
	LogDir          string
	// LogFileSize and PageSize are in bytes.
	LogFileSize       int64
	PageSize          int
	ChecksumAlgorithm string
	CompressionLevel  int
	// FlushLogAtTrxCommit and FlushLogTimeout say how long redo may stay in
	// the server's memory: with 0 up to the timeout, otherwise until the next
	// commit or FlushLogs.
	FlushLogAtTrxCommit int
	FlushLogTimeout     time.Duration
	EncryptLog          bool
	// HiddenImports says that page 0 does not show whether IMPORT TABLESPACE wrote a
	// file, and that whatever is away when a backup begins was discarded.
	HiddenImports bool
	// OneFileEach says that the server does not start on a directory in which two
	// files bear the id of one tablespace.
	OneFileEach bool
	// ReadOnly says that InnoDB writes nothing, not even redo.
	ReadOnly bool
	// LogArchive says that the log is kept in the form of MariaDB 13.0's
	// innodb_log_archive.
	LogArchive bool
}

// DataFile is one file of a system or temporary tablespace.
type DataFile struct {
	// Path is absolute and clean.
	Path string
	// Size is the size asked for in bytes; an autoextend file may be larger.
	Size       int64
	Autoextend bool
	// Max is the limit of an autoextend file in bytes, 0 for none.
	Max int64
}

// ParseDataFiles reads innodb_data_file_path or innodb_temp_data_file_path.
// Relative names are below home. Raw devices, and what is no such value, are
// ErrUnsupported.
func ParseDataFiles(spec, home string) ([]DataFile, error) {
	parsed, err := format.ParseDataFiles(spec)
	if err != nil {
		return nil, &Error{Kind: ErrUnsupported, Op: "read the server's data files", Err: err}
	}
	var files []DataFile
	for _, f := range parsed {
		files = append(files, DataFile{Path: below(home, f.Path), Size: f.Size, Autoextend: f.Autoextend, Max: f.Max})
	}
	return files, nil
}

// below joins a path of a variable to the directory it is relative to.
func below(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

// Variables reads global variables into a Layout's types. The first value that
// cannot be read is kept in Err.
type Variables struct {
	Values map[string]string
	// Dir is the directory relative paths are below.
	Dir string
	Err error
}

// Text returns a variable, empty where the server does not have it.
func (v *Variables) Text(name string) string { return v.Values[name] }

// Path returns a path made absolute, empty where the variable is.
func (v *Variables) Path(name string) string {
	if v.Values[name] == "" {
		return ""
	}
	return below(v.Dir, v.Values[name])
}

// PathOrDir is Path with the data directory in place of an empty one.
func (v *Variables) PathOrDir(name string) string {
	if p := v.Path(name); p != "" {
		return p
	}
	return filepath.Clean(v.Dir)
}

// Int returns a number, 0 where the server does not have the variable.
func (v *Variables) Int(name string) int64 {
	text, ok := v.Values[name]
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil && v.Err == nil {
		v.Err = Unsupported("read the server's variable %s: %q is not a number", name, text)
	}
	return n
}

// On returns a switch, off where the server does not have the variable.
func (v *Variables) On(name string) bool {
	switch v.Values[name] {
	case "ON", "1", "YES":
		return true
	}
	return false
}
