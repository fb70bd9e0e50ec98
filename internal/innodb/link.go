package innodb

import (
	"fmt"
	"path/filepath"
	"strings"
)

// LinkName returns the path of the link file of a tablespace, given its own:
// db/table.isl for db/table.ibd. A server finds in it the absolute path of the
// tablespace of a table with a DATA DIRECTORY, usually without a line end (seen
// on 10.11).
func LinkName(rel string) string { return strings.TrimSuffix(rel, ".ibd") + ".isl" }

// ParseLink returns the path in a link file, which must be one that a server
// makes for the tablespace rel: absolute, and ending in database and file.
func ParseLink(rel string, content []byte) (string, error) {
	to := strings.TrimRight(string(content), " \r\n")
	if !filepath.IsAbs(to) || filepath.Clean(to) != to || strings.ContainsRune(to, 0) || !strings.HasSuffix(filepath.ToSlash(to), "/"+rel) {
		return "", fmt.Errorf("%s holds %.200q, which is no absolute path that ends in %s", LinkName(rel), to, rel)
	}
	return to, nil
}
