package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/xbstream/xbstream/internal/servertest"
)

// pipeline is a row of commands, each reading what the one before writes. Where
// the last one prints a number, that is the size of what was made.
type pipeline [][]string

// steps are pipelines run one after the other, measured as one.
type steps []pipeline

func (p pipeline) then(more ...pipeline) steps { return append(steps{p}, more...) }

// cost is what one run took.
type cost struct {
	wall, cpu time.Duration
	rss       int64 // of the largest process, in bytes
	size      int64 // of what was made, in bytes, 0 if nobody counted
}

const header = `| work | | peer | ours | ratio |
| --- | --- | ---: | ---: | ---: |`

// compare runs peer and ours in turn, one warm-up and c.runs counted, and prints
// the medians. fresh is called before each run and not counted.
func compare(ctx context.Context, c config, name string, fresh func() error, peer, ours any) error {
	var costs [2][]cost
	for n := range c.runs + 1 {
		for i, what := range []any{peer, ours} {
			if fresh != nil {
				if err := fresh(); err != nil {
					return err
				}
			}
			got, err := measure(ctx, what)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if n > 0 {
				costs[i] = append(costs[i], got)
			}
		}
	}
	report(name, costs)
	return nil
}

func report(name string, costs [2][]cost) {
	row := func(what string, value func(cost) float64, show func(float64) string) {
		p, o := median(costs[0], value), median(costs[1], value)
		fmt.Printf("| %s | %s | %s | %s | **%.2f** |\n", name, what, show(p), show(o), o/p)
	}
	seconds := func(v float64) string { return fmt.Sprintf("%.2f s", v) }
	row("wall", func(c cost) float64 { return c.wall.Seconds() }, seconds)
	row("CPU", func(c cost) float64 { return c.cpu.Seconds() }, seconds)
	if costs[0][0].size > 0 {
		row("size", func(c cost) float64 { return float64(c.size) }, func(v float64) string { return humanize.IBytes(uint64(v)) })
	}
	row("peak RSS", func(c cost) float64 { return float64(c.rss) }, func(v float64) string { return humanize.IBytes(uint64(v)) })
}

func median(costs []cost, value func(cost) float64) float64 {
	var v []float64
	for _, c := range costs {
		v = append(v, value(c))
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// measure runs a pipeline, steps, or what a server does.
func measure(ctx context.Context, what any) (cost, error) {
	if w, ok := what.(inServer); ok {
		return w.run(ctx)
	}
	all, ok := what.(steps)
	if !ok {
		all = steps{what.(pipeline)}
	}
	var sum cost
	for _, p := range all {
		c, err := p.run(ctx)
		if err != nil {
			return cost{}, err
		}
		sum.wall += c.wall
		sum.cpu += c.cpu
		sum.rss = max(sum.rss, c.rss)
		sum.size += c.size
	}
	return sum, nil
}

// run runs the pipeline once.
func (p pipeline) run(ctx context.Context) (cost, error) {
	cmds := make([]*exec.Cmd, len(p))
	logs := make([]strings.Builder, len(p))
	var open []io.Closer
	for i, args := range p {
		cmds[i] = exec.CommandContext(ctx, args[0], args[1:]...)
		cmds[i].Stderr = &logs[i]
		cmds[i].SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if i > 0 {
			r, w, err := os.Pipe()
			if err != nil {
				return cost{}, err
			}
			cmds[i-1].Stdout, cmds[i].Stdin = w, r
			open = append(open, r, w)
		}
	}
	var last strings.Builder
	cmds[len(cmds)-1].Stdout = &last
	start := time.Now()
	for _, c := range cmds {
		if err := c.Start(); err != nil {
			return cost{}, err
		}
	}
	for _, o := range open {
		o.Close()
	}
	var got cost
	stop := watchRSS(cmds, &got.rss)
	for i, c := range cmds {
		if err := c.Wait(); err != nil {
			stop()
			return cost{}, fmt.Errorf("%s: %w: %s", strings.Join(p[i], " "), err, tail(logs[i].String()))
		}
		got.cpu += c.ProcessState.UserTime() + c.ProcessState.SystemTime()
	}
	stop()
	got.wall = time.Since(start)
	got.size, _ = strconv.ParseInt(strings.TrimSpace(last.String()), 10, 64)
	return got, nil
}

// watchRSS keeps in peak the largest resident size that any of the processes
// had, until the returned function is called. What wait4 says is of no use here:
// it counts the memory of the process that forked.
func watchRSS(cmds []*exec.Cmd, peak *int64) (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-end:
				return
			case <-tick.C:
			}
			for _, c := range cmds {
				*peak = max(*peak, highWater(c.Process.Pid))
			}
		}
	}()
	return func() {
		close(end)
		<-ended
	}
}

// highWater is the peak resident size of a process so far, in bytes.
func highWater(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	var kb int64
	fmt.Sscan(rest, &kb)
	return kb << 10
}

// plain runs a command that is not measured.
func plain(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, tail(string(out)))
	}
	return nil
}

func tail(s string) string { return s[max(0, len(s)-600):] }

func sizeOf(path string) string {
	st, err := os.Stat(path)
	if err != nil {
		return err.Error()
	}
	return humanize.IBytes(uint64(st.Size()))
}

// fillRedo changes rows all over the tables until the server has written that
// many bytes of redo since its checkpoint.
func fillRedo(ctx context.Context, s *servertest.Server, bytes int64) error {
	load, err := s.StartLoad(ctx, servertest.LoadOptions{Writers: 4, MaxRowsPerTable: 2000})
	if err != nil {
		return err
	}
	defer load.Stop()
	question := "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'INNODB_CHECKPOINT_AGE'"
	if s.Release().MySQL() {
		question = "SELECT CAST(STORAGE_ENGINES->>'$.InnoDB.LSN' - STORAGE_ENGINES->>'$.InnoDB.LSN_checkpoint' AS SIGNED) FROM performance_schema.log_status"
	}
	for deadline := time.Now().Add(10 * time.Minute); time.Now().Before(deadline); {
		age, err := s.String(ctx, question)
		if err != nil {
			return err
		}
		var n int64
		if _, err := fmt.Sscan(age, &n); err != nil {
			return err
		}
		if n >= bytes {
			_, err := load.Stop()
			return err
		}
		if err := s.Exec(ctx, "UPDATE `load`.bulk_0 SET a = a + 1, b = UUID() WHERE id % 7 = "+fmt.Sprint(time.Now().UnixNano()%7)); err != nil {
			return err
		}
	}
	return fmt.Errorf("redo did not grow to %d bytes in ten minutes", bytes)
}
