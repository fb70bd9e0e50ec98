package server

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// impostor is a server that is not the one that was meant. It speaks enough of
// the protocol to be talked to, and keeps all that it is sent, after TLS.
type impostor struct {
	t      *testing.T
	plugin string      // in the greeting
	tls    *tls.Config // offered, if set
	play   func(*peer) // after the client's first answer
	l      net.Listener

	mu   sync.Mutex
	seen bytes.Buffer
}

// peer is one connection of an impostor.
type peer struct {
	*impostor
	c        net.Conn
	seq      byte
	scramble []byte
}

func (i *impostor) start(t *testing.T) Config {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	i.t, i.l = t, l
	var serving sync.WaitGroup
	t.Cleanup(func() { l.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(20 * time.Second))
				i.serve(&peer{impostor: i, c: c})
			})
		}
	})
	return Config{Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, User: "xb", Password: "hush-hush"}
}

func (i *impostor) serve(p *peer) {
	p.scramble = []byte("abcdefghijklmnopqrst")
	caps := uint32(0x00ff_f7ff) // all that matters but TLS
	if i.tls != nil {
		caps |= capabilitySSL
	}
	g := append([]byte{10}, "8.0.99-MariaDB\x00"...)
	g = append(g, 1, 0, 0, 0)
	g = append(append(g, p.scramble[:8]...), 0)
	g = binary.LittleEndian.AppendUint16(g, uint16(caps))
	g = append(g, 45, 2, 0)
	g = binary.LittleEndian.AppendUint16(g, uint16(caps>>16))
	g = append(append(g, 21), make([]byte, 10)...)
	g = append(append(append(g, p.scramble[8:]...), 0), i.plugin+"\x00"...)
	p.write(g)
	first := p.read()
	if i.tls != nil && len(first) == sslRequest {
		c := tls.Server(p.c, i.tls)
		if c.Handshake() != nil {
			return
		}
		p.c = c
		first = p.read()
	}
	if first != nil {
		i.play(p)
	}
}

// read returns the next packet of the client, nil if there is none.
func (p *peer) read() []byte {
	head := make([]byte, 4)
	if _, err := io.ReadFull(p.c, head); err != nil {
		return nil
	}
	p.seq = head[3] + 1
	b := make([]byte, int(head[0])|int(head[1])<<8|int(head[2])<<16)
	if _, err := io.ReadFull(p.c, b); err != nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen.Write(b)
	return b
}

func (p *peer) write(b []byte) bool {
	head := []byte{byte(len(b)), byte(len(b) >> 8), byte(len(b) >> 16), p.seq}
	p.seq++
	_, err := p.c.Write(append(head, b...))
	return err == nil
}

func (p *peer) switchTo(plugin string) []byte {
	p.write(append(append([]byte{0xfe}, plugin+"\x00"...), append(p.scramble, 0)...))
	return p.read()
}

func (p *peer) ok() { p.write([]byte{0, 0, 0, 2, 0, 0, 0}) }

// answers serves statements, the first with a.
func (p *peer) answers(a ...[]byte) {
	p.ok()
	for q := p.read(); len(q) > 0 && q[0] != 1; q = p.read() {
		for _, packet := range a {
			if !p.write(packet) {
				return
			}
		}
	}
}

