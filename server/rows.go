package server

import (
	"context"
	"database/sql"
)

// Queryer is a *sql.DB or *sql.Conn.
type Queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// Rows returns a query's rows, column by name, NULL as empty text.
func Rows(ctx context.Context, q Queryer, query string) ([]map[string]string, error) {
	rows, err := q.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	values := make([]sql.NullString, len(names))
	refs := make([]any, len(names))
	for i := range values {
		refs[i] = &values[i]
	}
	var list []map[string]string
	for rows.Next() {
		if err := rows.Scan(refs...); err != nil {
			return nil, err
		}
		row := make(map[string]string, len(names))
		for i, n := range names {
			row[n] = values[i].String
		}
		list = append(list, row)
	}
	return list, rows.Err()
}
