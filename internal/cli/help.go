package cli

import (
	"flag"
	"fmt"
	"strings"
	"text/tabwriter"
)

// help is `keyfob help [COMMAND]`.
func (a *app) help(in invocation) int {
	if len(in.args) == 0 {
		return a.printHelp(nil)
	}
	all := commands()
	name := strings.Join(in.args, " ")
	if c := find(all, name); c != nil {
		code := a.printHelp(c)
		for _, second := range within(all, name) {
			code = max(code, a.print("\nSee also: keyfob help "+name+" "+second+"\n"))
		}
		return code
	}
	if len(in.args) == 1 && len(within(all, name)) > 0 {
		for _, second := range within(all, name) {
			a.printHelp(find(all, name+" "+second))
		}
		return exitDone
	}
	word := ""
	if len(in.args) == 2 {
		word = in.args[0]
	}
	return a.fail("explain", unknownCommand(all, word, in.args[len(in.args)-1]))
}

// printHelp explains cmd, or nil for all of keyfob, on standard output.
func (a *app) printHelp(cmd *command) int {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 2, 4, 2, ' ', 0)
	if cmd == nil {
		fmt.Fprint(w, "keyfob hands AWS credentials to local programs and keeps them fresh.\n\nUsage: keyfob COMMAND [P] [flags]\n\nCommands:\n")
		for _, c := range commands() {
			if !c.hidden {
				fmt.Fprintf(w, "  %s\t%s\n", strings.TrimSpace(c.name+" "+c.args), c.short)
			}
		}
		fmt.Fprint(w, "\nP is a profile; without it AWS_PROFILE, then the profile of config.toml, then default.\n\nGeneral flags:\n")
		printFlags(w, a.flagSet(nil), nil)
	} else {
		fmt.Fprintf(w, "%s.\n", strings.ToUpper(cmd.short[:1])+cmd.short[1:])
		if cmd.long != "" {
			fmt.Fprintf(w, "%s\n", cmd.long)
		}
		fmt.Fprintf(w, "\nUsage: %s [flags]\n\n", strings.TrimSpace("keyfob "+cmd.name+" "+cmd.args))
		general := a.flagSet(nil)
		if cmd.flags != nil {
			fmt.Fprint(w, "Flags:\n")
			printFlags(w, a.flagSet(cmd), general)
			fmt.Fprint(w, "\n")
		}
		fmt.Fprint(w, "General flags:\n")
		printFlags(w, general, nil)
	}
	_ = w.Flush()
	if _, err := a.Stdout.WriteString(b.String()); err != nil {
		return a.fail("write the help", err)
	}
	return exitDone
}

func printFlags(w *tabwriter.Writer, fs, without *flag.FlagSet) {
	fs.VisitAll(func(f *flag.Flag) {
		if without != nil && without.Lookup(f.Name) != nil {
			return
		}
		value, text := flag.UnquoteUsage(f)
		fmt.Fprintf(w, "  %s\t%s\n", strings.TrimSpace("--"+f.Name+" "+value), text)
	})
}
