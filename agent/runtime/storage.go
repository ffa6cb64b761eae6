package runtime

import "context"

// Storage is a task's ephemeral storage, in bytes.
type Storage struct{ Used, Reserved uint64 }

// StorageMeter is a Driver that can hold a task to the ephemeral storage that it asks for. Others refuse to create such a task.
type StorageMeter interface {
	// CheckStorage says what this host lacks for it, one line each.
	CheckStorage() []string
	// Storage is what a task has and uses. ErrNotFound: there is no such task, or it asked for none.
	Storage(ctx context.Context, taskID string) (Storage, error)
}
