# `make help` lists the targets; each is one plain command.

# The newest tag, or the version being worked on and its commit.
TAG := $(patsubst v%,%,$(shell git describe --tags --match 'v[0-9]*' --dirty 2>/dev/null))
COMMIT := $(shell git describe --always --exclude '*' --dirty 2>/dev/null)
VERSION := $(or $(TAG),0.9.0-dev$(addprefix +,$(COMMIT)))
LDFLAGS := -s -w -X main.version=$(VERSION)
BIN := bin
# Family of the server of make demo: mariadb or mysql.
SERVER := mariadb
GOBUILD := CGO_ENABLED=0 go build -trimpath -ldflags "$(LDFLAGS)"

# Real servers run in the tests of many packages: two packages at a time, so
# that a small machine serves them all in time.
TEST := go test -p 2 -timeout 45m

# What runs in many goroutines. Left out are sweeps over damage, which take
# minutes under the race detector and start the same goroutines as the others,
# and further cases of the same recovery.
CONCURRENT := ./format ./extract ./redotail ./chunker ./server/... ./prepare ./internal/runserver ./internal/backup ./internal/mariadb/... ./internal/mysql/source ./internal/mysql/tail ./internal/innodb/...
RACE_SKIP := TestDamageSweep|TestSelectionOfDamagedArchive|TestErrorBelowTheEncryptionIsNotCalledDamage|TestCutSealedArchiveIsRefused|TestRun/damage|TestFeed/damage
RACE_SKIP := $(RACE_SKIP)|TestPeer/(16k,_crc32|4k|8k|32k|64k|two|undo|prepared)|TestPreparedByTheServer|TestFeed/not_used/(what|from|closed|nothing)|TestServerHangs
RACE_SKIP := $(RACE_SKIP)|TestRun/(killed|with_a_manifest)|^TestWithServer$$|^TestEncrypted$$|TestImportInEncryptedRedo

# End-to-end tests that run on all releases by themselves, or to which the server
# does not matter: exits, pipes, limits, texts, archives of no server.
ONCE := TestRestoredCopyFollowsSource|TestOpenAlters|TestCopiesOfLoadedReplicas|TestCopyOfAReplica|TestCopyTakenWhileInner|TestFilePosition|TestWhatIsNewIn118|TestNewerServers
ONCE := $(ONCE)|TestExec|TestDigest|TestScripts|TestManual|TestMessages|TestProgress|TestNamesThat|TestNamesDuring|TestOnly|TestFailures|TestPassword|TestIgnored|TestSignal|TestStandard
ONCE := $(ONCE)|TestReceiver|TestSender|TestFuzz|TestReleased|TestManyTiny|TestFewOpen|TestDiskTooSmall|TestCrash|TestKilledAtRandom|TestExtractAs|TestFilesOfRoot
ONCE := $(ONCE)|TestFault(SystemCall|Receiver|Limits|SlowPipe|Stalled|Spool|RedoWithout|Stopped)|TestRandomAccess|TestMapped|TestNoReplica|TestGalera

.PHONY: help setup build cross demo test test-e2e test-e2e-newest test-others test-mysql race fuzz bench lint vuln check repeat peer peer-mysql replicas storm storm-mysql storm-inner storm-peer faults soak fuzz-long

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

setup: ## install what a fresh Debian machine lacks for demo, test and bench
	scripts/setup.sh

build: ## bin/xbsend and bin/xbstream, static
	$(GOBUILD) -o $(BIN)/ ./cmd/xbsend ./cmd/xbstream

cross: ## both for linux/arm64, xbstream for darwin and windows
	GOOS=linux GOARCH=arm64 $(GOBUILD) -o bin/linux-arm64/ ./cmd/xbsend ./cmd/xbstream
	GOOS=darwin GOARCH=arm64 $(GOBUILD) -o bin/darwin-arm64/ ./cmd/xbstream
	GOOS=windows GOARCH=amd64 $(GOBUILD) -o bin/windows-amd64/ ./cmd/xbstream

