package main

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"skerry/chunk"
	"skerry/cmd/internal/config"
	"skerry/drivers"
	"skerry/volume/catalog"
	"skerry/volume/transfer"
)

func (a *app) completionCommand() *cobra.Command {
	shells := []string{"bash", "fish", "zsh"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print completion for a shell",
		Long: `Print a script with which a shell completes commands, flags, and the names of volumes, snapshots and pools. Names are those of the
pool that the line says; that takes no lease and makes no pool, and is given up after a second.`,
		Example: `  source <(skerry completion bash)
  skerry completion bash > /etc/bash_completion.d/skerry
  skerry completion zsh > "${fpath[1]}/_skerry"
  skerry completion fish > ~/.config/fish/completions/skerry.fish`,
		Args: cobra.MatchAll(cobra.ExactArgs(1), func(_ *cobra.Command, args []string) error {
			if !slices.Contains(shells, args[0]) {
				return usage("completion for %q is not there, want one of %s", args[0], strings.Join(shells, ", "))
			}
			return nil
		}),
		ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch root := cmd.Root(); args[0] {
			case "bash":
				_, err := io.WriteString(a.print.Out, bashCompletion)
				return err
			case "zsh":
				return root.GenZshCompletion(a.print.Out)
			default:
				return root.GenFishCompletion(a.print.Out, true)
			}
		},
	}
}

// bashCompletion asks the program, as the scripts do that cobra writes. That for bash needs a package that is not on every machine, and knows
// nothing of "@", at which bash splits words.
const bashCompletion = `# bash completion for skerry
_skerry() {
	local line=${COMP_LINE:0:COMP_POINT} words=() cur out directive c before=
	read -ra words <<<"$line"
	[[ $line == *[[:space:]] ]] && words+=("")
	cur=${words[-1]}
	COMPREPLY=()
	out=$("${words[0]/#\~/$HOME}" __completeNoDesc "${words[@]:1}" 2>/dev/null) || return
	directive=${out##*:}
	out=${out%:*}
	[[ $cur == -*=* ]] && cur=${cur#*=}
	if ((directive & 1)); then
		return
	fi
	if ((directive & 16)); then
		mapfile -t COMPREPLY < <(compgen -d -- "$cur")
		compopt -o filenames 2>/dev/null
		return
	fi
	((directive & 2)) && compopt -o nospace 2>/dev/null
	((directive & 4)) && compopt +o default 2>/dev/null
	# bash puts the answer in the place of what comes after the last character that splits words.
	[[ $cur == *[@:=]* ]] && before=${cur%"${cur##*[@:=]}"}
	while read -r c; do
		[[ -n $c && $c == "$cur"* ]] && COMPREPLY+=("${c#"$before"}")
	done <<<"$out"
}
complete -o default -F _skerry skerry
`

// complete makes all commands below c complete their arguments by what their usage calls them, and their flags by name. A command that says
// itself how it completes is left alone.
func (a *app) complete(c *cobra.Command) {
	for _, sub := range c.Commands() {
		a.complete(sub)
	}
	if c.ValidArgs == nil && c.ValidArgsFunction == nil && c.Runnable() {
		words := argumentWords(c.Use)
		c.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return a.completeArgument(cmd.Context(), words, args, typed)
		}
	}
	for name, values := range map[string]cobra.CompletionFunc{
		"pool":     a.completePool,
		"compress": fixed("none", string(transfer.Zlib), string(transfer.Zstd)),
		"format":   fixed(string(transfer.Raw), string(transfer.Qcow2)),
		"nbd":      fixed("unix:", "tcp:"),
		"size":     fixed(), "chunk-size": fixed(),
	} {
		if c.LocalNonPersistentFlags().Lookup(name) != nil || c.PersistentFlags().Lookup(name) != nil {
			// It fails for a command that has registered its own, which prevails.
			_ = c.RegisterFlagCompletionFunc(name, values)
		}
	}
}

// argumentWords returns what the usage line of a command calls its arguments: "NAME[@SNAP]", "FILE|-", "[NAME...]". The first argument
// of a command that makes what it names is NEW.
func argumentWords(use string) []string {
	f := strings.Fields(use)
	words := f[1:]
	if i := slices.IndexFunc(words, func(w string) bool { return strings.HasPrefix(strings.TrimLeft(w, "["), "-") }); i >= 0 {
		words = words[:i] // from here on flags
	}
	for i, w := range words {
		if f[0] == "create" || f[0] == "import" && w == "NAME" {
			words[i] = "NEW"
		} else if f[0] == "snapshot" {
			words[i] = "NAME@NEW"
		}
	}
	return words
}

