package server

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// How long a server may stay silent once it has let us in. A statement on the
// lock connection has the budget of its lock instead.
const (
	// greetingPatience is for statements that cost a server nothing.
	greetingPatience = time.Minute
	// catalogPatience is for those that read its whole dictionary.
	catalogPatience = 5 * time.Minute
)

// answered calls f, which asks the server something, with a limit.
func answered(ctx context.Context, limit time.Duration, f func(context.Context) error) error {
	limited, cancel := context.WithTimeoutCause(ctx, limit, errSilent)
	defer cancel()
	err := f(limited)
	if err != nil && ctx.Err() == nil && context.Cause(limited) == errSilent {
		return &cause{fmt.Sprintf("no answer within %s", limit), errSilent}
	}
	return err
}

// Queryer is a *sql.DB or *sql.Conn.
type Queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// Rows returns a query's rows, column by name, NULL as empty text.
func Rows(ctx context.Context, q Queryer, query string) (list []map[string]string, err error) {
	if _, pool := q.(*sql.DB); !pool {
		return readRows(ctx, q, query)
	}
	err = answered(ctx, catalogPatience, func(ctx context.Context) error {
		list, err = readRows(ctx, q, query)
		return err
	})
	return list, err
}

func readRows(ctx context.Context, q Queryer, query string) ([]map[string]string, error) {
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
