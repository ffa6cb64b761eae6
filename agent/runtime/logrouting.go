package runtime

// LogRouting is a Driver that can run log routers (FireLens): it gives the container its configuration as a file, shares /var/run with it, and
// sends what containers with log driver awsfirelens write through the socket that it makes there.
type LogRouting interface {
	RoutesLogs()
}
