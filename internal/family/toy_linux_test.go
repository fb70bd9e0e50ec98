package family_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/xbstream/xbstream/chunker"
	"github.com/xbstream/xbstream/format"
	"github.com/xbstream/xbstream/internal/families"
	"github.com/xbstream/xbstream/internal/family"
	"github.com/xbstream/xbstream/internal/innodb"
	"github.com/xbstream/xbstream/internal/innodb/redolog"
	"github.com/xbstream/xbstream/internal/servertest"
	"github.com/xbstream/xbstream/redotail"
	"github.com/xbstream/xbstream/server"
)

func TestMain(m *testing.M) { os.Exit(servertest.Main(m)) }

// toy is a family that takes any server for its own: all that a new one has to
// bring.
type toy struct{ takes bool }

var errToy = errors.New("a toy has no redo log")

func (toy) Name() string                                                   { return "toy" }
func (f toy) Recognises(server.Identity) bool                              { return f.takes }
func (toy) Attach(context.Context, *server.Session) (server.Server, error) { return toyServer{}, nil }
func (toy) Files(chunker.Layout) chunker.Discoverer                        { return nil }
func (toy) ParseFlags(uint32) (innodb.PageFormat, error)                   { return innodb.PageFormat{}, nil }
func (toy) OpenRedo(context.Context, string) (redotail.Log, error)         { return nil, errToy }
func (toy) Redo() redolog.Dialect                                          { return nil }
func (toy) RedoHead(*format.Backup) ([]byte, error)                        { return []byte("toy"), nil }

type toyServer struct{ server.Server }

func (toyServer) Close() error { return nil }

// A family is one more line in the list: the first that recognises a server gets it.
func TestThirdFamily(t *testing.T) {
	live := servertest.New(t, servertest.Options{})
	config := server.Config{Socket: live.Socket(), User: "root"}
	for takes, want := range map[bool]bool{true: true, false: false} {
		list := slices.Concat([]family.Family{toy{takes}}, families.All)
		s, err := family.Open(t.Context(), config, nil, list)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.OpenRedo(t.Context(), t.TempDir())
		if got := errors.Is(err, errToy); got != want {
			t.Errorf("the toy recognises it: %v, and has it: %v (%v)", takes, got, err)
		}
		s.Close()
	}
	if _, err := family.Open(t.Context(), config, nil, []family.Family{toy{}}); !errors.Is(err, server.ErrUnsupported) {
		t.Errorf("a server that no family recognises: %v", err)
	}
	for _, f := range families.All {
		if named, err := families.Named(f.Name()); err != nil || named.Name() != f.Name() {
			t.Errorf("%s: %v", f.Name(), err)
		}
	}
	if _, err := families.Named("toy"); !errors.Is(err, format.ErrUnsupported) {
		t.Errorf("a family that is not in the list: %v", err)
	}
}