// unsealed notes the password that was sealed with the server's key.
func (p *peer) unsealed(key *rsa.PrivateKey, sealed []byte) {
	plain, err := rsa.DecryptOAEP(sha1.New(), nil, key, sealed, nil)
	if err != nil {
		return
	}
	for i := range plain {
		plain[i] ^= p.scramble[i%len(p.scramble)]
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen.Write(plain)
}

func (i *impostor) knows(password string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return bytes.Contains(i.seen.Bytes(), []byte(password))
}

func publicPEM(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// certificate is one for 127.0.0.1 that signs itself, and the file with it.
func certificate(t *testing.T) (*tls.Config, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "impostor"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, file
}

// C3: who does not prove to be the server gets no password, in whatever way it
// asks for it; who does, or is trusted by the user, gets it where the method
// needs it.
func TestPasswordIsToldToTheServerOnly(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public := publicPEM(t, &key.PublicKey)
	keyFile := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(keyFile, public, 0o600); err != nil {
		t.Fatal(err)
	}
	// Each asks for the password as its method allows, and in clear.
	full := func(p *peer) {
		p.write([]byte{1, 4})
		if b := p.read(); len(b) == 1 && b[0] == 2 {
			p.write(append([]byte{1}, public...))
			p.unsealed(key, p.read())
		} else {
			p.unsealed(key, b)
		}
		p.answers([]byte{0xff, 1, 2, 'x'})
	}
	sha256 := func(p *peer, b []byte) {
		if len(b) == 1 && b[0] == 1 {
			p.write(append([]byte{1}, public...))
			b = p.read()
		}
		p.unsealed(key, b)
		p.answers([]byte{0xff, 1, 2, 'x'})
	}
	methods := map[string]*impostor{
		"caching_sha2_password":           {plugin: "caching_sha2_password", play: full},
		"switch to caching_sha2_password": {plugin: "mysql_native_password", play: func(p *peer) { p.switchTo("caching_sha2_password"); full(p) }},
		"sha256_password":                 {plugin: "sha256_password", play: func(p *peer) { sha256(p, []byte{1}) }},
		"switch to sha256_password":       {plugin: "mysql_native_password", play: func(p *peer) { sha256(p, p.switchTo("sha256_password")) }},
		"mysql_clear_password":            {plugin: "mysql_clear_password", play: func(p *peer) { p.answers([]byte{0xff, 1, 2, 'x'}) }},
		"switch to mysql_clear_password":  {plugin: "mysql_native_password", play: func(p *peer) { p.switchTo("mysql_clear_password") }},
		"switch to dialog":                {plugin: "mysql_native_password", play: func(p *peer) { p.switchTo("dialog") }},
		"switch to mysql_old_password":    {plugin: "mysql_native_password", play: func(p *peer) { p.switchTo("mysql_old_password") }},
		"a key that nobody has asked for": {plugin: "mysql_native_password", play: func(p *peer) { p.write(append([]byte{1}, public...)); p.unsealed(key, p.read()) }},
	}
	secure, ca := certificate(t)
	ways := map[string]struct {
		change func(*Config)
		tls    bool
		told   bool // by a method of SHA-256
	}{
		"TCP":              {change: func(*Config) {}},
		"unverified TLS":   {change: func(c *Config) { c.TLS.On = true }, tls: true},
		"verified TLS":     {change: func(c *Config) { c.TLS.CA, c.TLS.VerifyServerCert = ca, true }, tls: true, told: true},
		"any key":          {change: func(c *Config) { c.GetServerPublicKey = true }, told: true},
		"the server's key": {change: func(c *Config) { c.ServerPublicKeyPath = keyFile }, told: true},
	}
	for method, m := range methods {
		for way, w := range ways {
			t.Run(method+" over "+way, func(t *testing.T) {
				i := &impostor{plugin: m.plugin, play: m.play}
				if w.tls {
					i.tls = secure
				}
				c := i.start(t)
				w.change(&c)
				_, err := Open(t.Context(), c, nil)
				if err == nil || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "hush") || !errors.Is(err, ErrConnect) {
					t.Errorf("got %v", err)
				}
				sha2 := strings.Contains(method, "sha2")
				if known := i.knows("hush-hush"); known && !w.told || sha2 && known != w.told && !(m.plugin == "sha256_password") {
					t.Errorf("the password was told: %v; %v", known, err)
				}
				if sha2 && !w.told && !errors.Is(err, errReadable) {
					t.Errorf("got %v, which does not say what to do", err)
				}
			})
		}
	}
}

// C4: whatever a server answers, the error is one line.
func TestAnswersThatNoServerGives(t *testing.T) {
	wide := func(n uint64) []byte { return binary.LittleEndian.AppendUint64([]byte{0xfe}, n) }
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecKey := append([]byte{1}, publicPEM(t, &key.PublicKey)...)
	endless := func(p *peer) {
		p.ok()
		p.read()
		for b := make([]byte, 1<<24-1); p.write(b); {
		}
	}
	answer := func(packets ...[]byte) func(*peer) { return func(p *peer) { p.answers(packets...) } }
	secure, _ := certificate(t)
	for name, play := range map[string]func(*peer){
		"2^62 columns":               answer(wide(1 << 62)),
		"2^63 columns":               answer(wide(1 << 63)),
		"2^34 columns":               answer(wide(1 << 34)),
		"10000 columns":              answer([]byte{0xfc, 0x10, 0x27}),
		"columns after an OK":        answer([]byte{0, 0, 0, 10, 0, 0, 0}, wide(1<<34)),
		"a cut number of columns":    answer([]byte{0xfd, 1}),
		"a column of nothing":        answer([]byte{1}, []byte{0xff}),
		"a column longer than it is": answer([]byte{1}, []byte{3, 'd', 'e', 'f', 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}),
		"endless":                    endless,
		"a short scramble":           func(p *peer) { p.write(append([]byte{0xfe}, "mysql_native_password\x00ab"...)); p.read() },
		"a request for a file":       answer(append([]byte{0xfb}, "/etc/passwd"...)),
		"a key of another kind": func(p *peer) {
			p.switchTo("caching_sha2_password")
			p.write([]byte{1, 4})
			p.read()
			p.write(ecKey)
			p.read()
		},
		"nothing in an answer":        answer([]byte{}),
		"an end instead of an answer": func(p *peer) { p.ok() },
		"max_allowed_packet of 2^62": func(p *peer) {
			p.answers([]byte{1}, []byte{3, 'd', 'e', 'f', 0, 0, 0, 1, 'x', 0, 12, 45, 0, 255, 0, 0, 0, 253, 0, 0, 0, 0, 0}, []byte{0xfe, 0, 0, 2, 0}, append([]byte{19}, "4611686018427387904"...), []byte{0xfe, 0, 0, 2, 0})
		},
	} {
		for _, encrypted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, TLS %v", name, encrypted), func(t *testing.T) {
				i := &impostor{plugin: "mysql_native_password", play: play}
				if encrypted {
					i.tls = secure
				}
				c := i.start(t)
				c.TLS.On, c.GetServerPublicKey = encrypted, strings.Contains(name, "key")
				_, err := Open(t.Context(), c, nil)
				if err == nil || strings.Contains(err.Error(), "\n") {
					t.Fatalf("got %v", err)
				}
				if e, ok := errors.AsType[*Error](err); !ok {
					t.Errorf("got %v, which is no *Error", err)
				} else if strings.Contains(name, "columns") && !errors.Is(e, ErrConnect) {
					t.Errorf("got %v of kind %v", err, e.Kind)
				}
			})
		}
	}
}

