package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func newLogCmd() *cobra.Command {
	return newGroupCmd("log", "Create, set up, end, succeed and look into the logs of a server", newLogCreateCmd(), newLogListCmd(), newLogShowCmd(),
		newLogSetCmd(), newLogFreezeCmd(), newLogCloseCmd(), newLogSucceedCmd(), newLogEvidenceCmd())
}

// logInfo is what a server tells of one of its logs.
type logInfo struct {
	Name      string   `json:"name"`
	Title     string   `json:"title"`
	Origin    string   `json:"origin"`
	VKeys     []string `json:"vkeys"`
	Public    bool     `json:"public"`
	Stopped   string   `json:"stopped"`
	Frozen    bool     `json:"frozen"`
	CreatedAt string   `json:"created_at"`
	Events    int      `json:"events_per_second"`
	Requests  int      `json:"requests_per_second"`
	Required  []string `json:"required"`
	Sizes     struct {
		Size      uint64 `json:"size"`
		Signed    uint64 `json:"signed"`
		Witnessed uint64 `json:"witnessed"`
		Released  uint64 `json:"released"`
	} `json:"sizes"`
}

// state says what has become of a log, "" if it is as it should be.
func (l logInfo) state() string {
	switch {
	case l.Frozen:
		return "frozen"
	case l.Stopped != "":
		return "stopped"
	}
	return ""
}

// logSettings are the flags that set up a log. Those that aren't given are left as they are.
type logSettings struct {
	Title             *string   `json:"title,omitempty"`
	Public            *bool     `json:"public,omitempty"`
	EventsPerSecond   *int      `json:"events_per_second,omitempty"`
	RequestsPerSecond *int      `json:"requests_per_second,omitempty"`
	Required          *[]string `json:"required,omitempty"`
}

// addLogSettings gives cmd the flags, and returns what is given of them when it is called.
func addLogSettings(cmd *cobra.Command) func() logSettings {
	f := cmd.Flags()
	title := f.String("title", "", "what people call the log; unlike its name it isn't in anything public")
	public := f.Bool("public", false, "let anyone read the log's checkpoint and tiles, which tell when and how much but never what")
	events := f.Int("events-per-second", 0, "`N` events a second that the log takes, on average; 0: the server's default")
	requests := f.Int("requests-per-second", 0, "`N` requests a second that are answered about the log, on average; 0: the server's default")
	required := f.StringSlice("require", nil, "`POINTER,…` of members that every event must have, such as /actor/id,/targets/0/id,/outcome; '' for none")
	return func() (s logSettings) {
		if f.Changed("title") {
			s.Title = title
		}
		if f.Changed("public") {
			s.Public = public
		}
		if f.Changed("events-per-second") {
			s.EventsPerSecond = events
		}
		if f.Changed("requests-per-second") {
			s.RequestsPerSecond = requests
		}
		if f.Changed("require") {
			s.Required = required
		}
		return s
	}
}

func newLogCreateCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "create [NAME]",
		Short: "Create a log and print its verifier keys",
		Long: `Create makes a new log and prints its verifier keys, a line each: what an auditor pins, and gives to
treeline verify as --vkey. A log's name is never used again, not even when the log is gone. It is in the log's origin, and so in all
that is public: without one the log gets a random name, and --title says what it is to those who set it up.`,
		Args: arguments(0, 1, "at most one NAME"),
	}
	client := addClientFlags(cmd)
	settings := addLogSettings(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the server's answer as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := newClient(cmd, client)
		if err != nil {
			return err
		}
		var in struct {
			Name *string `json:"name,omitempty"`
			logSettings
		}
		in.logSettings = settings()
		what := "a log"
		if len(args) > 0 {
			in.Name, what = &args[0], "log "+args[0]
		}
		answer, err := c.postJSON(cmd.Context(), "/v1/logs", in)
		if err != nil {
			return fmt.Errorf("create %s: %w", what, err)
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), json.RawMessage(answer))
		}
		var l logInfo
		if err := decodeAnswer(answer, &l); err != nil {
			return err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "created log %s with origin %s; its verifier keys:\n", printable(l.Name, ""), printable(l.Origin, ""))
		for _, vkey := range l.VKeys {
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), printable(vkey, "")); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

func newLogShowCmd() *cobra.Command {
	return oneLogCmd{name: "show", short: "Show a log and its settings", method: http.MethodGet}.build()
}

func newLogSetCmd() *cobra.Command {
	return oneLogCmd{
		name: "set", short: "Change the settings of a log, and show them", method: http.MethodPatch, settings: true,
		long: "Set changes the settings that are given by flags, and leaves the others as they are. Limits are for an admin's key to change.",
	}.build()
}

