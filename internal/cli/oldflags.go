package cli

// Sentences that several flags share.
const (
	adviceIncremental = "there are no incremental backups yet; make a full one"
	adviceBackup      = "it belongs to making a backup: see xbsend --help"
	adviceRestore     = "it belongs to restoring: use xbstream -x --prepare -C DIR"
	advicePrepare     = "use xbstream -x --prepare -C DIR, or xbstream prepare DIR after extracting"
	adviceLocks       = "leave it out: xbsend blocks DDL only in the last phase; --lock-timeout and --lock-retries limit the waiting"
	adviceWorkers     = "use -j N"
	adviceSeal        = "use -r KEY or -R FILE with age or ssh public keys"
	adviceOpen        = "use -i FILE with the age or ssh private key; files that XtraBackup encrypted one by one need xbcrypt"
	adviceNoServer    = "leave it out: xbstream connects to no server"
	adviceKeys        = "encrypted tablespaces are recovered with xbstream prepare --with-server --server-option=OPTION DIR"
	adviceOptions     = "leave it out: all that prepare needs is in the archive"
)

// insteads say what takes the place of flags of mariabackup and XtraBackup,
// including those that one of our commands has and the other does not. A command
// is asked only for flags it does not have; "" means that nobody would try.
var insteads = map[string]struct{ send, stream string }{
	"backup":     {"leave it out: xbsend always makes a backup", "xbsend makes backups; xbstream restores them"},
	"stream":     {"leave it out: xbsend always writes one archive to standard output", "leave it out: xbstream finds out what it reads"},
	"target-dir": {"the archive goes to standard output: xbsend > FILE", "use -C DIR with extract; prepare takes the directory as its argument: xbstream prepare DIR"},
	"prepare":    {advicePrepare, advicePrepare},
	"apply-log":  {advicePrepare, advicePrepare},
	"apply-log-only": {
		"not needed: " + adviceIncremental, "not needed: prepare rolls nothing back, the server does that when it starts; use xbstream prepare DIR"},
	"redo-only":                   {adviceRestore, "not needed: prepare rolls nothing back, the server does that when it starts; use xbstream prepare DIR"},
	"copy-back":                   {adviceRestore, "not needed: use xbstream -x --prepare -C DIR with the data directory as DIR"},
	"move-back":                   {adviceRestore, "not needed: use xbstream -x --prepare -C DIR with the data directory as DIR"},
	"force-non-empty-directories": {"use xbstream -x --into-non-empty", "use xbstream -x --into-non-empty"},
	"decompress":                  {adviceRestore, "leave it out: xbstream decompresses by itself"},
	"decompress-threads":          {adviceRestore, adviceWorkers},
	"remove-original":             {adviceRestore, "leave it out: xbstream keeps no compressed files"},
	"decrypt":                     {"use xbstream -i FILE", adviceOpen},
	"use-memory":                  {"use xbstream prepare --memory SIZE DIR", "use --memory SIZE"},
	"export":                      {"use xbstream -x --prepare --export -C DIR", "use xbstream -x --prepare --export -C DIR"},

	"incremental":              {adviceIncremental, adviceIncremental},
	"incremental-basedir":      {adviceIncremental, adviceIncremental},
	"incremental-dir":          {adviceIncremental, adviceIncremental},
	"incremental-lsn":          {adviceIncremental, adviceIncremental},
	"incremental-force-scan":   {adviceIncremental, adviceIncremental},
	"incremental-history-name": {adviceIncremental, adviceIncremental},
	"incremental-history-uuid": {adviceIncremental, adviceIncremental},
	"page-tracking":            {adviceIncremental, adviceIncremental},

	"no-lock": {
		"there is none: without locks, tables and binary log position do not fit together; --lock-timeout and --lock-retries limit the waiting", adviceBackup},
	"lock-ddl":                  {adviceLocks, adviceBackup},
	"lock-ddl-per-table":        {adviceLocks, adviceBackup},
	"lock-ddl-timeout":          {"use --lock-timeout TIME", adviceBackup},
	"backup-locks":              {adviceLocks, adviceBackup},
	"no-backup-locks":           {adviceLocks, adviceBackup},
	"backup-lock-timeout":       {"use --lock-timeout TIME", adviceBackup},
	"backup-lock-retry-count":   {"use --lock-retries N", adviceBackup},
	"ftwrl-wait-timeout":        {"use --lock-timeout TIME and --lock-retries N", adviceBackup},
	"ftwrl-wait-threshold":      {"use --lock-timeout TIME and --lock-retries N", adviceBackup},
	"ftwrl-wait-query-type":     {"use --lock-timeout TIME and --lock-retries N", adviceBackup},
	"kill-long-queries-timeout": {"xbsend kills no queries; use --lock-timeout TIME and --lock-retries N, the error names the sessions in the way", adviceBackup},
	"kill-long-query-type":      {"xbsend kills no queries; use --lock-timeout TIME and --lock-retries N, the error names the sessions in the way", adviceBackup},

	"throttle":            {"use --rate SIZE, bytes per second, as 50M", adviceBackup},
	"compress-threads":    {adviceWorkers, adviceWorkers},
	"compress-chunk-size": {"leave it out", "leave it out"},
	"compress-zstd-level": {"use --compress=fast, default, better or best", "use xbstream create --compress=fast, default, better or best"},
	"encrypt":             {adviceSeal, adviceOpen},
	"encrypt-key":         {adviceSeal, adviceOpen},
	"encrypt-key-file":    {adviceSeal, adviceOpen},
	"encrypt-threads":     {adviceWorkers, adviceWorkers},
	"encrypt-chunk-size":  {"leave it out", "leave it out"},

	"rsync":                      {"leave it out: xbsend copies most files before it blocks DDL", adviceBackup},
	"extra-lsndir":               {"leave it out: xbstream info ARCHIVE shows LSNs and position", "leave it out: xbstream info ARCHIVE shows LSNs and position"},
	"history":                    {"leave it out: xbstream info ARCHIVE shows where a backup comes from", adviceBackup},
	"binlog-info":                {"leave it out: the position is always recorded; xbstream info shows it", adviceBackup},
	"no-timestamp":               {"leave it out: the archive goes to standard output", "leave it out"},
	"tmpdir":                     {"use --spool-dir DIR", "leave it out: xbstream works inside the target directory"},
	"open-files-limit":           {"use ulimit -n in the shell; few files are open at a time", "use ulimit -n in the shell; few files are open at a time"},
	"close-files":                {"leave it out: few files are open at a time", "leave it out"},
	"log-copy-interval":          {"leave it out: xbsend follows the redo log all the time", "leave it out"},
	"log-innodb-page-corruption": {"a damaged page always stops the backup; leave its table out with --tables-exclude", adviceBackup},
	"check-privileges":           {"use --dry-run", adviceBackup},
	"no-version-check":           {"leave it out: xbsend asks nobody for new versions", "leave it out"},
	"innobackupex":               {"leave it out", "leave it out"},
	"plugin-load":                {adviceKeys, adviceKeys},
	"plugin-dir":                 {adviceKeys, adviceKeys},
	"xtrabackup-plugin-dir":      {adviceKeys, adviceKeys},
	"keyring-file-data":          {adviceKeys, adviceKeys},

	"databases":             {"", "use xbstream -x --only GLOB"},
	"databases-file":        {"", "use xbstream -x --only GLOB"},
	"databases-exclude":     {"", "use xbstream -x --only GLOB"},
	"tables":                {"", "use xbstream -x --only db.table"},
	"tables-file":           {"", "use xbstream -x --only db.table"},
	"tables-exclude":        {"", "use xbstream -x --only GLOB"},
	"datadir":               {"", "use -C DIR"},
	"slave-info":            {"", adviceBackup},
	"safe-slave-backup":     {"", adviceBackup},
	"galera-info":           {"", adviceBackup},
	"rate":                  {"", adviceBackup},
	"dry-run":               {"", adviceBackup},
	"user":                  {"", adviceNoServer},
	"password":              {"", adviceNoServer},
	"host":                  {"", adviceNoServer},
	"port":                  {"", adviceNoServer},
	"socket":                {"", adviceNoServer},
	"defaults-file":         {"", adviceOptions},
	"defaults-extra-file":   {"", adviceOptions},
	"defaults-group":        {"", adviceOptions},
	"no-defaults":           {"", adviceOptions},
	"innodb-log-file-size":  {"leave it out: the server says it", adviceOptions},
	"innodb-data-file-path": {"leave it out: the server says it", adviceOptions},
	"innodb-buffer-pool-size": {
		"leave it out: xbsend has no buffer pool", "use --memory SIZE"},

	"identity":       {"xbstream -i FILE opens archives; xbsend encrypts to public keys: -r KEY", ""},
	"directory":      {"the archive goes to standard output; xbstream -x -C DIR restores it", ""},
	"only":           {"use --tables REGEXP or --databases LIST", ""},
	"chown":          {"use xbstream -x --chown USER:GROUP", ""},
	"into-non-empty": {"use xbstream -x --into-non-empty", ""},
	"memory":         {"use xbstream prepare --memory SIZE DIR", ""},
	"with-server":    {"use xbstream prepare --with-server DIR", ""},
}

func (t Tool) instead(name string) string {
	if t == Send {
		return insteads[name].send
	}
	return insteads[name].stream
}
