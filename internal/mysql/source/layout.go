package source

import (
	"context"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/xbstream/xbstream/server"
)

// Layout reads the server's variables.
func (m *mysql) Layout(ctx context.Context) (server.Layout, error) {
	vars, err := m.variables(ctx)
	if err != nil {
		return server.Layout{}, err
	}
	status, err := m.status(ctx, "Uptime")
	if err != nil {
		return server.Layout{}, err
	}
	l, err := layoutOf(vars)
	if err != nil {
		return server.Layout{}, err
	}
	up, err := strconv.ParseInt(status["Uptime"], 10, 64)
	if err != nil {
		return server.Layout{}, server.Unsupported("ask for the server's uptime: %q is not a number", status["Uptime"])
	}
	l.Identity, l.Started = m.s.Identity, time.Now().Add(-time.Duration(up)*time.Second).Truncate(time.Second)
	return l, nil
}

func layoutOf(vars map[string]string) (server.Layout, error) {
	dir := vars["datadir"]
	if !filepath.IsAbs(dir) {
		return server.Layout{}, server.Unsupported("the server's datadir %q is not an absolute path", dir)
	}
	// The server runs in its data directory: relative paths start there.
	v := &server.Variables{Values: vars, Dir: filepath.Clean(dir)}
	l := server.Layout{
		Dialect:    Dialect{}.Name(),
		Hostname:   v.Text("hostname"),
		Port:       int(v.Int("port")),
		Socket:     v.Path("socket"),
		ServerID:   uint32(v.Int("server_id")),
		ServerUUID: v.Text("server_uuid"),

		DataDir:             v.Dir,
		LowerCaseTableNames: int(v.Int("lower_case_table_names")),
		PidFile:             v.Path("pid_file"),
		LogError:            v.Path("log_error"),
		GeneralLog:          v.Path("general_log_file"),
		SlowLog:             v.Path("slow_query_log_file"),

		MyISAMMmap: v.On("myisam_use_mmap"),

		BinlogOn:    v.On("log_bin"),
		BinlogBase:  v.Path("log_bin_basename"),
		BinlogIndex: v.Path("log_bin_index"),
		RelayBase:   v.Path("relay_log_basename"),
		Variables:   vars,
	}
	if l.LogError == filepath.Join(v.Dir, "stderr") {
		l.LogError = "" // that is how the variable calls standard error
	}
	for _, t := range filepath.SplitList(v.Text("tmpdir")) {
		l.TmpDirs = append(l.TmpDirs, filepath.Clean(t))
	}
	var err error
	if l.InnoDB, err = innodbOf(v); err != nil {
		return server.Layout{}, err
	}
	return l, v.Err
}

func innodbOf(v *server.Variables) (server.InnoDB, error) {
	i := server.InnoDB{
		DataHome:     v.PathOrDir("innodb_data_home_dir"),
		DataFilePath: v.Text("innodb_data_file_path"),

		UndoDir:         v.PathOrDir("innodb_undo_directory"),
		UndoTablespaces: int(v.Int("innodb_undo_tablespaces")),
		// #innodb_redo is in it.
		LogDir:      v.PathOrDir("innodb_log_group_home_dir"),
		LogFileSize: v.Int("innodb_redo_log_capacity"),
		PageSize:    int(v.Int("innodb_page_size")),

		ChecksumAlgorithm:   v.Text("innodb_checksum_algorithm"),
		CompressionLevel:    int(v.Int("innodb_compression_level")),
		FlushLogAtTrxCommit: int(v.Int("innodb_flush_log_at_trx_commit")),
		FlushLogTimeout:     time.Duration(v.Int("innodb_flush_log_at_timeout")) * time.Second,
		EncryptLog:          v.On("innodb_redo_log_encrypt"),
		ReadOnly:            v.On("innodb_read_only"),
		HiddenImports:       true,
		OneFileEach:         true, // fil0fil.cc, Tablespace_dirs::scan
	}
	if i.DataFilePath == "" {
		return i, server.Unsupported("the server does not tell innodb_data_file_path; is InnoDB off?")
	}
	var err error
	if i.DataFiles, err = server.ParseDataFiles(i.DataFilePath, i.DataHome); err != nil {
		return i, err
	}
	if temp := v.Text("innodb_temp_data_file_path"); strings.Trim(temp, ";") != "" {
		i.TempFiles, err = server.ParseDataFiles(temp, i.DataHome)
	}
	return i, err
}
