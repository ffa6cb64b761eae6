package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sealingKeyIsApart checks that all servers have the same sealing key, and that it is nowhere but in its file: not in logs and snapshots, which have
// the cluster's name.
func sealingKeyIsApart(t *testing.T, all []*oneServer, cluster, snapshot string) {
	t.Helper()
	var key []byte
	files := []string{snapshot}
	for _, one := range all {
		k, err := os.ReadFile(filepath.Join(one.dir, "keys", "sealing"))
		if err != nil {
			t.Fatal(err)
		}
		if key == nil {
			key = k
		} else if !bytes.Equal(k, key) {
			t.Errorf("server %s has another sealing key", one.peers)
		}
		err = filepath.WalkDir(one.dir, func(path string, e fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist): // the servers run
				return nil
			case err != nil:
				return err
			case e.IsDir() && e.Name() == "keys":
				return fs.SkipDir
			case e.Type().IsRegular():
				files = append(files, path)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	told := 0
	for _, path := range files {
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(path, "/state/") && bytes.Contains(content, []byte(cluster)) {
			told++
		}
		for _, form := range [][]byte{key, []byte(hex.EncodeToString(key)), []byte(base64.StdEncoding.EncodeToString(key)), []byte(base64.RawURLEncoding.EncodeToString(key))} {
			if bytes.Contains(content, form) {
				t.Errorf("the sealing key is in %s", path)
			}
		}
	}
	if told < len(all) {
		t.Errorf("%d files of the states of %d servers tell of cluster %s", told, len(all), cluster)
	}
}
