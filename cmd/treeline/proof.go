package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/treeline-log/treeline/checkpoint"
)

// proofHeader is the first line of a proof file (C2SP tlog-proof).
const proofHeader = "c2sp.org/tlog-proof@v1\n"

func isProof(data []byte) bool { return bytes.HasPrefix(data, []byte(proofHeader)) }

func newProofCmd() *cobra.Command {
	var log, output string
	var withhold []string
	var hub, asJSON bool
	cmd := &cobra.Command{
		Use:   "proof EVENT_ID",
		Short: "Save the proof file of an event",
		Long: `Proof saves the proof of an event as EVENT_ID.tlog-proof: the event, its place in the log, and a
signed checkpoint that covers it. It waits until there is such a checkpoint, for --retry-for
at most. The file is checked offline with: treeline verify FILE --vkey VKEY

Of a server with witnesses it has their cosignatures once these cover the event, as they do after treeline append --wait=witnessed.
Then it is checked with: treeline verify FILE --policy POLICY

With --hub it saves a hub proof as EVENT_ID.hub-proof, and waits until what witnesses have cosigned of the server's hub covers the
event. It is checked offline with: treeline verify FILE --vkey VKEY --policy HUB_POLICY`,
		Args: arguments(1, 1, "one EVENT_ID"),
	}
	client := addClientFlags(cmd)
	cmd.Flags().StringVar(&log, "log", "", "`NAME` of the log, for a key that isn't bound to one")
	cmd.Flags().StringVarP(&output, "output", "o", "", "`FILE` to save to, - for standard output (default EVENT_ID.tlog-proof)")
	cmd.Flags().StringArrayVar(&withhold, "withhold", nil, "`POINTER` of claims that the file doesn't show, such as /actor/email or /targets/*/name (repeatable)")
	cmd.Flags().BoolVar(&hub, "hub", false, "save a hub proof, which the witnesses of the server's hub stand behind")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id := args[0]
		ext, is, trust := ".tlog-proof", isProof, "--vkey VKEY"
		if hub {
			ext, is, trust = ".hub-proof", checkpoint.IsHubProof, "--vkey VKEY --policy HUB_POLICY"
		}
		if output == "" {
			// An id has no separator in any log; what has one must not choose where the file goes.
			if strings.ContainsAny(id, `/\`) {
				return fmt.Errorf("proof of %q: that is no id of an event", id)
			}
			output = id + ext
		}
		if asJSON && output == "-" {
			return withHint(errors.New("proof: --json and the proof both want standard output"), "save the proof to a file with -o FILE")
		}
		c, err := newClient(cmd, client)
		if err != nil {
			return err
		}
		query := url.Values{"wait": {"signed"}}
		if log != "" {
			query.Set("log", log)
		}
		if hub {
			query.Set("hub", "true")
		}
		for _, pointer := range withhold {
			query.Add("withhold", pointer)
		}
		proof, err := c.do(cmd.Context(), &request{
			method:     http.MethodGet,
			path:       "/v1/events/" + url.PathEscape(id) + "/proof",
			query:      query,
			repeatable: true,
		})
		if err != nil {
			return fmt.Errorf("proof of %s: %w", id, err)
		}
		if !is(proof) {
			return withHint(fmt.Errorf("proof of %s: what the server sent is not a proof file", id), "check that --server is a Treeline server")
		}
		if output == "-" {
			_, err := cmd.OutOrStdout().Write(proof)
			return err
		}
		if err := writeFile(output, proof); err != nil {
			return fmt.Errorf("save proof of %s: %w", id, err)
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), map[string]any{"id": id, "file": output, "bytes": len(proof)})
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "saved %s, %d bytes; check it with: treeline verify %[1]s %[3]s\n", output, len(proof), trust)
		return err
	}
	return cmd
}

// writeFile makes data the content of the named file, wholly or not at all.
func writeFile(name string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
