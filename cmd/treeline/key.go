package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

func newKeyCmd() *cobra.Command {
	return newGroupCmd("key", "Create, list, revoke and rotate the keys of a server",
		newKeyCreateCmd(), newKeyListCmd(), newKeyRevokeCmd(), newKeyRotateCmd())
}

// roles are all roles, as help names them.
const roles = "writer, reader, exporter, auditor or manager of one log, or admin of the server"

// keyInfo is what a server tells of one of its keys.
type keyInfo struct {
	ID         string   `json:"id"`
	Key        string   `json:"key"` // the secret; only in the answer that creates it
	Role       string   `json:"role"`
	Log        string   `json:"log"` // "": of the whole server
	Name       string   `json:"name"`
	State      string   `json:"state"`
	CreatedAt  string   `json:"created_at"`
	ExpiresAt  string   `json:"expires_at"`
	LastUsedAt string   `json:"last_used_at"`
	Networks   []string `json:"networks"`
	Actions    []string `json:"actions"`
}

func newKeyCreateCmd() *cobra.Command {
	var in struct {
		Role              string   `json:"role"`
		Log               string   `json:"log,omitempty"`
		Name              string   `json:"name,omitempty"`
		ExpiresIn         string   `json:"expires_in,omitempty"`
		EventsPerSecond   int      `json:"events_per_second,omitempty"`
		RequestsPerSecond int      `json:"requests_per_second,omitempty"`
		Networks          []string `json:"networks,omitempty"`
		Actions           []string `json:"actions,omitempty"`
	}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "create --role ROLE",
		Short: "Create a key and print it, this once",
		Long: `Create makes a new key. Only the key itself goes to standard output, and whatever else there is to
say to standard error, so $(treeline key create …) is the key. The server keeps no copy that could
be shown again.`,
		Example: `  export TREELINE_KEY=$(treeline key create --role writer --log default --name billing --key-file treeline-data/admin.key)
  treeline key create --role writer --log acme --actions 'invoice.*' --networks 192.0.2.0/24 --expires-in 90d`,
		Args: arguments(0, 0, "none"),
	}
	client := addClientFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&in.Role, "role", "", "what the key may do: "+roles)
	f.StringVar(&in.Log, "log", "", "`NAME` of the log that the key is for, unless it is an admin's (default the log of the key that makes it, or default)")
	f.StringVar(&in.Name, "name", "", "what the key is for, in your own words")
	f.StringVar(&in.ExpiresIn, "expires-in", "", "`TIME` after which the key is refused, such as 90d or 12h (default never)")
	f.StringSliceVar(&in.Networks, "networks", nil, "`CIDR,…` from where alone the key is taken")
	f.StringSliceVar(&in.Actions, "actions", nil, "`ACTION,…` that a writer may append; with * at the end all that begin so")
	f.IntVar(&in.EventsPerSecond, "events-per-second", 0, "`N` events a second that the key may append, on average; 0: no limit of its own")
	f.IntVar(&in.RequestsPerSecond, "requests-per-second", 0, "`N` requests a second that the key may make, on average; 0: no limit of its own")
	f.BoolVar(&asJSON, "json", false, "print the server's answer as JSON, the key inside")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch in.Role {
		case "writer", "reader", "exporter", "auditor", "manager", "admin":
		case "":
			return withHint(errors.New("key create: no role is given"), "say what the key may do by --role: "+roles)
		default:
			return fmt.Errorf("--role %q: want %s", in.Role, roles)
		}
		c, err := newClient(cmd, client)
		if err != nil {
			return err
		}
		answer, err := c.postJSON(cmd.Context(), "/v1/keys", in)
		if err != nil {
			return fmt.Errorf("create key: %w", err)
		}
		return printNewKey(cmd, answer, asJSON, "created")
	}
	return cmd
}

