package backup

import (
	"context"
)

// pauseReplication stops the SQL threads of a replica if that is wanted.
func (p *phases) pauseReplication(ctx context.Context) (err error) {
	if !p.Pause {
		return nil
	}
	p.resume, err = p.source.PauseReplication(ctx, p.PauseTimeout)
	if err == nil && p.resume == nil {
		p.Log.Warn("no replication is running, --safe-slave-backup does nothing")
	}
	return err
}

// resumeReplication starts what pauseReplication stopped.
func (p *phases) resumeReplication(ctx context.Context) error {
	if p.resume == nil {
		return nil
	}
	resume := p.resume
	p.resume = nil
	return resume(ctx)
}

// replication reads, under the lock, what is asked for of a replica and of a
// node of a cluster.
func (p *phases) replication(ctx context.Context) (err error) {
	if p.SlaveInfo {
		if err := p.locks.SettleReplication(ctx); err != nil {
			return err
		}
	}
	if p.GaleraInfo {
		p.galera, err = p.locks.Galera(ctx)
	}
	return err
}

// warnReplication says what was asked for and is not there.
func (p *phases) warnReplication() {
	if p.SlaveInfo && len(p.pos.Replication) == 0 {
		p.Log.Warn("the server is no replica, --slave-info records nothing")
	}
	if p.SlaveInfo && p.pos.ReplicatedXA && !p.Pause {
		p.Log.Warn("the replica has run XA statements, and the server notes their position separately; if one was running during the backup, the copy stops with error 1397 or 1440 when it replicates; use --safe-slave-backup")
	}
	if p.GaleraInfo && p.galera == nil {
		p.Log.Warn("the server is no node of a Galera cluster, --galera-info records nothing")
	}
}
