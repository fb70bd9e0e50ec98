package servertest

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"

	"github.com/go-sql-driver/mysql"
)

// Answer is the result of a query, for a Relay to change.
type Answer struct {
	Columns []string
	Rows    [][]sql.NullString
}

// Set sets the value of a variable or status in an answer to SHOW VARIABLES or
// SHOW STATUS, or adds it.
func (a *Answer) Set(name, value string) {
	text := func(s string) sql.NullString { return sql.NullString{String: s, Valid: true} }
	for _, row := range a.Rows {
		if row[0].String == name {
			row[1] = text(value)
			return
		}
	}
	a.Rows = append(a.Rows, []sql.NullString{text(name), text(value)})
}

// Relay is a server that passes every statement on to a real one, each client
// with a session of its own, and lets change see and change the answers: it
// pretends to be a server that is not at hand. It speaks the text protocol and
// lets everybody in as root. It returns its socket.
func (s *Server) Relay(t testing.TB, change func(query string, a *Answer)) (socket string) {
	t.Helper()
	dir, err := scratchDir("relay")
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed: the test is over
			}
			go func() {
				defer c.Close()
				conn, err := s.db.Conn(context.Background())
				if err != nil {
					return // the real server is gone: so is this one
				}
				defer discard(conn)
				r := &relayed{packets: bufio.NewReader(c), client: c, conn: conn, change: change}
				_ = r.serve() // ends when the client leaves
			}()
		}
	}()
	return socket
}

// relayed is one client of a Relay.
type relayed struct {
	packets *bufio.Reader
	client  net.Conn
	seq     byte
	conn    *sql.Conn
	change  func(string, *Answer)
}

// Parts of the protocol (the servers' documentation, "Client/Server Protocol").
const (
	comQuit, comQuery, comPing = 1, 3, 14

	capabilities = 1 | 4 | 8 | 0x200 | 0x2000 | 0x8000 | 0x80000 // long password, long flag, database, 4.1, transactions, secure connection, plugins
	statusAuto   = 2                                             // autocommit
	utf8mb4      = 45
	typeText     = 0xfd
)

func (r *relayed) serve() error {
	hello := append([]byte{10}, "5.5.5-relay\x00"...)
	hello = append(hello, 1, 0, 0, 0)
	hello = append(hello, "12345678\x00"...)
	hello = binary.LittleEndian.AppendUint16(hello, capabilities&0xffff)
	hello = append(hello, utf8mb4)
	hello = binary.LittleEndian.AppendUint16(hello, statusAuto)
	hello = binary.LittleEndian.AppendUint16(hello, capabilities>>16)
	hello = append(hello, 21)
	hello = append(hello, make([]byte, 10)...)
	hello = append(hello, "123456789012\x00mysql_native_password\x00"...)
	if err := r.send(hello); err != nil {
		return err
	}
	if _, err := r.receive(); err != nil {
		return err
	}
	if err := r.ok(); err != nil {
		return err
	}
	for {
		p, err := r.receive()
		if err != nil || p[0] == comQuit {
			return err
		}
		switch p[0] {
		case comPing:
			err = r.ok()
		case comQuery:
			err = r.query(string(p[1:]))
		default:
			err = r.fail(&mysql.MySQLError{Number: 1047, Message: "Unknown command"})
		}
		if err != nil {
			return err
		}
	}
}

func (r *relayed) receive() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r.packets, head[:]); err != nil {
		return nil, err
	}
	p := make([]byte, int(head[0])|int(head[1])<<8|int(head[2])<<16)
	if len(p) == 0 {
		return nil, errors.New("empty packet")
	}
	r.seq = head[3] + 1
	_, err := io.ReadFull(r.packets, p)
	return p, err
}

func (r *relayed) send(p []byte) error {
	head := []byte{byte(len(p)), byte(len(p) >> 8), byte(len(p) >> 16), r.seq}
	r.seq++
	_, err := r.client.Write(append(head, p...))
	return err
}

func (r *relayed) ok() error  { return r.send([]byte{0, 0, 0, statusAuto, 0, 0, 0}) }
func (r *relayed) eof() error { return r.send([]byte{0xfe, 0, 0, statusAuto, 0}) }

func (r *relayed) fail(e *mysql.MySQLError) error {
	p := binary.LittleEndian.AppendUint16([]byte{0xff}, e.Number)
	return r.send(append(append(p, "#HY000"...), e.Message...))
}

func (r *relayed) query(q string) error {
	a, err := r.ask(q)
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return r.fail(e)
	}
	if err != nil {
		return err // the connection broke, and so does this one
	}
	if len(a.Columns) == 0 {
		return r.ok()
	}
	r.change(q, &a)
	if err := r.send([]byte{byte(len(a.Columns))}); err != nil {
		return err
	}
	for _, name := range a.Columns {
		p := appendText(nil, "def")
		p = append(p, 0, 0, 0) // schema and table
		p = appendText(p, name)
		p = append(p, 0, 12, utf8mb4, 0, 0xff, 0xff, 0, 0, typeText, 0, 0, 0, 0, 0)
		if err := r.send(p); err != nil {
			return err
		}
	}
	if err := r.eof(); err != nil {
		return err
	}
	for _, row := range a.Rows {
		var p []byte
		for _, v := range row {
			if !v.Valid {
				p = append(p, 0xfb)
				continue
			}
			p = appendText(p, v.String)
		}
		if err := r.send(p); err != nil {
			return err
		}
	}
	return r.eof()
}

// appendText appends a string with its length in front.
func appendText(p []byte, s string) []byte {
	if len(s) < 251 {
		return append(append(p, byte(len(s))), s...)
	}
	return append(append(p, 0xfd, byte(len(s)), byte(len(s)>>8), byte(len(s)>>16)), s...)
}

func (r *relayed) ask(q string) (a Answer, err error) {
	rows, err := r.conn.QueryContext(context.Background(), q)
	if err != nil {
		return a, err
	}
	defer rows.Close()
	if a.Columns, err = rows.Columns(); err != nil {
		return a, err
	}
	for rows.Next() {
		row := make([]sql.NullString, len(a.Columns))
		refs := make([]any, len(row))
		for i := range row {
			refs[i] = &row[i]
		}
		if err := rows.Scan(refs...); err != nil {
			return a, err
		}
		a.Rows = append(a.Rows, row)
	}
	return a, rows.Err()
}
