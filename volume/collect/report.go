package collect

// Kind says how bad a [Problem] is.
type Kind string

// The kinds of problems.
const (
	Damage  Kind = "damage"  // something is missing or is not what was written
	Leak    Kind = "leak"    // space that nothing reaches; gc gives it back
	Stale   Kind = "stale"   // left by a process that died; the next open or gc deals with it
	Pending Kind = "pending" // interrupted, and kept for a time to go on with; no problem of the pool's
)

// Problem is something that Check found.
type Problem struct {
	Kind   Kind
	Volume string // name, or id if it has none; "": the pool
	Text   string // what is wrong with which object, and the next step
}

// CheckOptions say what is checked.
type CheckOptions struct {
	Volume string // only this volume; "": all of the pool
}

// CheckReport is what Check found.
type CheckReport struct {
	Volumes  int // live volumes, and volumes in the trash, looked at
	Objects  int64
	Bytes    int64 // space that these take
	Problems []Problem
	Skipped  []Skipped // volumes that kept changing, and those whose leaks are not known since a living process holds them

	LeakedObjects, LeakedBytes int64
	Unnamed                    int // volumes and name records that do not count
	Snapshots                  int // snapshots that a collection would remove
}

// Damaged reports whether anything is damaged.
func (r *CheckReport) Damaged() bool {
	for _, p := range r.Problems {
		if p.Kind == Damage {
			return true
		}
	}
	return false
}
