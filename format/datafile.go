package format

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
)

// DataFile is one file of innodb_data_file_path.
type DataFile struct {
	// Path is the name as it is written, relative or absolute.
	Path string
	// Size is what is asked for, in bytes. The server counts whole MiB.
	Size int64
	// Autoextend says that the server makes the file larger when it is full. Only
	// the last file can be so, and be larger than Size.
	Autoextend bool
	// Max is the limit of an autoextend file in bytes, 0 for none.
	Max int64
	// Autoshrink says that the server makes the file smaller when it starts
	// (MariaDB 11.2).
	Autoshrink bool
}

// maxDataFiles bounds the files of a system tablespace.
const maxDataFiles = 1000

// ParseDataFiles reads innodb_data_file_path, as the server does:
// NAME:SIZE, with semicolons between, and :autoextend, then :max:SIZE or
// :autoshrink behind the last one (InnoDB fsp0sysspace.cc,
// SysTablespace::parse_params). It refuses raw devices, which no backup holds.
func ParseDataFiles(spec string) ([]DataFile, error) {
	var files []DataFile
	parts := strings.Split(strings.TrimRight(spec, ";"), ";")
	if len(parts) > maxDataFiles {
		return nil, fmt.Errorf("innodb_data_file_path: more than %d files", maxDataFiles)
	}
	for i, part := range parts {
		f, err := parseDataFile(part)
		if err == nil && f.Autoextend && i < len(parts)-1 {
			err = errors.New("only the last file can be autoextend")
		}
		if err != nil {
			return nil, fmt.Errorf("innodb_data_file_path %q: %w", clip(spec), err)
		}
		files = append(files, f)
	}
	return files, nil
}

func parseDataFile(part string) (f DataFile, err error) {
	words := strings.Split(part, ":")
	if len(words) < 2 || words[0] == "" {
		return f, fmt.Errorf("%q is not NAME:SIZE", part)
	}
	f.Path = words[0]
	if strings.ContainsFunc(f.Path, isControl) || strings.Contains(f.Path, `\`) {
		return f, fmt.Errorf("control character or backslash in the name %q", f.Path)
	}
	if base := path.Base(f.Path); base == "/" || base == "." || base == ".." {
		return f, fmt.Errorf("%q is not the name of a file", f.Path)
	}
	if f.Size, err = parseSize(words[1]); err != nil {
		return f, err
	}
	for rest := words[2:]; len(rest) > 0; {
		switch {
		case rest[0] == "autoextend" && !f.Autoextend:
			f.Autoextend, rest = true, rest[1:]
		case rest[0] == "max" && len(rest) > 1 && f.Autoextend && f.Max == 0:
			if f.Max, err = parseSize(rest[1]); err != nil {
				return f, err
			}
			rest = rest[2:]
		case rest[0] == "autoshrink" && f.Autoextend && !f.Autoshrink:
			f.Autoshrink, rest = true, rest[1:]
		default:
			return f, fmt.Errorf("unknown attribute %q", rest[0])
		}
	}
	return f, nil
}

// parseSize reads a number of bytes, with K, M or G behind it perhaps.
func parseSize(s string) (int64, error) {
	shift, digits := 0, s
	if s != "" {
		if i := strings.IndexByte("KMG", s[len(s)-1]&^0x20); i >= 0 {
			shift, digits = 10*(i+1), s[:len(s)-1]
		}
	}
	switch {
	case strings.Contains(digits, "raw"):
		return 0, errors.New("raw devices are not supported")
	case strings.Trim(digits, "0123456789") != "":
		return 0, fmt.Errorf("%q is not a size", s)
	}
	n, err := strconv.ParseUint(digits, 10, 62-shift)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a size", s)
	}
	return int64(n) << shift, nil
}

// FormatDataFiles is the innodb_data_file_path of a directory that has all these
// files side by side.
func FormatDataFiles(files []DataFile) string {
	var parts []string
	for _, f := range files {
		part := path.Base(f.Path) + ":" + sizeText(f.Size)
		if f.Autoextend {
			part += ":autoextend"
		}
		if f.Max > 0 {
			part += ":max:" + sizeText(f.Max)
		}
		if f.Autoshrink {
			part += ":autoshrink"
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ";")
}

func sizeText(n int64) string {
	if n%(1<<20) == 0 {
		return strconv.FormatInt(n>>20, 10) + "M"
	}
	return strconv.FormatInt(n, 10)
}

// SystemFiles returns the files of the system tablespace that the server's
// innodb_data_file_path names, in order, or those of its default when it is not
// given. In a manifest they are names without a directory: all lie at the top of
// the restored directory.
func (s *Server) SystemFiles() ([]DataFile, error) {
	if s.DataFilePath == "" {
		return ParseDataFiles(defaultDataFiles)
	}
	files, err := ParseDataFiles(s.DataFilePath)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, f := range files {
		if err := CheckPath(f.Path); err != nil || strings.Contains(f.Path, "/") || seen[f.Path] {
			return nil, fmt.Errorf("innodb_data_file_path %q: %q is not the name of a file of its own in the restored directory", clip(s.DataFilePath), f.Path)
		}
		seen[f.Path] = true
	}
	return files, nil
}

// defaultDataFiles is the server's default.
const defaultDataFiles = "ibdata1:12M:autoextend"
