package server

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"database/sql/driver"
	"encoding/pem"
	"fmt"
	"net"
	"os"

	"github.com/go-sql-driver/mysql"
)

// connector opens the driver's connections, each through a guard, and lets no
// panic of the driver pass: what a server sends is only input. Panics in
// database/sql's own goroutines would end the process.
type connector struct{ driver.Connector }

// guardKey is where the context of Connect keeps the guard for dial: the driver
// returns an error of its own when the guard has one.
type guardKey struct{}

// dialer returns the driver's DialFunc. make makes the guard of a connection.
func dialer(make func(net.Conn) *guard) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		g := make(c)
		if keep, ok := ctx.Value(guardKey{}).(**guard); ok {
			*keep = g
		}
		return g, nil
	}
}

func (c *connector) Connect(ctx context.Context) (_ driver.Conn, err error) {
	var g *guard
	conn, err := func() (_ driver.Conn, err error) {
		defer caught(&err)
		return c.Connector.Connect(context.WithValue(ctx, guardKey{}, &g))
	}()
	if err != nil {
		if g != nil {
			g.Close()
			if why := g.broken(); why != nil {
				return nil, why
			}
		}
		return nil, err
	}
	return &guardedConn{conn: conn.(driverConn), guard: g}, nil
}

// caught turns a panic into an error.
func caught(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w (%v)", errNonsense, p)
	}
}

// driverConn is what the driver's connections are.
type driverConn interface {
	driver.Conn
	driver.Pinger
	driver.QueryerContext
	driver.ExecerContext
	driver.SessionResetter
	driver.Validator
}

// guardedConn is a connection whose errors are the guard's, where it has one. It
// has no prepared statements with arguments and no transactions: nothing here
// uses any.
type guardedConn struct {
	conn  driverConn
	guard *guard
}

// say ends a call to the driver.
func (c *guardedConn) say(err *error) {
	if p := recover(); p != nil {
		*err = c.guard.fail(fmt.Errorf("%w (%v)", errNonsense, p))
		c.guard.Close()
	}
	if why := c.guard.broken(); why != nil && *err != nil {
		*err = why
	}
}

func (c *guardedConn) Ping(ctx context.Context) (err error) {
	defer c.say(&err)
	return c.conn.Ping(ctx)
}

func (c *guardedConn) ExecContext(ctx context.Context, q string, args []driver.NamedValue) (r driver.Result, err error) {
	defer c.say(&err)
	return c.conn.ExecContext(ctx, q, args)
}

func (c *guardedConn) QueryContext(ctx context.Context, q string, args []driver.NamedValue) (r driver.Rows, err error) {
	defer c.say(&err)
	rows, err := c.conn.QueryContext(ctx, q, args)
	if err != nil {
		return nil, err
	}
	return &guardedRows{rows, c}, nil
}

func (c *guardedConn) Prepare(q string) (s driver.Stmt, err error) {
	defer c.say(&err)
	return c.conn.Prepare(q)
}

func (c *guardedConn) Begin() (driver.Tx, error) { return nil, driver.ErrSkip }

func (c *guardedConn) ResetSession(ctx context.Context) (err error) {
	defer c.say(&err)
	if c.guard.broken() != nil {
		return driver.ErrBadConn
	}
	return c.conn.ResetSession(ctx)
}

func (c *guardedConn) IsValid() bool { return c.guard.broken() == nil && c.conn.IsValid() }

func (c *guardedConn) Close() (err error) {
	defer c.say(&err)
	return c.conn.Close()
}

type guardedRows struct {
	driver.Rows
	c *guardedConn
}

func (r *guardedRows) Next(dest []driver.Value) (err error) {
	defer r.c.say(&err)
	return r.Rows.Next(dest)
}

func (r *guardedRows) Close() (err error) {
	defer r.c.say(&err)
	return r.Rows.Close()
}

// publicKey reads the server's RSA key, as mysql's --server-public-key-path.
func publicKey(path string) (*rsa.PublicKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("load the server's public key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("load the server's public key: no PEM block in %s", path)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("load the server's public key %s: %w", path, err)
	}
	pub, ok := key.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("load the server's public key: %s is not an RSA key", path)
	}
	return pub, nil
}

// registered is the name under which the driver knows the server's key.
const registered = "xbsend"

func registerKey(path string) (string, error) {
	pub, err := publicKey(path)
	if err != nil {
		return "", err
	}
	mysql.RegisterServerPubKey(registered, pub)
	return registered, nil
}
