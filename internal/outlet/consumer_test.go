package outlet

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xbstream/xbstream/internal/cli"
)

func consume(t *testing.T, command string) *consumer {
	t.Helper()
	c, err := startConsumer(command, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// D2: a command that ends with status 0 and has left some of the archive in the
// pipe has not stored the archive.
func TestConsumerThatReadsTooLittle(t *testing.T) {
	for command, left := range map[string]string{"true": "last 3 bytes", "head -c 1 > /dev/null; exit 0": "", "cat > /dev/null": "nothing"} {
		c := consume(t, command)
		if _, err := c.in.WriteString("abc"); err != nil {
			t.Fatal(err)
		}
		err := c.finish(t.Context())
		e, ok := errors.AsType[*ConsumerError](err)
		switch {
		case left == "nothing":
			if err != nil {
				t.Errorf("%s: %v", command, err)
			}
		case left != "" && (!ok || !strings.Contains(err.Error(), left) || e.Code() != cli.ExitIO):
			t.Errorf("%s: %v", command, err)
		}
	}
}

// D2: the command's exit status is ours, as a shell has it.
func TestConsumerStatus(t *testing.T) {
	for command, want := range map[string]int{
		"cat > /dev/null; exit 3": 3, "cat > /dev/null; kill -9 $$": 137, "no-such-command-anywhere": 127, "cat > /dev/null | exit 5": 5,
	} {
		err := consume(t, command).finish(t.Context())
		if e, ok := errors.AsType[*ConsumerError](err); !ok || e.Code() != want {
			t.Errorf("%s: %v, want code %d", command, err, want)
		}
	}
}

// P7: the command does not get the password, nor the descriptors of others.
func TestConsumerEnvironment(t *testing.T) {
	t.Setenv("MYSQL_PWD", "geheim")
	t.Setenv("OTHER", "kept")
	name := filepath.Join(t.TempDir(), "out")
	t.Setenv("OUT", name)
	if err := consume(t, `exec > "$OUT"; env; ls /proc/$$/fd; cat`).finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if s := string(got); strings.Contains(s, "geheim") || !strings.Contains(s, "OTHER=kept") || strings.Contains(s, "\n3\n") || strings.Contains(s, "\n4\n") {
		t.Errorf("%s", s)
	}
}
