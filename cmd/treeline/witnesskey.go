package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/treeline-log/treeline/checkpoint"
)

func newWitnessKeyCmd() *cobra.Command {
	var o witnessState
	var mldsa bool
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Print the witness's verifier keys",
		Long: `Key prints the verifier keys that the witness cosigns with: the one of Ed25519 and then, with --mldsa, the one of ML-DSA-44. Give
--mldsa here if the witness runs with it: nothing is cosigned with that key otherwise, and no policy should count on it.`,
		Args: arguments(0, 0, "none"),
	}
	o.register(cmd.Flags())
	o.registerSeed(cmd.Flags())
	cmd.Flags().BoolVar(&mldsa, "mldsa", false, "the witness runs with --mldsa: print that key, too")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		state, err := o.openBeside(cmd.Context(), false)
		if err != nil {
			return err
		}
		defer state.Close()
		is, err := state.Identity(cmd.Context())
		if err != nil {
			return err
		}
		if is == "" {
			return withHint(errors.New("the witness has no key yet"), "start it once: treeline witness --name NAME")
		}
		seed, err := checkpoint.LoadSeed(o.seedPath())
		if errors.Is(err, os.ErrNotExist) {
			return withHint(err, "name the witness's seed with --seed-file")
		}
		if err != nil {
			return err
		}
		name, _, _ := strings.Cut(is, "+")
		cosigners, err := deriveCosigners(seed, name, mldsa)
		if err != nil {
			return err
		}
		if vkey := cosigners[0].VKey(); vkey != is {
			return fmt.Errorf("the seed in %s isn't that of the witness %s", o.seedPath(), is)
		}
		for _, c := range cosigners {
			fmt.Fprintln(cmd.OutOrStdout(), c.VKey())
		}
		return nil
	}
	return cmd
}
