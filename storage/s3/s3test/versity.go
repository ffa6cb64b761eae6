package s3test

import (
	"errors"
	"fmt"
	"go/build"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// StartVersity runs a Versity S3 gateway over a folder until the test ends, and returns its address. It is another's reading of the protocol. Without
// the program, which scripts/setup.sh installs, the test is skipped.
func StartVersity(t testing.TB) string {
	t.Helper()
	program, err := exec.LookPath("versitygw")
	if err != nil {
		program, err = exec.LookPath(filepath.Join(build.Default.GOPATH, "bin", "versitygw"))
	}
	if err != nil {
		t.Skip("versitygw is not installed: scripts/setup.sh test does that")
	}
	folder, beside := t.TempDir(), t.TempDir()
	if err := os.Mkdir(filepath.Join(folder, Bucket), 0o700); err != nil {
		t.Fatal(err)
	}
	for attempt := 1; ; attempt++ {
		address, err := startVersity(t, program, folder, beside)
		if err == nil {
			return address
		}
		if attempt == 3 || !strings.Contains(err.Error(), "address already in use") {
			t.Fatal(err)
		}
	}
}

// startVersity runs it at a port that was free a moment ago: another program may have it by now.
func startVersity(t testing.TB, program, folder, beside string) (string, error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	address := l.Addr().String()
	l.Close()
	var said strings.Builder
	cmd := exec.Command(program, "--port", address, "--region", Region, "--quiet", "posix", "--sidecar", beside, folder)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+AccessKeyID, "ROOT_SECRET_KEY="+SecretAccessKey)
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return "", err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
	})
	for deadline := time.Now().Add(time.Minute); ; {
		a, err := http.Get("http://" + address)
		if err == nil {
			a.Body.Close()
			if a.Header.Get("Server") == "VERSITYGW" {
				return "http://" + address, nil
			}
			err = errors.New("another program has its port")
		}
		select {
		case err := <-ended:
			ended <- err
			return "", fmt.Errorf("versitygw: %v\n%s", err, &said)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return "", fmt.Errorf("versitygw does not listen: %w", err)
		}
	}
}
