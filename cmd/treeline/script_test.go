package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The scripts in testdata/script use the program as a person does at a shell. Beside what testscript has they know:
//
//	serve DIR [flag…]       start a server on DIR; its greeting is stdout; sets SERVER, OPS and ADMIN (the admin key)
//	witness DIR [flag…]     start a witness on DIR; its greeting is stdout; sets WITNESS and OPS
//	halt                    stop it gracefully, which must go well (stop is testscript's own: it ends the script)
//	exits CODE COMMAND …    run a command, which must end with that exit code
//	set NAME MEMBER         set NAME to a member of the JSON object that is stdout
//	line NAME REGEXP        set NAME to the line of stdout that matches, spaces around it aside
//	mode FILE MODE          FILE must have these permissions, in octal
//	change FILE OFFSET      change one byte of FILE
//	curl …                  as far as the scripts need it
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			e.Values[serverKey{}] = &scriptServer{}
			e.Setenv("GORACE", os.Getenv("GORACE"))
			e.Setenv("PYTHONDONTWRITEBYTECODE", "1")
			verifier, err := filepath.Abs(filepath.Join("..", "..", "docs", "verify_bundle.py"))
			e.Setenv("VERIFIER", verifier)
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve": scriptServe, "witness": scriptWitness, "halt": scriptHalt, "exits": scriptExits, "set": scriptSet, "line": scriptLine,
			"mode": scriptMode, "change": scriptChange,
		},
		RequireUniqueNames: true,
	})
}

// scriptServer is the server of one script.
type scriptServer struct{ *process }

type serverKey struct{}

func arity(ts *testscript.TestScript, neg bool, args []string, least int, usage string) {
	if neg || len(args) < least {
		ts.Fatalf("usage: %s", usage)
	}
}

func scriptServe(ts *testscript.TestScript, neg bool, args []string) {
	arity(ts, neg, args, 1, "serve DIR [flag…]")
	p, err := launch(ts.MkAbs("."), scriptEnv(ts), args[0], args[1:]...)
	ts.Check(err)
	scriptRuns(ts, p)
	fmt.Fprint(ts.Stdout(), p.stdout)
	ts.Setenv("SERVER", p.url)
	ts.Setenv("OPS", p.ops)
	ts.Setenv("ADMIN", p.key)
	ts.Setenv("TREELINE_SERVER", p.url)
}

func scriptWitness(ts *testscript.TestScript, neg bool, args []string) {
	arity(ts, neg, args, 1, "witness DIR [flag…]")
	p := newWitnessProcess(args[0], args[1:]...)
	p.cmd.Dir, p.cmd.Env = ts.MkAbs("."), scriptEnv(ts)
	ts.Check(p.start(witnessGreeting))
	scriptRuns(ts, p)
	fmt.Fprint(ts.Stdout(), p.stdout)
	ts.Setenv("WITNESS", p.url)
	ts.Setenv("OPS", p.ops)
}

func scriptEnv(ts *testscript.TestScript) []string {
	return []string{"PATH=" + ts.Getenv("PATH"), "HOME=" + ts.Getenv("HOME"), "GORACE=" + ts.Getenv("GORACE")}
}

// scriptRuns makes p the script's server, which is gone when the script ends.
func scriptRuns(ts *testscript.TestScript, p *process) {
	ts.Value(serverKey{}).(*scriptServer).process = p
	ts.Defer(func() {
		select {
		case <-p.exited:
		default:
			p.kill()
		}
		ts.Check(p.healthy())
	})
}

func scriptHalt(ts *testscript.TestScript, neg bool, args []string) {
	arity(ts, neg, args, 0, "halt")
	ts.Check(ts.Value(serverKey{}).(*scriptServer).stop())
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	arity(ts, neg, args, 2, "exits CODE COMMAND …")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func scriptSet(ts *testscript.TestScript, neg bool, args []string) {
	arity(ts, neg, args, 2, "set NAME MEMBER")
	var object map[string]any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &object))
	v, ok := object[args[1]]
	if !ok {
		ts.Fatalf("stdout has no member %q", args[1])
	}
	ts.Setenv(args[0], fmt.Sprint(v))
}

func scriptLine(ts *testscript.TestScript, neg bool, args []string) {
	arity(ts, neg, args, 2, "line NAME REGEXP")
	re, err := regexp.Compile(args[1])
	ts.Check(err)
	for line := range strings.Lines(ts.ReadFile("stdout")) {
		if re.MatchString(line) {
			ts.Setenv(args[0], strings.TrimSpace(line))
			return
		}
	}
	ts.Fatalf("no line of stdout matches %q", args[1])
}

func scriptMode(ts *testscript.TestScript, neg bool, args []string) {
	arity(ts, neg, args, 2, "mode FILE MODE")
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%#o", info.Mode().Perm()); got != args[1] {
		ts.Fatalf("%s has mode %s, want %s", args[0], got, args[1])
	}
}

func scriptChange(ts *testscript.TestScript, neg bool, args []string) {
	arity(ts, neg, args, 2, "change FILE OFFSET")
	data := []byte(ts.ReadFile(args[0]))
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	data[at] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o600))
}

// curl is as much of curl as the calls need that the server and the documents tell people to paste: -X, -H, -d, -i, and --data-binary
// for a file.
func curl() {
	var url, body string
	method, header, withHeader := "", http.Header{}, false
	for args := os.Args[1:]; len(args) > 0; args = args[1:] {
		value := func() string {
			args = args[1:]
			return args[0]
		}
		switch args[0] {
		case "-X":
			method = value()
		case "-d":
			body = value()
		case "--data-binary":
			data, err := os.ReadFile(strings.TrimPrefix(value(), "@"))
			if err != nil {
				fmt.Fprintln(os.Stderr, "curl:", err)
				os.Exit(26)
			}
			body = string(data)
		case "-H":
			name, v, _ := strings.Cut(value(), ": ")
			header.Set(name, v)
		case "-i":
			withHeader = true
		default:
			url = args[0]
		}
	}
	if method == "" && body != "" {
		method = http.MethodPost
	}
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err == nil {
		req.Header = header
		err = transfer(req, withHeader)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "curl:", err)
		os.Exit(7)
	}
}

func transfer(req *http.Request, withHeader bool) error {
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if withHeader {
		fmt.Println(resp.Proto, resp.Status)
		if err := resp.Header.Write(os.Stdout); err != nil {
			return err
		}
		fmt.Println()
	}
	_, err = io.Copy(os.Stdout, resp.Body)
	return err
}
