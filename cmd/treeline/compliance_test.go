package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What docs/compliance.md shows its answers by is there: each command with its flags, each route, each test, each page and section.
func TestWhatTheCompliancePageNamesExists(t *testing.T) {
	text := readDoc(t, "compliance.md")
	inText, examples := commandLines(text)
	lines := slices.Concat(inText, examples)
	if len(lines) < 20 {
		t.Errorf("only %d command lines were found", len(lines))
	}
	for _, line := range lines {
		if err := checkCommandLine(line); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}

	description, err := os.ReadFile("../../api/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("`(?:GET|POST|PATCH|DELETE) (/[^`?]*)[^`]*`").FindAllStringSubmatch(text, -1) {
		if !strings.Contains(string(description), "\n  "+m[1]+":\n") {
			t.Errorf("there is no route %s", m[1])
		}
	}

	// `package` `TestOne`, `TestTwo`; `package` `TestThree`
	tests := 0
	for _, m := range regexp.MustCompile("`([a-z/]+)` (`Test[^`]+`(?:, `Test[^`]+`)*)").FindAllStringSubmatch(text, -1) {
		source := testSource(t, m[1])
		for _, name := range strings.Split(strings.ReplaceAll(m[2], "`", ""), ", ") {
			tests++
			if !strings.Contains(source, "\nfunc "+name+"(t *testing.T)") {
				t.Errorf("%s has no test %s", m[1], name)
			}
		}
	}
	if named := len(regexp.MustCompile("`Test[^`]*`").FindAllString(text, -1)); tests != named {
		t.Errorf("%d tests are named, of which %d with their package", named, tests)
	}

	for _, m := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(text, -1) {
		page, section, _ := strings.Cut(m[1], "#")
		target := text
		if page != "" {
			target = readDoc(t, page)
		}
		if section != "" && !slices.Contains(sections(target), section) {
			t.Errorf("%s has no section %q", m[1], section)
		}
	}
}

// Nor do the examples of any other page run a command that isn't there.
func TestWhatOtherPagesRunExists(t *testing.T) {
	for _, page := range []string{"../README.md", "api.md", "architecture.md", "operations.md", "performance.md", "spec.md", "threat-model.md"} {
		_, examples := commandLines(readDoc(t, page))
		for _, line := range examples {
			if strings.Contains(line, " …") || strings.HasPrefix(line, "treeline is listening") {
				continue
			}
			if err := checkCommandLine(line); err != nil {
				t.Errorf("%s: %s: %v", page, line, err)
			}
		}
	}
}

// Command lines are told from what only looks like one.
func TestCommandLinesAreChecked(t *testing.T) {
	for line, wrong := range map[string]string{
		"treeline log show acme":                             "",
		"treeline verify acme.zip --vkey \"$VKEY\"":          "",
		"treeline search 'action:user.* actor:a' --log acme": "",
		"treeline shred acme":                                "unknown command",
		"treeline log shred acme":                            "unknown command",
		"treeline log":                                       "a group",
		"treeline verify acme.zip --shred":                   "unknown flag",
		"treeline log set acme --events-per-second many":     "invalid argument",
		"treeline verify":                                    "got 0 arguments",
		"treeline append --action 'a":                        "quote",
	} {
		err := checkCommandLine(line)
		if wrong == "" && err != nil || wrong != "" && (err == nil || !strings.Contains(err.Error(), wrong)) {
			t.Errorf("%s: got %v, want %q", line, err, wrong)
		}
	}
}

// readDoc returns a page of docs.
func readDoc(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// testSource returns all tests of a package, named by its folder.
func testSource(t *testing.T, folder string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join("..", "..", folder, "*_test.go"))
	if err != nil || names == nil {
		t.Errorf("%s has no tests: %v", folder, err)
	}
	var all strings.Builder
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}

// sections returns the names by which a page's headings are linked to.
func sections(text string) (names []string) {
	dropped := regexp.MustCompile(`[^a-z0-9 _-]`)
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		names = append(names, strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return names
}

// commandLines returns the command lines of treeline in a page: what is between backquotes in its text, and lines of its blocks.
func commandLines(text string) (inText, examples []string) {
	for i, part := range strings.Split(text, "```") {
		if i%2 == 0 {
			for _, m := range regexp.MustCompile("`(treeline [^`]+)`").FindAllStringSubmatch(part, -1) {
				inText = append(inText, m[1])
			}
			continue
		}
		for line := range strings.SplitSeq(strings.ReplaceAll(part, "\\\n", " "), "\n") {
			if strings.HasPrefix(line, "treeline ") {
				examples = append(examples, line)
			}
		}
	}
	return inText, examples
}

// checkCommandLine returns an error unless treeline has the command of a line, its flags take the values there, and it takes as many
// arguments.
func checkCommandLine(line string) error {
	words, err := shellWords(line)
	if err != nil {
		return err
	}
	cmd, rest, err := newRootCmd().Find(words[1:])
	if err != nil {
		return err
	}
	if cmd.HasSubCommands() && !cmd.LocalFlags().HasFlags() {
		if len(rest) > 0 {
			return errors.New("unknown command " + rest[0] + " of " + cmd.CommandPath())
		}
		return errors.New(cmd.CommandPath() + " is a group of commands")
	}
	cmd.InitDefaultHelpFlag()
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	if help, err := cmd.Flags().GetBool("help"); err != nil || help {
		return err
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}

// shellWords splits a line as a shell does, without expanding anything; it ends at a comment, and where the shell does
// something else with what follows.
func shellWords(line string) (words []string, err error) {
	word, quote, inWord := "", rune(0), false
	for _, r := range line + " " {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word += string(r)
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == ' ' && inWord:
			words, word, inWord = append(words, word), "", false
		case r == ' ':
		case r == '#' && !inWord, strings.ContainsRune(";|&<>", r):
			if inWord {
				words = append(words, word)
			}
			return words, nil
		default:
			word, inWord = word+string(r), true
		}
	}
	if quote != 0 {
		return nil, errors.New("a quote isn't closed")
	}
	return words, nil
}
