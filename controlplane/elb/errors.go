package elb

import "github.com/seed-2f228079/neargate/internal/awserr"

// The family's errors, in the words of Elastic Load Balancing (API reference, version 2015-12-01).

func invalid(format string, args ...any) error { return awserr.New("ValidationError", format, args...) }

func loadBalancerNotFound() error {
	return awserr.New("LoadBalancerNotFound", "One or more load balancers not found")
}

func listenerNotFound() error {
	return awserr.New("ListenerNotFound", "One or more listeners not found")
}
func ruleNotFound() error { return awserr.New("RuleNotFound", "One or more rules not found") }
func targetGroupNotFound() error {
	return awserr.New("TargetGroupNotFound", "One or more target groups not found")
}

// notYet refuses clearly what this platform does not do, instead of accepting and ignoring it.
func notYet(what string) error {
	return awserr.New("UnsupportedOperation", "%s is not supported by this platform yet", what)
}
