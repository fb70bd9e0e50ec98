package server

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"
)

// Defaults of a Config's zero fields.
const (
	// DefaultPort is the port of both families.
	DefaultPort = 3306
	// DefaultConnectTimeout bounds one attempt to connect.
	DefaultConnectTimeout = 10 * time.Second
	// DefaultLockTimeout is the budget of each lock. While a lock is waited
	// for, the statements it will block already queue behind it, so waiting
	// is felt by the application; a minute outlasts ordinary statements and
	// is less than the usual time-out of an application's own.
	DefaultLockTimeout = time.Minute
)

// sockets are where the distributions' servers listen, tried in order.
var sockets = []string{
	"/run/mysqld/mysqld.sock",
	"/var/run/mysqld/mysqld.sock",
	"/var/lib/mysql/mysql.sock",
	"/tmp/mysql.sock",
}

// Config says how to reach the server. The zero value connects as the servers'
// own clients do: through the default socket, as the user who runs the process.
type Config struct {
	// Host is a name or an address. Empty or "localhost" means the socket,
	// unless Protocol says otherwise.
	Host string
	// Port is the TCP port; 0 means DefaultPort.
	Port int
	// Socket is the path of the socket; empty means the first default that
	// exists.
	Socket string
	// Protocol is "tcp", "socket", or empty: the host decides.
	Protocol string
	// User is the account; empty means root for root, else the user's name.
	User     string
	Password Secret
	TLS      TLS
	// ServerPublicKeyPath is a PEM file with the server's RSA key, for the
	// methods that seal the password with it. GetServerPublicKey takes whatever
	// key the server sends, and tells the password to any server that asks.
	ServerPublicKeyPath string
	GetServerPublicKey  bool
	// ConnectTimeout bounds one attempt to connect; 0 means the default.
	ConnectTimeout time.Duration
	// LockTimeout is the budget for getting each lock; 0 means the default,
	// less than 0 no limit.
	LockTimeout time.Duration

	patience time.Duration // greetingPatience but in tests
}

// TLS says whether and how the connection is encrypted. With the zero value it
// is not.
type TLS struct {
	// On asks for encryption; the files below ask for it too.
	On bool
	// CA is a PEM file of authorities; the server's certificate must come
	// from one of them.
	CA string
	// Cert and Key are PEM files that authenticate this client.
	Cert, Key string
	// VerifyServerCert also checks the certificate's host name, and uses the
	// system's authorities where CA is empty.
	VerifyServerCert bool
	// NeedCA refuses to connect without CA.
	NeedCA bool
}

// Secret is a text that prints as stars.
type Secret string

// String hides the text.
func (Secret) String() string { return "***" }

// GoString hides the text from %#v.
func (Secret) GoString() string { return `"***"` }

// LogValue hides the text from log lines.
func (Secret) LogValue() slog.Value { return slog.StringValue("***") }

// MarshalText hides the text from JSON.
func (Secret) MarshalText() ([]byte, error) { return []byte("***"), nil }

// Set applies a connection option of an option file or a command line, by its
// long name with dashes. It returns false for a name it does not know. Errors
// name the option, and no value of a password.
func (c *Config) Set(name, value string, hasValue bool) (bool, error) {
	if texts := c.texts(); texts[name] != nil {
		if !hasValue {
			return true, fmt.Errorf("option %s: needs a value", name)
		}
		*texts[name] = value
		return true, nil
	}
	switch name {
	case "password":
		// Without value it means "ask", which is not ours to do.
		if hasValue {
			c.Password = Secret(value)
		}
		return true, nil
	case "port":
		return true, setPort(&c.Port, value)
	case "protocol":
		return true, c.setProtocol(value)
	case "ssl-mode":
		return true, c.setSSLMode(value)
	case "connect-timeout":
		return true, setSeconds(&c.ConnectTimeout, name, value)
	}
	return c.setFlag(name, value, hasValue)
}

func (c *Config) texts() map[string]*string {
	return map[string]*string{
		"host": &c.Host, "socket": &c.Socket, "user": &c.User,
		"ssl-ca": &c.TLS.CA, "ssl-cert": &c.TLS.Cert, "ssl-key": &c.TLS.Key,
		"server-public-key-path": &c.ServerPublicKeyPath,
	}
}

func setPort(port *int, value string) error {
	n, err := strconv.ParseUint(value, 10, 16)
	if err != nil {
		return fmt.Errorf("option port: %q is not a port", value)
	}
	*port = int(n)
	return nil
}

