package backup

import (
	"path/filepath"
	"strings"

	"github.com/xbstream/xbstream/chunker"
	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/server"
)

// Paths are directories of a server as this process sees them, each empty where
// the server's own name of it holds: in a container or behind a mount it may not.
type Paths struct{ DataDir, DataHome, UndoDir, LogDir, AriaLogDir string }

// override puts the paths of the command line in the place of the server's.
func (p Paths) override(l *server.Layout) {
	set := func(dst *string, v string) {
		if v != "" {
			*dst = v
		}
	}
	old := l.DataDir
	set(&l.DataDir, p.DataDir)
	for _, dir := range []*string{&l.InnoDB.DataHome, &l.InnoDB.UndoDir, &l.InnoDB.LogDir, &l.AriaLogDir} {
		*dir = moved(*dir, old, l.DataDir)
	}
	for i := range l.InnoDB.DataFiles {
		f := &l.InnoDB.DataFiles[i].Path
		*f = moved(*f, old, l.DataDir)
		if p.DataHome != "" {
			*f = filepath.Join(p.DataHome, filepath.Base(*f))
		}
	}
	set(&l.InnoDB.DataHome, p.DataHome)
	set(&l.InnoDB.UndoDir, p.UndoDir)
	set(&l.InnoDB.LogDir, p.LogDir)
	set(&l.AriaLogDir, p.AriaLogDir)
}

// moved is path after the directory old was found at new.
func moved(path, old, new string) string {
	if !within(path, old) {
		return path
	}
	return filepath.Join(new, strings.TrimPrefix(path, old))
}

// roots is the server's layout in the chunker's words.
func roots(l *server.Layout) chunker.Layout {
	c := chunker.Layout{
		DataDir:    l.DataDir,
		DataHome:   l.InnoDB.DataHome,
		UndoDir:    l.InnoDB.UndoDir,
		LogDir:     l.InnoDB.LogDir,
		AriaLogDir: l.AriaLogDir,
		PageSize:   l.InnoDB.PageSize,
	}
	for _, f := range l.InnoDB.DataFiles {
		c.DataFiles = append(c.DataFiles, chunker.DataFile{Name: f.Path, Size: f.Size, Autoextend: f.Autoextend})
	}
	exclude := append([]string{l.PidFile, l.Socket, l.LogError, l.GeneralLog, l.SlowLog, l.BinlogIndex}, l.TmpDirs...)
	for _, f := range l.InnoDB.TempFiles {
		exclude = append(exclude, f.Path)
	}
	for _, base := range []string{l.BinlogBase, l.RelayBase} {
		if base != "" {
			c.ExcludeBases = append(c.ExcludeBases, base)
		}
	}
	for _, p := range exclude {
		// A temporary directory is left out where it lies among the data,
		// not where the data lie below it.
		if p != "" && !within(l.DataDir, p) {
			c.ExcludePaths = append(c.ExcludePaths, p)
		}
	}
	return c
}

// restorable refuses what cannot lie in one directory, as all files will after
// they are restored.
func restorable(l *server.Layout) error {
	names := map[string]string{}
	for _, f := range l.InnoDB.DataFiles {
		name := filepath.Base(f.Path)
		if other, ok := names[name]; ok {
			return server.Unsupported("innodb_data_file_path: two files are called %s, %s and %s, and could not be restored side by side", name, other, f.Path)
		}
		names[name] = f.Path
	}
	return nil
}

// within says whether path is dir or below it.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// describe is the server in the manifest's words.
func describe(l *server.Layout) format.Server {
	return format.Server{
		Dialect:             l.Dialect,
		Version:             l.Version,
		Comment:             l.Comment,
		PageSize:            l.InnoDB.PageSize,
		DataFilePath:        restoredDataFiles(l),
		ChecksumAlgorithm:   l.InnoDB.ChecksumAlgorithm,
		LogFileSize:         l.InnoDB.LogFileSize,
		CompressionLevel:    l.InnoDB.CompressionLevel,
		LowerCaseTableNames: l.LowerCaseTableNames,
		ServerUUID:          l.ServerUUID,
		ServerID:            l.ServerID,
	}
}

// restoredDataFiles is innodb_data_file_path for the restored directory, where
// all files of the system tablespace lie side by side. The layout was parsed from
// the same value.
func restoredDataFiles(l *server.Layout) string {
	files, err := format.ParseDataFiles(l.InnoDB.DataFilePath)
	if err != nil {
		return l.InnoDB.DataFilePath
	}
	return format.FormatDataFiles(files)
}
