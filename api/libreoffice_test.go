package api_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// soffice returns LibreOffice, which is installed if it isn't there.
func soffice(t *testing.T) string {
	t.Helper()
	if path, err := exec.LookPath("soffice"); err == nil {
		return path
	}
	install := exec.Command("sh", "-c", "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends libreoffice-calc-nogui")
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("LibreOffice isn't there and can't be installed: %v\n%s", err, out)
	}
	path, err := exec.LookPath("soffice")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// opened returns the cells that LibreOffice sees in a CSV, row by row, and how many of them are formulas.
func opened(t *testing.T, office string, csv []byte) (rows [][]string, formulas int) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "x.csv"), csv, 0o600); err != nil {
		t.Fatal(err)
	}
	convert := exec.Command(office, "-env:UserInstallation=file://"+dir+"/profile", "--headless", "--convert-to", "fods",
		"--infilter=CSV:44,34,76,1", "--outdir", dir, filepath.Join(dir, "x.csv"))
	if out, err := convert.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	sheet, err := os.ReadFile(filepath.Join(dir, "x.fods"))
	if err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(bytes.NewReader(sheet))
	inText := false
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return rows, formulas
		}
		if err != nil {
			t.Fatal(err)
		}
		switch x := token.(type) {
		case xml.StartElement:
			switch x.Name.Local {
			case "table-row":
				rows = append(rows, nil)
			case "table-cell":
				for _, a := range x.Attr {
					if a.Name.Local == "formula" {
						formulas++
					}
				}
				rows[len(rows)-1] = append(rows[len(rows)-1], "")
			case "p":
				inText = true
			}
		case xml.EndElement:
			if x.Name.Local == "p" {
				inText = false
			}
		case xml.CharData:
			if row := len(rows) - 1; inText && row >= 0 && len(rows[row]) > 0 {
				rows[row][len(rows[row])-1] += string(x)
			}
		}
	}
}

// A spreadsheet opens an export, and runs nothing in it.
func TestLibreOfficeOpensCSV(t *testing.T) {
	if os.Getenv("TREELINE_TEST_LONG") == "" {
		t.Skip("LibreOffice is large: make test-long has it")
	}
	office := soffice(t)
	s := newTestServer(t, 10*time.Millisecond)
	s.appendLines(`{"action":"a","actor_id":"=1+1","actor_name":"+2+3","actor_type":"-1-1","target_id":"@SUM(1,2)","target_name":"a,b;=1+1","user_agent":"\t=1+2"}
{"action":"a","actor_id":"żółć \"quoted\"","actor_name":"＝1+1","metadata":{"=x":"=1"},"changes":[{"field":"=f","before":"=1"}]}
`)
	body, _ := s.export("format=csv")
	rows, formulas := opened(t, office, body)
	if formulas != 0 {
		t.Errorf("%d cells are formulas", formulas)
	}
	var all []string
	for _, row := range rows {
		all = append(all, strings.Join(row, "|"))
	}
	text := strings.Join(all, "\n")
	for _, want := range []string{"index|received_at|id|action", "|'=1+1|'-1-1|'+2+3|", "|'@SUM(1,2)|", "|a,b;=1+1|", `|żółć "quoted"|`, `|{"=x":"=1"}|`} {
		if !strings.Contains(text, want) {
			t.Errorf("the sheet lacks %s:\n%s", want, text)
		}
	}
	// The same without what makes it safe would be run.
	if _, formulas := opened(t, office, bytes.ReplaceAll(body, []byte(`"'`), []byte(`"`))); formulas == 0 {
		t.Error("LibreOffice finds no formulas where there are some, so this test shows nothing")
	}
}
