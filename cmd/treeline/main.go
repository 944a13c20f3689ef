// Command treeline is Treeline in one binary: the server, the tools that check what a server says, and a client
// for scripts and people.
//
// Each command has a file of its own, named for it, whose new…Cmd function builds it. A command returns an error;
// it never prints one and never exits. What an error means to the caller's shell is decided in exitCode alone.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unicode"

	"github.com/spf13/cobra"
)

// Exit codes, of every command. A command that only does things knows the first two; one that verifies uses all.
// Code 2 is left to shells and to the Go runtime, which exits with it when it panics.
const (
	exitOK         = 0 // done; all checked
	exitFailure    = 1 // could not run, or failed
	exitUnverified = 3 // not verifiable: no pinned key signed it, quorum unmet, unknown version, content not shown
	exitInvalid    = 4 // malformed, bad signature, hash or proof, missing rows
	exitDiverged   = 5 // two signed histories, or a store behind its fence
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks the command to finish; from then on a second one ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program: it executes the command that args name and returns the exit code. Its only other
// inputs are the environment (see environment.go) and the files that the flags name.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRootCmd()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err != nil {
		printError(stderr, err)
	}
	return exitCode(err)
}

// newRootCmd returns the command treeline with all its commands.
func newRootCmd() *cobra.Command {
	root := &cobra.Command{
		Use:   "treeline",
		Short: "A verifiable audit log",
		Long: "Treeline keeps audit logs that an outsider can check: every event is a leaf of a Merkle tree and a link of\n" +
			"a hash chain, and an auditor holds a file that proves an event offline.",
		Version:           readBuild().String(),
		SilenceErrors:     true, // run prints them
		SilenceUsage:      true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return setFlagsFromEnvironment(cmd) },
	}
	root.SetVersionTemplate("treeline {{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return withHint(err, "see "+cmd.CommandPath()+" --help")
	})
	root.AddCommand(
		newAccessCmd(),
		newAppendCmd(),
		newArchiveCmd(),
		newAuditCmd(),
		newBenchCmd(),
		newCheckCmd(),
		newEraseCmd(),
		newErasureCmd(),
		newExportCmd(),
		newFenceCmd(),
		newMigrateCmd(),
		newFsckCmd(),
		newHoldCmd(),
		newKeyCmd(),
		newLogCmd(),
		newPolicyCmd(),
		newProofCmd(),
		newReindexCmd(),
		newRetentionCmd(),
		newSearchCmd(),
		newServeCmd(),
		newTailCmd(),
		newVerifyCmd(),
		newVersionCmd(),
		newWitnessCmd(),
	)
	describeEnvironment(root)
	return root
}

// exitCode returns the process's exit code for what a command returned. It is the one place where errors become
// exit codes: an error that has a method ExitCode chooses its own, any other means that the command could not do
// what it was asked to.
func exitCode(err error) int {
	var coded interface{ ExitCode() int }
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &coded):
		return coded.ExitCode()
	default:
		return exitFailure
	}
}

// hintedError is an error with what its reader can do about it.
type hintedError struct {
	err  error
	hint string
}

func (e *hintedError) Error() string { return e.err.Error() }
func (e *hintedError) Unwrap() error { return e.err }

// withHint returns err with a hint of what to do next, which printError puts at the end of the line. The hint
// nearest to the command replaces those further inside, since it knows more about what the caller wanted.
func withHint(err error, hint string) error { return &hintedError{err, hint} }

// printError writes err to w as one line: "treeline: what failed: why; what to do next". An error that lists
// several faults of the input has them on lines of their own, indented, after the first. Texts of other machines
// may be inside, so whatever could drive a terminal is made harmless.
func printError(w io.Writer, err error) {
	line, rest, _ := strings.Cut(err.Error(), "\n")
	var hinted *hintedError
	if errors.As(err, &hinted) {
		line += "; " + hinted.hint
	}
	if rest != "" {
		line += "\n" + rest
	}
	fmt.Fprintf(w, "treeline: %s\n", printable(strings.TrimSpace(line), "\n\t"))
}

// printable returns s with every character that is not printable, and is not in keep, replaced by its Go escape.
func printable(s, keep string) string {
	ok := func(r rune) bool { return unicode.IsPrint(r) || strings.ContainsRune(keep, r) }
	if strings.IndexFunc(s, func(r rune) bool { return !ok(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if ok(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "\\u%04x", r)
		}
	}
	return b.String()
}

// arguments returns the check that a command gets between low and high arguments; usage names them as its
// synopsis does.
func arguments(low, high int, usage string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= low && len(args) <= high {
			return nil
		}
		err := fmt.Errorf("%s: got %d arguments, want %s", cmd.CommandPath(), len(args), usage)
		return withHint(err, "see "+cmd.CommandPath()+" --help")
	}
}

// newGroupCmd returns a command that only holds the given ones.
func newGroupCmd(name, short string, commands ...*cobra.Command) *cobra.Command {
	group := &cobra.Command{
		Use:   name,
		Short: short,
		Args:  cobra.NoArgs, // an unknown name below the group is an error, not a request for help
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	group.AddCommand(commands...)
	return group
}