// printNewKey prints the server's answer with a key that it has just made.
func printNewKey(cmd *cobra.Command, answer []byte, asJSON bool, done string) error {
	if asJSON {
		return printJSON(cmd.OutOrStdout(), json.RawMessage(answer))
	}
	var k keyInfo
	if err := decodeAnswer(answer, &k); err != nil {
		return err
	}
	if k.Key == "" {
		return errors.New("the server's answer has no key in it")
	}
	until := ""
	if k.ExpiresAt != "" {
		until = " until " + printable(k.ExpiresAt, "")
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s key %s, %s of %s%s; it is shown only now:\n",
		done, printable(k.ID, ""), printable(k.Role, ""), scope(k.Log), until)
	_, err := fmt.Fprintln(cmd.OutOrStdout(), printable(k.Key, ""))
	return err
}

// scope names what a key is good for.
func scope(log string) string {
	if log == "" {
		return "the whole server"
	}
	return "log " + printable(log, "")
}

func newKeyListCmd() *cobra.Command {
	return newListCmd("List the keys of a server, without their secrets", "keys", "ID\tROLE\tLOG\tNAME\tSTATE\tCREATED\tEXPIRES\tLAST USED\tONLY",
		func(item json.RawMessage) ([]string, error) {
			var k keyInfo
			err := decodeAnswer(item, &k)
			only := strings.Join(append(k.Networks, k.Actions...), " ")
			return []string{k.ID, k.Role, k.Log, k.Name, k.State, k.CreatedAt, k.ExpiresAt, k.LastUsedAt, only}, err
		})
}

func newKeyRevokeCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "revoke ID",
		Short: "End a key at once",
		Long: `Revoke ends the key with the public ID, which key list shows and which is also the second part of the key, tl_<id>_…: on the
server that is asked at once, on others within 5 seconds. It can't be undone.`,
		Args: arguments(1, 1, "the ID of a key"),
	}
	client := addClientFlags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the server's answer as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := newClient(cmd, client)
		if err != nil {
			return err
		}
		answer, err := c.do(cmd.Context(), &request{method: http.MethodDelete, path: "/v1/keys/" + url.PathEscape(args[0]), repeatable: true})
		if err != nil {
			return fmt.Errorf("revoke key %s: %w", args[0], byID(err))
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), json.RawMessage(answer))
		}
		var k keyInfo
		if err := decodeAnswer(answer, &k); err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "revoked key %s, %s of %s\n", printable(k.ID, ""), printable(k.Role, ""), scope(k.Log))
		return err
	}
	return cmd
}

// byID hints at what a key is called, where there is none of the ID that was given: a name is none.
func byID(err error) error {
	if p, ok := errors.AsType[*problem](err); ok && p.Code == "not_found" {
		return withHint(err, "give its ID, which is the first column of: treeline key list")
	}
	return err
}

func newKeyRotateCmd() *cobra.Command {
	var in struct {
		Overlap string `json:"overlap,omitempty"`
	}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "rotate ID",
		Short: "Create the key that follows another one, and print it, this once",
		Long: `Rotate makes a key that may do what the key with the public ID may, for as long from now as that one was made for. The old one
is good for the overlap, in which to hand out the new one. Only the new key goes to standard output, as key create prints it.`,
		Args: arguments(1, 1, "the ID of a key"),
	}
	client := addClientFlags(cmd)
	cmd.Flags().StringVar(&in.Overlap, "overlap", "24h", "`TIME` for which the old key is still good: from 0s to 30d")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the server's answer as JSON, the key inside")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := newClient(cmd, client)
		if err != nil {
			return err
		}
		answer, err := c.postJSON(cmd.Context(), "/v1/keys/"+url.PathEscape(args[0])+"/rotate", in)
		if err != nil {
			return fmt.Errorf("rotate key %s: %w", args[0], byID(err))
		}
		return printNewKey(cmd, answer, asJSON, "rotated "+printable(args[0], "")+" to")
	}
	return cmd
}