// C7: a server that is silent once it has let us in is not waited for without
// a bound.
func TestServerSilentAfterLogin(t *testing.T) {
	quiet := &impostor{plugin: "mysql_native_password", play: func(p *peer) {
		p.ok()
		for n := 0; ; n++ {
			switch b := p.read(); {
			case len(b) == 0:
				return
			case b[0] == 0x0e || n == 0: // ping, and what the driver asks first
				p.write([]byte{0, 0, 0, 2, 0, 0, 0})
			}
		}
	}}
	c := quiet.start(t)
	c.ConnectTimeout, c.patience = time.Second, time.Second
	_, err := Open(t.Context(), c, nil)
	if !errors.Is(err, ErrConnect) || !strings.Contains(err.Error(), "no answer within 1s") {
		t.Errorf("got %v", err)
	}
}

// A server that speaks first is understood wherever packets are cut.
func FuzzGuard(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 10, 2, 0, 0, 2, 1, 4}, false)
	f.Add([]byte{9, 0, 0, 1, 0xfe, 0, 0, 0, 0, 0, 0, 0, 0x40}, true)
	f.Add(append([]byte{0xff, 0xff, 0xff, 0}, bytes.Repeat([]byte{1}, 3000)...), true)
	f.Fuzz(func(t *testing.T, sent []byte, statements bool) {
		near, far := net.Pipe()
		defer near.Close()
		go func() {
			far.Write(sent)
			far.Close()
		}()
		g := newGuard(near, false, nil)
		if statements {
			g.phase = answerBegins
		}
		got, err := io.ReadAll(io.LimitReader(g, int64(len(sent))))
		if err == nil && g.broken() != nil {
			t.Fatal("broken, and nothing said")
		}
		// What passes is what was sent, up to where it was stopped.
		if !bytes.HasPrefix(sent, got) {
			t.Fatalf("%x became %x", sent, got)
		}
	})
}
