package extract

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// foreign does for an archive of another format what a manifest of our own
// would have told: find the system tablespace, which is published last.
func (a *assembly) foreign() error {
	if a.t.opt.Only != nil && a.files == 0 {
		return fmt.Errorf("%w: no file of the archive was asked for", ErrNothing)
	}
	name, err := a.t.systemTablespace()
	if err != nil {
		return fmt.Errorf("%s: %w", configName, err)
	}
	a.system = name
	return nil
}

// systemTablespace is the name of the first file of the system tablespace:
// innodb_data_file_path of the backup's option file, or the server's default.
// Of a path there is only the last element: mariabackup copies the file to the
// top of its target.
func (t *target) systemTablespace() (string, error) {
	const byDefault = "ibdata1"
	f, err := t.stage.Open(treeDir + "/" + configName)
	if errors.Is(err, fs.ErrNotExist) {
		return byDefault, nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), "=")
		if strings.TrimSpace(key) != "innodb_data_file_path" {
			continue
		}
		if name, _, _ := strings.Cut(strings.TrimSpace(value), ":"); name != "" {
			return path.Base(name), nil
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) { // no option file, whatever its name
		return byDefault, nil
	}
	return byDefault, lines.Err()
}
