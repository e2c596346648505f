package daemon

type metricsChange struct{}

func (m *metricsChange) commit() {}

func (d *daemon) prepareMetrics(next *config) (*metricsChange, error) { return &metricsChange{}, nil }

// applyRest puts in force what has no state of its own.
func (d *daemon) applyRest(old, next *config) {}
