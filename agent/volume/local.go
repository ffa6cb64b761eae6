package volume

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// Local is what the options of Docker's local driver make of a volume: a folder of the host, or a tmpfs. The zero value is a volume
// without options.
type Local struct {
	Bind     string // the folder of the host; it must be there
	ReadOnly bool   // of a folder
	Tmpfs    *Tmpfs
}

// Tmpfs is how one is mounted.
type Tmpfs struct {
	Flags uintptr
	Data  string
}

// mountFlags are those of mount(2), in numbers: this package is built for other systems as well.
var mountFlags = map[string]uintptr{
	"ro": 1, "rw": 0, "nosuid": 2, "suid": 0, "nodev": 4, "dev": 0, "noexec": 8, "exec": 0,
	"noatime": 1 << 10, "nodiratime": 1 << 11, "relatime": 1 << 21, "strictatime": 1 << 24,
}

var tmpfsData = []string{"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks"}

// LocalOf reads a volume's driver options: type, device and o, a list with commas between its members.
func LocalOf(v *agentapi.VolumeSpec) (Local, error) {
	var l Local
	if len(v.DriverOptions) == 0 {
		return l, nil
	}
	for name := range v.DriverOptions {
		if !slices.Contains([]string{"type", "device", "o"}, name) {
			return l, fmt.Errorf("option %q is not one of the local driver: it has type, device and o", name)
		}
	}
	var options []string
	for o := range strings.SplitSeq(v.DriverOptions["o"], ",") {
		if o != "" {
			options = append(options, o)
		}
	}
	device := v.DriverOptions["device"]
	switch kind := v.DriverOptions["type"]; kind {
	case "tmpfs":
		return Local{Tmpfs: &Tmpfs{}}.tmpfs(options)
	case "none", "bind", "":
		return l.bind(device, options)
	default:
		return l, fmt.Errorf("type %q is not supported: tmpfs and none, with bind among the options, are", kind)
	}
}

func (l Local) tmpfs(options []string) (Local, error) {
	var data []string
	for _, o := range options {
		name, value, valued := strings.Cut(o, "=")
		flag, isFlag := mountFlags[o]
		switch {
		case isFlag:
			l.Tmpfs.Flags |= flag
		case valued && value != "" && slices.Contains(tmpfsData, name):
			data = append(data, o)
		default:
			return l, fmt.Errorf("%q is not an option of a tmpfs", o)
		}
	}
	l.Tmpfs.Data = strings.Join(data, ",")
	return l, nil
}

func (l Local) bind(device string, options []string) (Local, error) {
	bound := false
	for _, o := range options {
		switch o {
		case "bind", "rbind":
			bound = true
		case "ro":
			l.ReadOnly = true
		case "rw":
		default:
			return l, fmt.Errorf("%q is not an option of a folder of the host", o)
		}
	}
	if !bound {
		return l, fmt.Errorf("without a type, %q must be among the options", "bind")
	}
	if !filepath.IsAbs(device) {
		return l, fmt.Errorf("device %q is not an absolute path", device)
	}
	l.Bind = filepath.Clean(device)
	return l, nil
}
