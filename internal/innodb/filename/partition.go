package filename

import "strings"

// CutPartition splits what follows the name of a table, #P# and so on, off the
// name of a partition; partition is empty for a table that has none. The case of
// the letter is the server's choice (lower_case_table_names).
func CutPartition(name string) (table, partition string) {
	for _, mark := range []string{"#P#", "#p#"} {
		if i := strings.Index(name, mark); i > 0 {
			return name[:i], name[i:]
		}
	}
	return name, ""
}
