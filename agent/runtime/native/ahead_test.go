//go:build linux && cgo

package native

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRecordMadeAhead: a record whose file is there already is written as any other, whatever the file holds.
func TestRecordMadeAhead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.json")
	write := func(text string) os.FileInfo {
		t.Helper()
		if err := writeRecord(path, text); err != nil {
			t.Fatal(err)
		}
		var got string
		if ok, err := readRecord(path, &got); !ok || err != nil || got != text {
			t.Errorf("%q, %v, %v, want %q", got, ok, err, text)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	if err := makeAhead(path); err != nil {
		t.Fatal(err)
	}
	made, err := os.Stat(aheadOf(path))
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(made, write(strings.Repeat("long", 3000))) {
		t.Error("another file was made")
	}
	if err := os.Rename(path, aheadOf(path)); err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(made, write("short")) {
		t.Error("another file was made")
	}
	if os.SameFile(made, write("new")) {
		t.Error("a record was written over and not replaced")
	}
}

// TestWarmStartMakesNoFile: what a warm start writes goes to files that were made ahead.
func TestWarmStartMakesNoFile(t *testing.T) {
	d, image := warmDriver(t, Config{Warm: 1})
	box := ready(t, d, image)
	inside := filepath.Join(box.dir, "containers", "main")
	task := newTask(image, "print", "up")
	files := map[string]string{ // as what they were made, and what they become
		filepath.Join(box.dir, ".ahead-record.json"): filepath.Join(box.dir, "record.json"),
		filepath.Join(inside, ".ahead-bundle.json"):  filepath.Join(inside, "bundle.json"),
		filepath.Join(inside, ".ahead-started.json"): filepath.Join(inside, "started.json"),
		filepath.Join(inside, "log", "main.log"):     d.logPath(task.ID, "main"),
		filepath.Join(inside, "hosts"):               filepath.Join(inside, "hosts"),
		filepath.Join(inside, "resolv.conf"):         filepath.Join(inside, "resolv.conf"),
		filepath.Join(inside, "hostname"):            filepath.Join(inside, "hostname"),
		filepath.Join(box.dir, "sandbox.json"):       filepath.Join(box.dir, "sandbox.json"),
	}
	made := map[string]os.FileInfo{}
	for ahead := range files {
		info, err := os.Stat(ahead)
		if err != nil {
			t.Fatal(err)
		}
		made[ahead] = info
	}
	launch(t, d, task)
	if boxOf(t, d, task.ID) != box.box {
		t.Fatal("the sandbox was not taken over")
	}
	for ahead, is := range files {
		info, err := os.Stat(is)
		if err != nil || !os.SameFile(made[ahead], info) {
			t.Errorf("%s is not what was made ahead (%v)", is, err)
		}
	}
	if e, out := finish(t, d, task); e.Code != 0 || out != "up\n" {
		t.Errorf("%+v, %q", e, out)
	}
	emptyPool(t, d)
}