func (c *Config) setProtocol(value string) error {
	switch strings.ToLower(value) {
	case "tcp":
		c.Protocol = "tcp"
	case "socket", "unix":
		c.Protocol = "socket"
	case "default", "":
		c.Protocol = ""
	default:
		return fmt.Errorf("option protocol: %q is neither tcp nor socket", value)
	}
	return nil
}

// setSSLMode knows the option of MySQL's clients. PREFERRED, which promises nothing, is
// as without it.
func (c *Config) setSSLMode(value string) error {
	switch strings.ToUpper(value) {
	case "DISABLED":
		c.TLS = TLS{}
	case "PREFERRED":
	case "REQUIRED":
		c.TLS.On = true
	case "VERIFY_CA":
		c.TLS.On, c.TLS.NeedCA = true, true
	case "VERIFY_IDENTITY":
		c.TLS.On, c.TLS.VerifyServerCert = true, true
	default:
		return fmt.Errorf("option ssl-mode: %q is none of DISABLED, PREFERRED, REQUIRED, VERIFY_CA, VERIFY_IDENTITY", value)
	}
	return nil
}

func setSeconds(d *time.Duration, name, value string) error {
	n, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		return fmt.Errorf("option %s: %q is not a number of seconds", name, value)
	}
	*d = time.Duration(n) * time.Second
	return nil
}

// setFlag knows the switches with the clients' prefixes: skip-ssl is ssl=0.
func (c *Config) setFlag(name, value string, hasValue bool) (bool, error) {
	on := true
	bare := strings.TrimPrefix(name, "enable-")
	for _, p := range []string{"skip-", "disable-"} {
		if rest, ok := strings.CutPrefix(name, p); ok {
			bare, on = rest, false
		}
	}
	flags := map[string]*bool{"ssl": &c.TLS.On, "ssl-verify-server-cert": &c.TLS.VerifyServerCert, "get-server-public-key": &c.GetServerPublicKey}
	flag := flags[bare]
	if flag == nil {
		return false, nil
	}
	if hasValue {
		switch strings.ToLower(value) {
		case "1", "on", "true":
		case "0", "off", "false":
			on = !on
		default:
			return true, fmt.Errorf("option %s: %q is neither 1 nor 0", name, value)
		}
	}
	*flag = on
	if bare == "ssl" && !on {
		c.TLS = TLS{}
	}
	return true, nil
}

// Environment fills what is still empty from the variables the clients know:
// MYSQL_HOST, MYSQL_TCP_PORT, MYSQL_UNIX_PORT, MYSQL_PWD.
func (c *Config) Environment(getenv func(string) string) error {
	if c.Host == "" {
		c.Host = getenv("MYSQL_HOST")
	}
	if c.Socket == "" {
		c.Socket = getenv("MYSQL_UNIX_PORT")
	}
	if c.Password == "" {
		c.Password = Secret(getenv("MYSQL_PWD"))
	}
	if v := getenv("MYSQL_TCP_PORT"); v != "" && c.Port == 0 {
		return setPort(&c.Port, v)
	}
	return nil
}

func (c Config) lockTimeout() time.Duration {
	if c.LockTimeout == 0 {
		return DefaultLockTimeout
	}
	return c.LockTimeout
}

func (c Config) connectTimeout() time.Duration {
	if c.ConnectTimeout <= 0 {
		return DefaultConnectTimeout
	}
	return c.ConnectTimeout
}

// target is where a Config leads, with all defaults resolved.
type target struct {
	network, address string // as net.Dial has them
	host             string // for the certificate's name
	user             string
}

// String names the place, for errors and log lines.
func (t target) String() string {
	if t.network == "unix" {
		return "socket " + t.address
	}
	return t.address
}

func (c Config) target() target {
	t := target{user: c.User, host: c.Host}
	if t.user == "" {
		t.user = currentUser()
	}
	if t.host == "" {
		t.host = "localhost"
	}
	if c.Protocol == "socket" || c.Protocol == "" && t.host == "localhost" {
		t.network, t.address = "unix", c.socket()
		return t
	}
	port := c.Port
	if port == 0 {
		port = DefaultPort
	}
	t.network, t.address = "tcp", net.JoinHostPort(t.host, strconv.Itoa(port))
	return t
}

func (c Config) socket() string {
	if c.Socket != "" {
		return c.Socket
	}
	for _, path := range sockets {
		if st, err := os.Stat(path); err == nil && st.Mode()&os.ModeSocket != 0 {
			return path
		}
	}
	return sockets[0]
}

func currentUser() string {
	if os.Geteuid() == 0 {
		return "root"
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return os.Getenv("USER")
}
