package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/go-sql-driver/mysql"
)

// connect proves that the server is there and lets us in.
func connect(ctx context.Context, c Config, log *slog.Logger) (*Session, error) {
	s := &Session{Log: log, config: c, target: c.target()}
	db, err := s.newDB(4)
	if err != nil {
		return nil, &Error{Kind: ErrConnect, Op: s.connecting(), Err: err}
	}
	if err := s.ping(ctx, db); err != nil {
		db.Close()
		return nil, err
	}
	s.DB = db
	return s, nil
}

func (s *Session) ping(ctx context.Context, db *sql.DB) error {
	limited, cancel := context.WithTimeoutCause(ctx, s.config.connectTimeout(), errSilent)
	defer cancel()
	err := db.PingContext(limited)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", s.connecting(), context.Cause(ctx))
	case context.Cause(limited) == errSilent:
		err = fmt.Errorf("no answer within %s", s.config.connectTimeout())
	}
	return &Error{Kind: ErrConnect, Op: s.connecting(), Err: plain(err)}
}

// patience is how long the first statements may take: as long as the connection,
// but not so short that a machine that pauses for a moment ends a backup.
func (s *Session) patience() time.Duration {
	return max(s.config.connectTimeout(), cmp.Or(s.config.patience, greetingPatience))
}

var errSilent = errors.New("no answer")

func (s *Session) connecting() string {
	return fmt.Sprintf("connect to the server at %s as %s", s.target, s.target.user)
}

// newDB returns a pool of at most n connections; none is open yet.
func (s *Session) newDB(n int) (*sql.DB, error) {
	cfg := mysql.NewConfig()
	cfg.Net, cfg.Addr = s.target.network, s.target.address
	cfg.User, cfg.Passwd = s.target.user, string(s.config.Password)
	cfg.Timeout = s.config.connectTimeout()
	// The driver's own lines about broken connections would go to standard
	// error; all it knows is in the errors it returns.
	cfg.Logger = &mysql.NopLogger{}
	if err := s.secure(cfg); err != nil {
		return nil, err
	}
	c, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, errors.New("the driver refuses the settings")
	}
	db := sql.OpenDB(&connector{c})
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	return db, nil
}

// secure sets up TLS, and who may read the password. Several methods of
// authentication send the password itself, or sealed with an RSA key that the
// server has just sent. That is for a server that cannot be another: one behind
// a socket, or with a certificate that was verified. Methods that only prove that
// the password is known work everywhere.
func (s *Session) secure(cfg *mysql.Config) (err error) {
	c := &s.config
	own, err := c.TLS.client(s.target.host)
	if err != nil {
		return err
	}
	readable := cfg.Net == "unix" || own != nil && c.TLS.verifies() || c.GetServerPublicKey
	if c.ServerPublicKeyPath != "" && own == nil && cfg.Net != "unix" {
		if cfg.ServerPubKey, err = registerKey(c.ServerPublicKeyPath); err != nil {
			return err
		}
		readable = true // by who has the other half of that key
	}
	if readable {
		// Read along under TLS only where somebody else may have the other end.
		cfg.TLS, own = own, nil
	}
	opaque := cfg.TLS != nil
	cfg.DialFunc = dialer(func(c net.Conn) *guard {
		g := newGuard(c, readable, own)
		g.opaque = opaque
		return g
	})
	return nil
}

// verifies says whether the server proves who it is.
func (t TLS) verifies() bool { return t.CA != "" || t.VerifyServerCert }

func (t TLS) client(host string) (*tls.Config, error) {
	if !t.On && t.CA == "" && t.Cert == "" && t.Key == "" && !t.VerifyServerCert {
		return nil, nil
	}
	if t.NeedCA && t.CA == "" {
		return nil, errors.New("ssl-mode=VERIFY_CA needs ssl-ca")
	}
	cfg := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if t.Cert != "" || t.Key != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("load the client's certificate: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("load the authorities: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("load the authorities: no certificate in %s", t.CA)
		}
	}
	if !t.VerifyServerCert {
		t.relax(cfg)
	}
	return cfg, nil
}

// relax does what the servers' clients do without ssl-verify-server-cert: the
// name does not count, and without ssl-ca neither does the issuer.
func (t TLS) relax(cfg *tls.Config) {
	cfg.InsecureSkipVerify = true
	if t.CA == "" {
		return
	}
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		between := x509.NewCertPool()
		for _, c := range state.PeerCertificates[1:] {
			between.AddCert(c)
		}
		_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: cfg.RootCAs, Intermediates: between})
		if err != nil {
			return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: err}
		}
		return nil
	}
}
