package runtime

import (
	"context"
	"time"
)

// Cleanup says which images may go.
type Cleanup struct {
	MinimumAge time.Duration // since an image was last pulled, or in use by a task
	Most       int           // of images at once; 0: as many as there are
}

// ImageCleaner is a Driver whose images nobody else cleans up.
type ImageCleaner interface {
	// CleanImages removes images that no task uses, the longest unused first, with what only they needed. It answers by which
	// references the removed ones were known. What is being pulled meanwhile is spared.
	CleanImages(ctx context.Context, c Cleanup) (removed []string, err error)
}

// Keeping is a Driver that knows which images it has without asking anybody.
type Keeping interface {
	// AtHand is the image that was pulled by this name before, if that is what digest says and all of it is still here. It counts as used, as by a pull.
	AtHand(image, digest string) (Image, bool)
}

// Warming is a Driver that can have sandboxes ready for tasks like those that run here, which then start without waiting for one.
type Warming interface {
	// KeepWarm makes them, as far as the driver was told to, until ctx ends; then it removes those that no task has taken.
	KeepWarm(ctx context.Context) error
}
