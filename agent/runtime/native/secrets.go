//go:build linux && cgo

package native

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/agent/runtime"
)

// addSecrets puts what the container was confided into the bundle as it is in memory; bundle.json never has it.
func (b *bundle) addSecrets(s *runtime.Secrets) {
	b.Env = slices.DeleteFunc(b.Env, func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		_, ok := s.Environment[name]
		return ok
	})
	for _, name := range slices.Sorted(maps.Keys(s.Environment)) {
		b.Env = append(b.Env, name+"="+s.Environment[name])
	}
	b.files = s.Files
	if len(s.LogOptions) > 0 {
		all := maps.Clone(b.Output.Options)
		if all == nil {
			all = map[string]string{}
		}
		maps.Copy(all, s.LogOptions)
		b.Output.Options = all
	}
}

// mountSecrets puts the files on a tmpfs that only the shim's mount namespace has, for the container to have it bound. closeSecrets takes it
// away; at the latest it goes with the shim.
func (b *bundle) mountSecrets(dir string, uid, gid int) (closeSecrets func(), err error) {
	if b.SecretFiles == "" {
		return func() {}, nil
	}
	folder := filepath.Join(dir, "secrets")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	size := 0 // in pages, and one for each file's name
	for _, text := range b.files {
		size += (len(text)+4095)/4096 + 1
	}
	options := fmt.Sprintf("mode=0500,uid=%d,gid=%d,nr_blocks=%d", uid, gid, size+8)
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	// Without noswap (Linux 6.4) it may be swapped out, as the environment may be.
	if unix.Mount("secrets", folder, "tmpfs", flags, options+",noswap") != nil {
		if err := unix.Mount("secrets", folder, "tmpfs", flags, options); err != nil {
			return nil, fmt.Errorf("mount secrets: %w", err)
		}
	}
	closeSecrets = func() { unix.Unmount(folder, unix.MNT_DETACH) }
	for name, text := range b.files {
		if err = writeSecret(filepath.Join(folder, name), text, uid, gid); err != nil {
			closeSecrets()
			return nil, fmt.Errorf("write secret file %s: %w", name, err)
		}
	}
	b.Mounts = append(b.Mounts, bundleMount{Source: folder, Target: filepath.Clean(b.SecretFiles), ReadOnly: true})
	return closeSecrets, nil
}

func writeSecret(path string, text []byte, uid, gid int) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o400)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(text); err != nil {
		return err
	}
	return f.Chown(uid, gid)
}
