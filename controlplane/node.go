package controlplane

import "github.com/seed-2f228079/neargate/internal/version"

// AtVersion says whether the node's agent understands what came with version n: in its assignments and the other sets, and in calls. Whoever
// sends such a thing, or places a task that needs it, asks. Of servers upgrade.At is asked.
func (n *Node) AtVersion(v uint32) bool { return version.Of(n.GetSpeaks()) >= v }
