package servertest

import (
	"strings"
	"testing"
)

// A server of MySQL starts, is killed, starts again and stops, and keeps what was
// committed.
func TestMySQL(t *testing.T) {
	for _, r := range MySQLReleases(t) {
		t.Run(r.String(), func(t *testing.T) {
			s := New(t, Options{Release: r, LogBin: true, TCP: true})
			ctx := t.Context()
			if v, err := s.String(ctx, "SELECT VERSION()"); err != nil || !strings.HasPrefix(v, strings.TrimPrefix(r.String(), "mysql-")+".") {
				t.Errorf("%s is version %s, %v", r, v, err)
			}
			check(t, s.Exec(ctx, "CREATE DATABASE d", "CREATE TABLE d.t (a INT PRIMARY KEY)", "INSERT INTO d.t VALUES (1)"))
			s.Kill()
			check(t, s.Restart(ctx))
			check(t, s.Exec(ctx, "INSERT INTO d.t VALUES (2)"))
			check(t, s.Stop())
			copied := NewOn(t, s.Datadir(), Options{Release: r})
			if n, err := copied.String(ctx, "SELECT COUNT(*) FROM d.t"); err != nil || n != "2" {
				t.Errorf("%s rows, %v", n, err)
			}
		})
	}
}
