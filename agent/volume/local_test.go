package volume

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

func TestLocalOf(t *testing.T) {
	type options = map[string]string
	for name, c := range map[string]struct {
		options options
		want    Local
		refused string
	}{
		"nothing":           {nil, Local{}, ""},
		"tmpfs":             {options{"type": "tmpfs", "device": "tmpfs", "o": "size=10m,uid=1000,noexec,ro"}, Local{Tmpfs: &Tmpfs{8 | 1, "size=10m,uid=1000"}}, ""},
		"tmpfs, as it is":   {options{"type": "tmpfs"}, Local{Tmpfs: &Tmpfs{}}, ""},
		"bind":              {options{"type": "none", "device": "/srv/x/", "o": "bind"}, Local{Bind: "/srv/x"}, ""},
		"bind, read-only":   {options{"device": "/srv/x", "o": "rbind,ro"}, Local{Bind: "/srv/x", ReadOnly: true}, ""},
		"NFS":               {options{"type": "nfs", "device": ":/x", "o": "addr=10.0.0.1"}, Local{}, "type \"nfs\" is not supported"},
		"a disk":            {options{"type": "ext4", "device": "/dev/sda1"}, Local{}, "type \"ext4\" is not supported"},
		"no bind":           {options{"type": "none", "device": "/srv/x"}, Local{}, "\"bind\" must be among the options"},
		"no path":           {options{"type": "none", "device": "srv/x", "o": "bind"}, Local{}, "not an absolute path"},
		"unknown":           {options{"size": "10m"}, Local{}, "option \"size\""},
		"kernel's data":     {options{"type": "tmpfs", "o": "size=10m,huge=always"}, Local{}, "\"huge=always\" is not an option"},
		"a flag of another": {options{"type": "none", "device": "/srv/x", "o": "bind,remount"}, Local{}, "\"remount\" is not an option"},
	} {
		got, err := LocalOf(&agentapi.VolumeSpec{Name: "v", DriverOptions: c.options})
		if c.refused != "" {
			if err == nil || !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", name, err, diff)
		}
	}
}
