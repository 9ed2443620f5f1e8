// Package config finds out what a command works on: it parses sizes, reads the configuration files and chooses the pool.
//
// # Files
//
// The configuration is TOML, in /etc/skerry/config.toml and then $XDG_CONFIG_HOME/skerry/config.toml (else
// ~/.config/skerry/config.toml), which adds to the first and prevails over it. One that is named on the command line
// takes the place of both. Unknown keys are an error.
//
//	pool = "fast"                 # used without --pool and SKERRY_POOL: a name from below, a path or a URL
//
//	[pools.fast]
//	url = "file:///srv/fast"
//	trash = "168h"                # rm keeps volumes restorable for that time; without it they are gone
//
// # Pools
//
// A pool is given as a URL (file:///srv/vms), as a path (it has a slash in it) or by its name. Without any, it is
// the default local pool: /var/lib/skerry for root, $XDG_DATA_HOME/skerry (else ~/.local/share/skerry) for others.
package config