func newLogFreezeCmd() *cobra.Command {
	return oneLogCmd{
		name: "freeze", short: "End a log: nothing can be appended any more", method: http.MethodPost, path: "/freeze", final: true,
		long: "Freeze ends a log for ever: appends are refused, reads go on. What was acknowledged is signed to its end. It can't be undone.",
	}.build()
}

// oneLogCmd is a command about one log that shows what the server answers: the log.
type oneLogCmd struct {
	name, short, long string
	method, path      string // behind the log's
	settings          bool   // the request has settings, which flags give
	final             bool   // it can't be undone, and has to be confirmed
}

func (o oneLogCmd) build() *cobra.Command {
	var asJSON bool
	var settings func() logSettings
	cmd := &cobra.Command{Use: o.name + " NAME", Short: o.short, Long: o.long, Args: arguments(1, 1, "one NAME")}
	client := addClientFlags(cmd)
	if o.settings {
		settings = addLogSettings(cmd)
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the server's answer as JSON")
	var yes bool
	if o.final {
		cmd.Flags().BoolVar(&yes, "yes", false, "don't ask: this ends the log for ever")
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := newClient(cmd, client)
		if err != nil {
			return err
		}
		if o.final && !yes {
			if err := confirm(cmd, "This ends log "+args[0]+" for ever", args[0]); err != nil {
				return fmt.Errorf("%s log %s: %w", o.name, args[0], err)
			}
		}
		r := &request{method: o.method, path: "/v1/logs/" + url.PathEscape(args[0]) + o.path, repeatable: true}
		if settings != nil {
			if r.body, err = json.Marshal(settings()); err != nil {
				return err
			}
			r.contentType = "application/json"
		}
		answer, err := c.do(cmd.Context(), r)
		if err != nil {
			return fmt.Errorf("%s log %s: %w", o.name, args[0], err)
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), json.RawMessage(answer))
		}
		var l logInfo
		if err := decodeAnswer(answer, &l); err != nil {
			return err
		}
		return l.print(cmd.OutOrStdout())
	}
	return cmd
}

// confirm has whoever is at the terminal type a name before something is done to it that can't be undone.
func confirm(cmd *cobra.Command, what, name string) error {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return withHint(errors.New("it can't be undone, and nobody is there to be asked"), "confirm it with --yes")
	}
	return ask(in, cmd.ErrOrStderr(), what, name)
}

// ask is confirm where there is somebody.
func ask(in io.Reader, out io.Writer, what, name string) error {
	fmt.Fprintf(out, "%s. To go on type its name: ", printable(what, ""))
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if strings.TrimSpace(line) != name {
		return errors.New("that isn't its name; nothing was done")
	}
	return nil
}

// print writes a log for people.
func (l logInfo) print(w io.Writer) error {
	rate := func(n int) string {
		if n == 0 {
			return "the server's default"
		}
		return strconv.Itoa(n) + " a second"
	}
	rows := [][]string{
		{"name", l.Name}, {"title", l.Title}, {"origin", l.Origin}, {"created", l.CreatedAt}, {"state", l.state()},
		{"size", strconv.FormatUint(l.Sizes.Size, 10)}, {"signed", strconv.FormatUint(l.Sizes.Signed, 10)},
		{"witnessed", strconv.FormatUint(l.Sizes.Witnessed, 10)}, {"released", strconv.FormatUint(l.Sizes.Released, 10)},
		{"public", yesNo(l.Public)}, {"events", rate(l.Events)}, {"requests", rate(l.Requests)}, {"required", strings.Join(l.Required, " ")},
	}
	for _, vkey := range l.VKeys {
		rows = append(rows, []string{"verifier key", vkey})
	}
	return printTable(w, "", rows)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func newLogListCmd() *cobra.Command {
	return newListCmd("List the logs of a server", "logs", "NAME\tORIGIN\tSIZE\tSIGNED\tWITNESSED\tRELEASED\tPUBLIC\tCREATED\tSTATE\tTITLE",
		func(item json.RawMessage) ([]string, error) {
			var l logInfo
			err := decodeAnswer(item, &l)
			number := func(n uint64) string { return strconv.FormatUint(n, 10) }
			return []string{
				l.Name, l.Origin, number(l.Sizes.Size), number(l.Sizes.Signed), number(l.Sizes.Witnessed), number(l.Sizes.Released),
				yesNo(l.Public), l.CreatedAt, l.state(), l.Title,
			}, err
		})
}