demo: setup build ## backup of a server under load, restored, attached as a replica, compared (SERVER=mysql: of MySQL)
	go run ./e2e/demo -bin bin -server $(SERVER)

# Half of the time is that of the end-to-end tests, which mostly wait for servers.
test: setup build ## all tests; those between real servers on every release
	$(MAKE) --jobs=4 test-e2e test-e2e-newest test-others test-mysql

test-e2e:
	$(TEST) -skip MySQL ./e2e

test-mysql:
	$(TEST) -run MySQL ./e2e

test-others:
	$(TEST) -p 1 $$(go list ./... | grep -v '/e2e$$')

test-e2e-newest:
	XB_RELEASE=mariadb-11.8 $(TEST) -skip '$(ONCE)|MySQL' ./e2e

race: setup ## the concurrent packages under the race detector
	$(TEST) -race -skip '$(RACE_SKIP)' $(CONCURRENT)

fuzz: ## every fuzz target for a while, readers of archives for longer
	scripts/fuzz.sh

fuzz-long: ## every fuzz target for ten minutes
	FUZZTIME=10m scripts/fuzz.sh

bench: setup build ## beside mariabackup, as Markdown
	go run ./bench -bin bin

lint: ## vet, staticcheck and the import rule
	go vet ./...
	go vet -tags xbtest ./cmd/xbsend
	go tool staticcheck ./...
	go tool depguard ./...

vuln: ## known vulnerabilities in what the binaries call
	scripts/vuln.sh

check: ## what CI runs
	.ci/run

repeat: setup build ## the main test 20 times
	XB_REPEAT=20 go test ./e2e -run TestRestoredCopyFollowsSource -count=1 -timeout 3h -v

peer: setup ## recovery compared with mariabackup's, page by page, over 200 000 pages
	XB_PEER_PAGES=200000 go test -timeout 90m -count=1 -run TestPeer -v ./prepare

peer-mysql: setup build ## the same, with mysqld's own recovery
	XB_PEER_PAGES=200000 go test -timeout 3h -count=1 -run TestMySQLPeer -v ./e2e

replicas: setup build ## 112 copies of loaded replicas of every kind, XB_REPEAT times
	XB_REPEAT=$(or $(XB_REPEAT),1) go test ./e2e -run TestCopiesOfLoadedReplicas -count=1 -timeout 6h -v

storm: storm-inner ## 105 backups in storms of DDL of seven kinds, and storm-inner
	XB_REPEAT=15 go test ./e2e -run TestCopyTakenInAStormOfDDL -count=1 -timeout 3h -v

storm-mysql: setup build ## XB_REPEAT backups of MySQL in storms of DDL, 100 by default
	XB_REPEAT=$(or $(XB_REPEAT),100) go test ./e2e -run TestMySQLCopyTakenInAStormOfDDL -count=1 -parallel 2 -timeout 12h -v

XB_STORM_ROUNDS ?= 200

storm-inner: setup build ## XB_STORM_ROUNDS backups each in storms of ALTERs cut short and of FULLTEXT
	XB_STORM_ROUNDS=$(XB_STORM_ROUNDS) go test ./e2e -run TestCopyTakenWhileInnerFilesComeAndGo -count=1 -timeout 6h -v

storm-peer: setup build ## mariabackup in the same storm, and how many of its copies are broken
	-XB_STORM_PEER=8 go test ./e2e -run TestCopyTakenInAStormOfDDL -count=1 -timeout 1h -v

faults: setup build ## every fault many times over, and a tally (an hour and a half)
	XB_FAULTS=1 go test ./e2e -run '^Test(Fault|Killed)' -count=1 -timeout 4h -v

XB_SOAK ?= 10m

soak: setup build ## backups under random loads, flags and faults for XB_SOAK, 10m or hours
	go run ./e2e/soak -bin bin -for $(XB_SOAK) $(if $(XB_SEED),-seed $(XB_SEED))
