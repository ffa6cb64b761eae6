package execute

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/storage/s3"
)

// Buckets writes what sessions have shown into objects of the store that the operator names, by what the task's role may: s3:PutObject. A task
// without a role has its sessions kept with the platform's own rights.
type Buckets struct {
	Store *state.Store
	// TaskMay says whether a task may do something by its role, in the words of IAM.
	TaskMay func(ctx context.Context, role, taskARN, action, resource string) error
	// Client speaks to a bucket.
	Client func(bucket string) *s3.Client
}

// ObjectKey is that of a session's object, as Session Manager calls it.
func ObjectKey(prefix, session string) string { return path.Join(prefix, session+".log") }

// Keep writes the object of a session in a task.
func (b *Buckets) Keep(ctx context.Context, task, session string, to *controlplane.SessionLog, c Content) error {
	key := ObjectKey(to.Prefix, session)
	if err := b.may(ctx, task, "arn:aws:s3:::"+to.Bucket+"/"+key); err != nil {
		return err
	}
	header := http.Header{"Content-Type": {"text/plain"}}
	if to.Encrypted {
		header.Set("X-Amz-Server-Side-Encryption", "AES256")
	}
	err := b.Client(to.Bucket).PutWith(ctx, key, header, s3.Part{Size: c.Size, Sum: c.Sum}, func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(c, 0, c.Size)), nil
	})
	if errors.Is(err, s3.ErrNotFound) {
		return fmt.Errorf("there is no bucket %s", to.Bucket)
	}
	return err
}

func (b *Buckets) may(ctx context.Context, task, object string) error {
	v := b.Store.View()
	for t := range controlplane.TasksByID.Scan(v, state.K(task)) {
		d, ok := controlplane.TaskDefinitions.Get(v, t.Scope().FamilyRevisionKey(t.TaskDefinition))
		if !ok {
			break
		}
		role, _ := t.Roles(d)
		if role == "" {
			return nil
		}
		return b.TaskMay(ctx, role, t.ARN(), "s3:PutObject", object)
	}
	return errors.New("the task is not known any more")
}
