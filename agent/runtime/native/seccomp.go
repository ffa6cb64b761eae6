//go:build linux && cgo && seccomp

package native

/*
#cgo LDFLAGS: -Wl,--wrap=seccomp_rule_add_array -Wl,--wrap=seccomp_export_bpf -lseccomp
void neargate_filter_cache(int fd);
*/
import "C"

// cacheFilter lets libseccomp keep a compiled filter in a file, or take it from there.
func cacheFilter(fd uintptr) { C.neargate_filter_cache(C.int(fd)) }
