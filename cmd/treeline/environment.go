package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// A flag can be set by an environment variable: TREELINE_ and the flag's name in upper case with underscores,
// so TREELINE_RETRY_FOR for --retry-for. The command line wins over the environment.

// fromEnvironment is the annotation of a flag whose value came from its environment variable.
const fromEnvironment = "treeline_environment"

// commandLineOnly is the annotation of a flag that no variable sets.
const commandLineOnly = "treeline_command_line_only"

// environmentName returns the name of the variable that sets the flag f, or "" for those that are for the command line only, and for
// the flags that cobra adds, which ask for text and set nothing.
func environmentName(f *pflag.Flag) string {
	if f.Name == "help" || f.Name == "version" || f.Annotations[commandLineOnly] != nil {
		return ""
	}
	return "TREELINE_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
}

// setFlagsFromEnvironment sets the flags of cmd that the command line didn't. A variable that is set to nothing is
// taken as not set.
func setFlagsFromEnvironment(cmd *cobra.Command) error {
	var err error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		name := environmentName(f)
		if err != nil || name == "" || f.Changed {
			return
		}
		value := os.Getenv(name)
		if value == "" {
			return
		}
		if cmd.Flags().Set(f.Name, value) != nil {
			// pflag's own message quotes the value, which may be a secret.
			err = fmt.Errorf("environment variable %s: not a value of type %s for --%s", name, f.Value.Type(), f.Name)
			return
		}
		err = cmd.Flags().SetAnnotation(f.Name, fromEnvironment, []string{name})
	})
	return err
}

// onCommandLine reports whether the command line set the named flag.
func onCommandLine(flags *pflag.FlagSet, name string) bool {
	f := flags.Lookup(name)
	return f.Changed && f.Annotations[fromEnvironment] == nil
}

// describeEnvironment names, in the help of cmd and of every command below it, the variable of each flag.
func describeEnvironment(cmd *cobra.Command) {
	describe := func(f *pflag.Flag) {
		if name := environmentName(f); name != "" {
			f.Usage += " [$" + name + "]"
		}
	}
	// A command's own flags only: those of its parents are described where they are made.
	cmd.LocalNonPersistentFlags().VisitAll(describe)
	cmd.PersistentFlags().VisitAll(describe)
	for _, child := range cmd.Commands() {
		describeEnvironment(child)
	}
}
