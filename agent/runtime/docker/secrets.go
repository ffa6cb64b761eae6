package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/moby/sys/user"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// Secrets as files are on a volume of the engine that is a tmpfs, one a container. The sandbox mounts all of them: a tmpfs is gone with its
// last mount, and the sandbox runs for as long as the task lives. So files are written to the sandbox, by a request to the engine, which also
// works where this process could mount nothing, and are there before the container starts.

// secretsRoot is where the sandbox has the volumes, by container.
const secretsRoot = "/secrets"

// Confide keeps what it is told until each container is started.
func (d *Driver) Confide(ctx context.Context, taskID string, secrets map[string]runtime.Secrets) error {
	if _, err := d.task(ctx, taskID); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.secrets == nil {
		d.secrets = map[string]runtime.Secrets{}
	}
	for name, s := range secrets {
		d.secrets[taskID+"/"+name] = s
	}
	return nil
}

func (d *Driver) confided(taskID, name string) runtime.Secrets {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.secrets[taskID+"/"+name]
}

// mountSecretVolumes has the sandbox make and mount the volumes. They have no name of their own, and go with it.
func (d *Driver) mountSecretVolumes(t runtime.Task, sandbox *container.HostConfig) {
	for _, c := range t.Spec.Containers {
		if c.SecretFiles == "" {
			continue
		}
		labels := d.labels(t.ID, "secrets of "+c.Name)
		delete(labels, labelTask) // by which volumes are removed before the sandbox is
		sandbox.Mounts = append(sandbox.Mounts, mount.Mount{Type: mount.TypeVolume, Target: path.Join(secretsRoot, c.Name), VolumeOptions: &mount.VolumeOptions{
			NoCopy: true, Labels: labels, DriverConfig: &mount.Driver{Name: "local", Options: map[string]string{
				"type": "tmpfs", "device": "tmpfs", "o": "nosuid,nodev,noexec,mode=0700,size=4m"}}}})
	}
}

// secretVolume finds the container's volume.
func (d *Driver) secretVolume(ctx context.Context, taskID string, c *agentapi.ContainerSpec) (mount.Mount, error) {
	in, err := d.cli.ContainerInspect(ctx, d.sandboxName(taskID))
	if err != nil {
		return mount.Mount{}, err
	}
	for _, m := range in.Mounts {
		if m.Destination == path.Join(secretsRoot, c.Name) {
			return mount.Mount{Type: mount.TypeVolume, Source: m.Name, Target: c.SecretFiles, ReadOnly: true, VolumeOptions: &mount.VolumeOptions{NoCopy: true}}, nil
		}
	}
	return mount.Mount{}, fmt.Errorf("the sandbox of task %s has no volume for the secrets of %s", taskID, c.Name)
}

// writeSecrets puts a container's files where it finds them. It has been created, and does not run.
func (d *Driver) writeSecrets(ctx context.Context, t runtime.Task, c *agentapi.ContainerSpec) error {
	if c.SecretFiles == "" {
		return nil
	}
	u, err := d.userOf(ctx, d.name(t.ID, c.Name))
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	files := d.confided(t.ID, c.Name).Files
	add := func(h *tar.Header, text []byte) error {
		h.Uid, h.Gid, h.Size = u.Uid, u.Gid, int64(len(text))
		err := w.WriteHeader(h)
		if err == nil {
			_, err = w.Write(text)
		}
		return err
	}
	err = add(&tar.Header{Name: c.Name + "/", Typeflag: tar.TypeDir, Mode: 0o500}, nil)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err == nil {
			err = add(&tar.Header{Name: c.Name + "/" + name, Typeflag: tar.TypeReg, Mode: 0o400}, files[name])
		}
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return err
	}
	if err := d.cli.CopyToContainer(ctx, d.sandboxName(t.ID), secretsRoot, &archive, container.CopyToContainerOptions{CopyUIDGID: true}); err != nil {
		return fmt.Errorf("write secret files: %w", err)
	}
	return nil
}

// userOf resolves the user of a created container in its own passwd and group files.
func (d *Driver) userOf(ctx context.Context, id string) (*user.ExecUser, error) {
	in, err := d.cli.ContainerInspect(ctx, id)
	if err != nil {
		return nil, err
	}
	passwd, err := d.readFile(ctx, id, "/etc/passwd")
	if err != nil {
		return nil, err
	}
	group, err := d.readFile(ctx, id, "/etc/group")
	if err != nil {
		return nil, err
	}
	u, err := user.GetExecUser(in.Config.User, &user.ExecUser{}, bytes.NewReader(passwd), bytes.NewReader(group))
	if err != nil {
		return nil, fmt.Errorf("unable to find user %s: %w", in.Config.User, err)
	}
	return u, nil
}

// maxUserFile is how much of a passwd or group file is read.
const maxUserFile = 1 << 20

// readFile reads a small file of a container; one that is not there is empty.
func (d *Driver) readFile(ctx context.Context, id, path string) ([]byte, error) {
	r, st, err := d.cli.CopyFromContainer(ctx, id, path)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if target := st.LinkTarget; st.Mode&os.ModeSymlink != 0 && target != path { // the end of all links
		return d.readFile(ctx, id, target)
	}
	t := tar.NewReader(r)
	if h, err := t.Next(); err != nil || h.Typeflag != tar.TypeReg {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(t, maxUserFile))
}
