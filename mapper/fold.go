package mapper

import (
	"context"

	"skerry/mapper/journal"
)

// Fold reads the journals that the root names, all of them as one, and returns what of them counts on a host whose kernel
// has this boot id. durableWrites says that the storage's completed writes are durable. It writes nothing. lost reports
// whether what was not synced is thought to be lost.
func (r *Root) Fold(ctx context.Context, store journal.Store, boot [16]byte, durableWrites bool) (state *journal.State, lost bool, err error) {
	lost = r.Failed
	var sources []journal.Source
	for _, j := range r.Journals {
		lost = lost || j.Boot != boot
		sources = append(sources, journal.Source{Generation: j.Generation, Start: j.Start})
	}
	mode := journal.ProcessDied
	switch {
	case lost && durableWrites:
		mode = journal.PowerLostDurable
	case lost:
		mode = journal.PowerLost
	}
	state, err = journal.Fold(ctx, store, r.Volume, mode, sources...)
	return state, lost, err
}
