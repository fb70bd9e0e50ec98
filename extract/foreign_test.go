package extract

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSystemTablespaceOfForeignTree(t *testing.T) {
	for text, want := range map[string]string{
		"": "ibdata1",
		"[mysqld]\ninnodb_data_file_path=ibdata1:12M:autoextend\n":    "ibdata1",
		"[mysqld]\ninnodb_data_file_path = sys1:10M;sys2:1G\n":        "sys1",
		"[mysqld]\ninnodb_data_file_path=/disk/sys:10M\n":             "sys",
		"[mysqld]\n#innodb_data_file_path=other:10M\n":                "ibdata1",
		"[mysqld]\ninnodb_data_file_path=\n":                          "ibdata1",
		strings.Repeat("x", 1<<20) + "\ninnodb_data_file_path=a:1M\n": "ibdata1",
	} {
		dir := t.TempDir()
		check(t, os.Mkdir(filepath.Join(dir, treeDir), 0o700))
		check(t, os.WriteFile(filepath.Join(dir, treeDir, configName), []byte(text), 0o600))
		root, err := os.OpenRoot(dir)
		check(t, err)
		defer root.Close()
		got, err := (&target{stage: root}).systemTablespace()
		if err != nil || got != want {
			t.Errorf("%.60q: %q, %v, want %q", text, got, err, want)
		}
	}
}
