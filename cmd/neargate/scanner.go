package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/pflag"

	"github.com/seed-2f228079/neargate/internal/datadir"
	"github.com/seed-2f228079/neargate/registry/scan"
)

// scanFlags say who knows the vulnerabilities of images.
type scanFlags struct{ database, command, webhook, gate string }

func (f *scanFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&f.database, "scan-database", "", "folder with vulnerabilities in the format of OSV (JSON files, or the all.zip of ecosystems) that images are held against")
	fl.StringVar(&f.command, "scan-command", "", "program, with its arguments, that gets a bill of materials (CycloneDX) and answers CycloneDX or SARIF, such as "+
		`"trivy sbom --format cyclonedx /dev/stdin"`)
	fl.StringVar(&f.webhook, "scan-webhook", "", "URL that gets a bill of materials (CycloneDX) and answers CycloneDX or SARIF; signed with $NEARGATE_SCAN_SECRET")
	fl.StringVar(&f.gate, "scan-gate", "", "refuse images to tasks that have findings of this severity or above: LOW, MEDIUM, HIGH or CRITICAL")
}

// scanner is nil when there is none.
func (f *scanFlags) scanner(dir *datadir.Dir) (scan.Scanner, error) {
	chosen := 0
	for _, s := range []string{f.database, f.command, f.webhook} {
		if s != "" {
			chosen++
		}
	}
	switch {
	case chosen > 1:
		return nil, errors.New("choose one of --scan-database, --scan-command and --scan-webhook")
	case f.database != "":
		if st, err := os.Stat(f.database); err != nil {
			return nil, fmt.Errorf("--scan-database: %w", err)
		} else if !st.IsDir() {
			return nil, fmt.Errorf("--scan-database: %s is not a folder", f.database)
		}
		return scan.NewDatabase(f.database, dir.Cache("osv")), nil
	case f.command != "":
		args := strings.Fields(f.command)
		if len(args) == 0 {
			return nil, errors.New("--scan-command names no program")
		}
		program, err := exec.LookPath(args[0])
		if err != nil {
			return nil, fmt.Errorf("--scan-command: %w", err)
		}
		return &scan.Command{Args: append([]string{program}, args[1:]...)}, nil
	case f.webhook != "":
		if u, err := url.Parse(f.webhook); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("--scan-webhook: %q is not a URL like https://host/path", f.webhook)
		}
		return &scan.Webhook{URL: f.webhook, Secret: os.Getenv("NEARGATE_SCAN_SECRET")}, nil
	}
	return nil, nil
}

func (f *scanFlags) severity() (scan.Severity, error) {
	s := scan.Severity(strings.ToUpper(f.gate))
	if f.gate != "" && s.Rank() < scan.Low.Rank() {
		return "", fmt.Errorf("--scan-gate: %q is not LOW, MEDIUM, HIGH or CRITICAL", f.gate)
	}
	return s, nil
}
