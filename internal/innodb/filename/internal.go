package filename

import (
	"path"
	"regexp"
	"strings"
)

// internal matches the end of the path of a file that belongs to no table a user
// made: one that an ALTER TABLE works on or has left (#sql…), a partition that is
// being rebuilt (…#TMP#, …#REN#), and the auxiliary tables of a full-text index
// (MariaDB sql_table.cc, make_tmp_name; sql_partition.cc, create_partition_name;
// fts0fts.cc, fts_get_table_name).
var internal = regexp.MustCompile(`(?i)(?:^|/)(?:#sql[^/]*|[^/]*#(?:TMP|REN)#\.[^/.]+|FTS_[0-9a-f]{16}_(?:[0-9a-f]{16}_INDEX_[1-6]|CONFIG|DELETED|DELETED_CACHE|BEING_DELETED|BEING_DELETED_CACHE)\.[^/.]+)$`)

// Internal says whether a file, named by its path with slashes, is such a one.
// A lock that blocks DDL does not keep it from coming and going: the ALTER that
// it belongs to goes on up to its last phase, or ends early. Nobody can import
// its tablespace.
func Internal(name string) bool { return internal.MatchString(name) }

// Unfinished says whether a file, named by its path with slashes, is the new table
// of an ALTER of MariaDB that has not ended.
func Unfinished(name string) bool { return strings.HasPrefix(path.Base(name), "#sql-alter-") }