// completeArgument completes an argument that comes after args.
func (a *app) completeArgument(ctx context.Context, words, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	n := len(args)
	if len(words) > 0 && strings.Contains(words[len(words)-1], "...") {
		n = min(n, len(words)-1)
	}
	if n >= len(words) {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	word := strings.NewReplacer("[", "", "]", "", "...", "").Replace(words[n])
	if strings.Contains(word, "DIR") {
		return nil, cobra.ShellCompDirectiveFilterDirs
	}
	if strings.Contains(word, "FILE") {
		return nil, cobra.ShellCompDirectiveDefault
	}
	var volumes, snapshots bool
	switch {
	case word == "POOL":
		return a.completePool(nil, nil, typed)
	case word == "NAME":
		volumes = true
	case strings.HasPrefix(word, "NAME@"):
		volumes, snapshots = strings.Contains(words[n], "["), word != "NAME@NEW"
	case word == "FROM":
		volumes, snapshots = true, true
	default:
		return nil, cobra.ShellCompDirectiveNoFileComp // a new name
	}
	ctx, cancel := context.WithTimeout(ctx, completionTime)
	defer cancel()
	done := make(chan []cobra.Completion, 1)
	// Where the storage hangs this is left behind: the program ends with the answer.
	go func() { done <- a.names(ctx, typed, volumes, snapshots) }()
	select {
	case names := <-done:
		directive := cobra.ShellCompDirectiveNoFileComp
		if len(names) > 0 && strings.HasSuffix(names[0], "@") {
			directive |= cobra.ShellCompDirectiveNoSpace
		}
		return names, directive
	case <-ctx.Done():
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

// completionTime bounds how long a shell waits.
const completionTime = time.Second

// names returns the names of volumes, or of the snapshots of the volume that is typed, as [POOL/]VOL[@SNAP]. Where only a snapshot
// will do, volumes end with the @ that comes next. What cannot be found out is left out.
func (a *app) names(ctx context.Context, typed string, volumes, snapshots bool) []cobra.Completion {
	prefix := typed[:strings.LastIndexByte(typed, '/')+1]
	if prefix != "" && a.pool == "" {
		a.pool = prefix[:len(prefix)-1]
	}
	where, err := a.choosePool()
	if err != nil {
		return nil
	}
	a.log = slog.New(slog.DiscardHandler)
	e, err := a.openEngine(where, false)
	if err != nil {
		return nil
	}
	defer e.Close() // only read
	p, err := catalog.Open(ctx, e, catalog.Options{})
	if err != nil {
		return nil
	}
	volume, _, at := strings.Cut(typed[len(prefix):], "@")
	var names []cobra.Completion
	switch {
	case at && snapshots:
		info, err := p.Info(ctx, volume)
		if err != nil {
			return nil
		}
		for _, s := range info.Snapshots {
			names = append(names, prefix+volume+"@"+s.Name)
		}
	case !at:
		// That a record counts is not asked: thousands are to be listed in time.
		err := p.Engine().Client(drivers.LaneMeta, 0, nil).List(ctx, chunk.NamesGroup, func(i drivers.Info) error {
			if name := i.Name[len(chunk.NamesGroup)+1:]; strings.HasPrefix(name, volume) && catalog.ValidName(name) {
				if !volumes {
					name += "@"
				}
				names = append(names, prefix+name)
			}
			return nil
		})
		if err != nil {
			return nil
		}
	}
	slices.Sort(names)
	return names
}

// completePool completes the name of a pool that is configured; else it is a directory.
func (a *app) completePool(_ *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	c, err := config.Load(a.configFile, a.env)
	if err != nil || strings.ContainsRune(typed, '/') {
		return nil, cobra.ShellCompDirectiveFilterDirs
	}
	var names []cobra.Completion
	for name := range c.Pools {
		if strings.HasPrefix(name, typed) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, cobra.ShellCompDirectiveFilterDirs
	}
	slices.Sort(names)
	return names, cobra.ShellCompDirectiveNoFileComp
}

func fixed(values ...string) cobra.CompletionFunc {
	directive := cobra.ShellCompDirectiveNoFileComp
	if len(values) > 0 && strings.HasSuffix(values[0], ":") {
		directive |= cobra.ShellCompDirectiveNoSpace
	}
	return cobra.FixedCompletions(values, directive)
}
