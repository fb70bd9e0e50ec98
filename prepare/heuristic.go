package prepare

import (
	"context"
	"fmt"
	"regexp"
	"strconv"

	"github.com/xbstream/xbstream/internal/backupdir"
	"github.com/xbstream/xbstream/internal/runserver"
)

// preparedError: a server did not start because it found transactions that the
// source had prepared by itself. What is encrypted, only a server can change.
type preparedError struct{ transactions int }

func (e *preparedError) Error() string {
	return fmt.Sprintf("%d transactions that the source had prepared itself are still prepared", e.transactions)
}

// foundPrepared is what the server says then (MariaDB sql/handler.cc, ha_recover),
// in English whatever its lc_messages is. Those of XA PREPARE do not count.
var foundPrepared = regexp.MustCompile(`\[ERROR\] Found (\d+) prepared transactions! `)

// preparedIn returns a *preparedError if that is why the server ended.
func preparedIn(s *runserver.Server) *preparedError {
	text, err := s.Log()
	if err != nil {
		return nil // LastWords has nothing to say either
	}
	m := foundPrepared.FindSubmatch(text)
	if m == nil {
		return nil
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		return nil
	}
	return &preparedError{n}
}

// rollBackWithServer runs the server once to roll back the transactions that the
// source had prepared by itself. It leaves those of XA PREPARE prepared (tried
// with 10.11.19 and 11.8.9). It is asked for only when a server has found such
// transactions: 11.8 ends by itself after it, with an error, and 10.11 without a
// binary log goes on and serves. The next start shows whether it worked.
func rollBackWithServer(ctx context.Context, runner *runserver.Runner, state *backupdir.State, opt Options, transactions int) error {
	// Before: the server may be killed when it has done so.
	if err := state.NoteRolledBack(runner.Dir, transactions); err != nil {
		return err
	}
	opt.Log.Info("the server rolls back transactions that the source had prepared itself and not committed", "transactions", transactions)
	opt.ServerArgs = append(opt.ServerArgs[:len(opt.ServerArgs):len(opt.ServerArgs)], "--tc-heuristic-recover=ROLLBACK")
	s, err := startRecovery(runner, state, opt)
	if err != nil {
		return err
	}
	err = awaitRecovery(ctx, s, state, opt.ServerWait, nil)
	switch {
	case err == nil:
		err = s.Stop(true)
	case s.Ended():
		opt.Log.Debug("server ended after the rollback" + s.LastWords())
		return nil
	default:
		_ = s.Stop(false) // says that the server was killed
	}
	if err != nil {
		return fmt.Errorf("%w: roll back prepared transactions: %w%s", ErrServer, err, s.LastWords())
	}
	return nil
}
