package source

// Strange makes an engine that is at hand one of the strangers, until the
// returned function is called: the real ones are in no package of the tests.
func Strange(engine string) func() {
	old := strangers
	strangers = []string{engine}
	return func() { strangers = old }
}

// CommittedPosition is committedPosition.
var CommittedPosition = committedPosition

// Unsettled is unsettled.
var Unsettled = unsettled
