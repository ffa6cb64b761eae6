package crash

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestRefused: what a platform cannot start on is said in one clear message, and nothing is touched.
func TestRefused(t *testing.T) {
	p := newPlatform(t)
	p.start()
	foreign := filepath.Join(t.TempDir(), "newer")
	if err := os.Mkdir(foreign, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(foreign, "FORMAT"), []byte("neargate data 99\nid x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, "letter"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	private := filepath.Join(t.TempDir(), "private")
	if err := os.Mkdir(private, 0o700); err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(t.TempDir(), "own")
	if err := os.Mkdir(own, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(own, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	for dir := own; dir != "/" && dir != os.TempDir(); { // nobody must be able to get there
		dir = filepath.Dir(dir)
		os.Chmod(dir, 0o755)
	}
	os.Chmod(filepath.Dir(program), 0o755)
	readOnly := t.TempDir()
	nobody := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}

	for _, c := range []struct {
		name         string
		data, listen string
		mount        bool // data on a file system mounted read-only
		as           *syscall.SysProcAttr
		want         []string
	}{
		{"directory in use", p.dir, "127.0.0.1:0", false, nil, []string{p.dir, "in use by process " + strconv.Itoa(p.cmd.Process.Pid)}},
		{"port in use", filepath.Join(t.TempDir(), "d"), p.listen, false, nil, []string{p.listen, "address already in use", "--listen"}},
		{"unknown format", foreign, "127.0.0.1:0", false, nil, []string{foreign, `"neargate data 99"`, "another version"}},
		{"somebody's folder", home, "127.0.0.1:0", false, nil, []string{home, "not a data directory", "letter"}},
		{"read-only", filepath.Join(readOnly, "d"), "127.0.0.1:0", true, nil, []string{readOnly, "read-only file system"}},
		{"no permission", private, "127.0.0.1:0", false, nobody, []string{private, "permission denied"}},
		{"not root", own, "127.0.0.1:0", false, nobody, []string{"native driver", "user id is 65534", "must run as root"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := []string{program, "dev", "--data", c.data, "--listen", c.listen, "--dns", "127.0.0.1:0"}
			if c.mount {
				args = append([]string{"unshare", "--mount", "sh", "-c", `mount -t tmpfs -o ro none "$0" && exec "$@"`, readOnly}, args...)
			}
			cmd := exec.Command(args[0], args[1:]...)
			cmd.SysProcAttr = c.as
			before := files(t, c.data)
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Fatalf("it ran:\n%s", out)
			}
			for _, w := range c.want {
				if !strings.Contains(string(out), w) {
					t.Errorf("no word of %q in:\n%s", w, out)
				}
			}
			if stack := strings.Contains(string(out), "goroutine "); stack || !strings.HasPrefix(string(out), "neargate: ") {
				t.Errorf("not one message:\n%s", out)
			}
			if after := files(t, c.data); after != before && c.as == nil && c.data != p.dir && c.listen != p.listen {
				t.Errorf("the folder held %q, now %q", before, after)
			}
		})
	}
	if _, err := p.Clusters(t.Context()); err != nil {
		t.Errorf("the running platform was disturbed: %v", err)
	}
}

func files(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}
