package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

func newKeyCmd() *cobra.Command {
	return newGroupCmd("key", "Create and list the keys of a server", newKeyCreateCmd(), newKeyListCmd())
}

// keyInfo is what a server tells of one of its keys.
type keyInfo struct {
	ID        string `json:"id"`
	Key       string `json:"key"` // the secret; only in the answer that creates it
	Role      string `json:"role"`
	Log       string `json:"log"` // "": of the whole server
	Name      string `json:"name"`
	CreatedAt string `json:"created_at"`
}

func newKeyCreateCmd() *cobra.Command {
	var role, log, name string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "create --role ROLE",
		Short: "Create a key and print it, this once",
		Long: `Create makes a new key. Only the key itself goes to standard output, and whatever else there is to
say to standard error, so $(treeline key create …) is the key. The server keeps no copy that could
be shown again.`,
		Example: `  export TREELINE_KEY=$(treeline key create --role writer --log default --name billing --key-file treeline-data/admin.key)`,
		Args:    arguments(0, 0, "none"),
	}
	client := addClientFlags(cmd)
	cmd.Flags().StringVar(&role, "role", "", "what the key may do: writer or reader of one log, or admin of the server")
	cmd.Flags().StringVar(&log, "log", "", "`NAME` of the log that a writer or reader is for")
	cmd.Flags().StringVar(&name, "name", "", "what the key is for, in your own words")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the server's answer as JSON, the key inside")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch role {
		case "writer", "reader", "admin":
		case "":
			return withHint(errors.New("key create: no role is given"), "say what the key may do by --role writer, reader or admin")
		default:
			return fmt.Errorf("--role %q: want writer, reader or admin", role)
		}
		c, err := newClient(cmd, client)
		if err != nil {
			return err
		}
		answer, err := c.postJSON(cmd.Context(), "/v1/keys", struct {
			Role string `json:"role"`
			Log  string `json:"log,omitempty"`
			Name string `json:"name,omitempty"`
		}{role, log, name})
		if err != nil {
			return fmt.Errorf("create key: %w", err)
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), json.RawMessage(answer))
		}
		var k keyInfo
		if err := decodeAnswer(answer, &k); err != nil {
			return err
		}
		if k.Key == "" {
			return errors.New("create key: the server's answer has no key in it")
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "created key %s, %s of %s; it is shown only now:\n",
			printable(k.ID, ""), printable(k.Role, ""), scope(k.Log))
		_, err = fmt.Fprintln(cmd.OutOrStdout(), printable(k.Key, ""))
		return err
	}
	return cmd
}

// scope names what a key is good for.
func scope(log string) string {
	if log == "" {
		return "the whole server"
	}
	return "log " + printable(log, "")
}

func newKeyListCmd() *cobra.Command {
	return newListCmd("List the keys of a server, without their secrets", "keys", "ID\tROLE\tLOG\tNAME\tCREATED",
		func(item json.RawMessage) ([]string, error) {
			var k keyInfo
			err := decodeAnswer(item, &k)
			return []string{k.ID, k.Role, k.Log, k.Name, k.CreatedAt}, err
		})
}
