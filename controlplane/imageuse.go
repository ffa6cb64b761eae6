package controlplane

import (
	"iter"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// ImageUse is an image that a task or a service needs.
type ImageUse struct {
	Region string // of who needs it
	Image  string // as the task definition names it
	Digest string // what that name turned out to be; empty: not known (yet)
	By     string // ARN of the task or service
}

// ImagesInUse yields the images of an account's live tasks and of its services' deployments: of the revisions that may be
// started again at any moment. An image may come more than once.
func ImagesInUse(r state.Reader, account string) iter.Seq[ImageUse] {
	return func(yield func(ImageUse) bool) {
		images := map[state.Key]map[string]string{} // of a revision: image by container
		use := func(s Scope, revision, by string, digests map[string]string) bool {
			key := s.FamilyRevisionKey(revision)
			if images[key] == nil {
				images[key] = map[string]string{}
				if d, ok := TaskDefinitions.Get(r, key); ok {
					for _, c := range d.Shape().ContainerDefinitions {
						images[key][aws.ToString(c.Name)] = aws.ToString(c.Image)
					}
				}
			}
			for container, image := range images[key] {
				if !yield(ImageUse{Region: s.Region, Image: image, Digest: digests[container], By: by}) {
					return false
				}
			}
			return true
		}
		for d := range Deployments.Scan(r, state.K(account)) {
			if d.Status == "INACTIVE" {
				continue
			}
			s := Scope{d.Account, d.Region}
			if !use(s, d.TaskDefinition, s.ServiceARN(d.Cluster, d.Service), d.ImageDigests) {
				return
			}
		}
		for st := range LiveTasks.Scan(r, state.K(account)) {
			t, ok := Tasks.Get(r, TaskStatuses.Key(st))
			if !ok {
				continue
			}
			digests := map[string]string{}
			for _, c := range st.GetReport().GetContainers() {
				digests[c.Name] = c.ImageDigest
			}
			if !use(t.Scope(), t.TaskDefinition, t.ARN(), digests) {
				return
			}
		}
	}
}
