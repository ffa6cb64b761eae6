// Package version is the number by which builds of this program that run side by side tell what they may say to one another.
//
// It is raised with a build that writes or sends what the builds before would misunderstand or must not lose the meaning of;
// docs/design/upgrade.md says when. It is no release: many have one number.
package version

// OldestAgent is the lowest version of agents that servers of this build work with.
const OldestAgent = 1

// Of is the version that a host states; one that states none is of the first.
func Of(stated uint32) uint32 { return max(stated, 1) }
