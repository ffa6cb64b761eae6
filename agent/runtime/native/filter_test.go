//go:build linux && cgo && seccomp

package native

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// loaded reads back the filter of a process, as the kernel was given it; nil: this kernel does not tell.
func loaded(t *testing.T, pid int) []bpf.RawInstruction {
	t.Helper()
	goruntime.LockOSThread() // the one that traces
	defer goruntime.UnlockOSThread()
	if err := unix.PtraceAttach(pid); err != nil {
		t.Fatal(err)
	}
	defer unix.PtraceDetach(pid)
	if _, err := unix.Wait4(pid, nil, unix.WALL, nil); err != nil {
		t.Fatal(err)
	}
	get := func(nth, to uintptr) (int, unix.Errno) {
		n, _, e := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SECCOMP_GET_FILTER, uintptr(pid), nth, to, 0, 0)
		return int(n), e
	}
	n, e := get(0, 0)
	if e == unix.EIO || e == unix.EACCES || e == unix.EINVAL {
		return nil
	} else if e != 0 {
		t.Fatalf("filter of process %d: %v", pid, e)
	}
	if _, e := get(1, 0); e != unix.ENOENT {
		t.Errorf("process %d has more than one filter: %v", pid, e)
	}
	read := make([]unix.SockFilter, n)
	if _, e := get(0, uintptr(unsafe.Pointer(&read[0]))); e != 0 {
		t.Fatal(e)
	}
	program := make([]bpf.RawInstruction, n)
	for i, r := range read {
		program[i] = bpf.RawInstruction{Op: r.Code, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return program
}

// verdicts runs a filter for every system call there is, and some that there are not, of some architectures and with some arguments. (Two
// compilations of one profile need not be equal byte for byte: libcontainer goes through a map.)
func verdicts(t *testing.T, program []bpf.RawInstruction) (list []int) {
	t.Helper()
	instructions, ok := bpf.Disassemble(program)
	if !ok {
		t.Fatal("the filter has instructions that nobody knows")
	}
	vm, err := bpf.NewVM(instructions)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 64)
	for _, arch := range []uint32{unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_AARCH64, unix.AUDIT_ARCH_ARM} {
		for n := range uint32(520) {
			for _, bit := range []uint32{0, 1 << 30} { // of x32
				for _, arg := range []uint32{0, 2, 8, 40, 0x7e020000, ^uint32(0)} {
					for i := 0; i < len(data); i += 4 { // the machine of that package reads big-endian words
						binary.BigEndian.PutUint32(data[i:], 0)
						if i >= 16 && i%8 == 0 {
							binary.BigEndian.PutUint32(data[i:], arg)
						}
					}
					binary.BigEndian.PutUint32(data, n|bit)
					binary.BigEndian.PutUint32(data[4:], arch)
					v, err := vm.Run(data)
					if err != nil {
						t.Fatal(err)
					}
					list = append(list, v)
				}
			}
		}
	}
	return list
}

// What is refused, and how, is the same whether libseccomp compiled the filter for this container, it was kept, its file is damaged, or
// the container was made ahead; for the program and for a command beside it.
func TestFilterIsTheSameFromItsFile(t *testing.T) {
	for name, change := range map[string]func(*agentapi.ContainerSpec){
		"default": func(*agentapi.ContainerSpec) {},
		"capabilities": func(c *agentapi.ContainerSpec) {
			c.AddCapabilities, c.DropCapabilities = []string{"SYS_ADMIN", "SYS_PTRACE"}, []string{"SYS_CHROOT"}
		},
		"no new privileges": func(c *agentapi.ContainerSpec) { c.NoNewPrivileges, c.User = true, "alice" },
	} {
		t.Run(name, func(t *testing.T) {
			d, image := warmDriver(t, Config{Warm: 1})
			filters := filepath.Join(d.cfg.Dir, "bin", "filters")
			var want string
			var wantVerdicts []int
			for _, way := range []string{"compiled", "kept", "damaged", "made ahead"} {
				files, err := filepath.Glob(filepath.Join(filters, "*"))
				if err != nil || (len(files) == 0) != (way == "compiled") {
					t.Fatalf("%s: %q, %v", way, files, err)
				}
				switch way {
				case "damaged":
					b, err := os.ReadFile(files[0])
					if err == nil {
						b[len(b)-100] ^= 1
						err = os.WriteFile(files[0], b, 0o600)
					}
					if err != nil {
						t.Fatal(err)
					}
				case "made ahead":
					if err := os.Remove(files[0]); err != nil { // by which it was damaged
						t.Fatal(err)
					}
				}
				if way == "made ahead" {
					awaitWarm(t, d, 1)
				} else {
					emptyPool(t, d)
				}
				task := newTask(image, "refused", "then", "print", "done", "then", "wait")
				change(task.Spec.Containers[0])
				_, started := launch(t, d, task)
				untilPrinted(t, d, task.ID, "done")
				var beside bytes.Buffer
				if code, err := d.Exec(t.Context(), task.ID, "main", runtime.Command{Args: []string{"/prog", "refused"}, Output: &beside}); err != nil || code != 0 {
					t.Fatalf("%s: exec ended with %d, %v", way, code, err)
				}
				filter := loaded(t, started.PID)
				if err := d.Stop(t.Context(), task.ID, "main", patience); err != nil {
					t.Fatal(err)
				}
				_, out := finish(t, d, task)
				out = out[:bytes.Index([]byte(out), []byte("done"))]
				if want == "" {
					want = out
				}
				if diff := cmp.Diff(want, out); diff != "" {
					t.Errorf("%s: the program is refused\n%s", way, diff)
				}
				if diff := cmp.Diff(want, beside.String()); diff != "" {
					t.Errorf("%s: a command beside it is refused\n%s", way, diff)
				}
				if filter == nil {
					t.Log("this kernel does not show which filter is loaded: only what it refuses is compared")
				} else if v := verdicts(t, filter); wantVerdicts == nil {
					wantVerdicts = v
				} else if !slices.Equal(v, wantVerdicts) {
					t.Errorf("%s: the filter that was loaded decides otherwise", way)
				}
			}
		})
	}
}

// A container that may write no file starts, though its init is the first with its filter.
func TestFilterOfAContainerThatWritesNothing(t *testing.T) {
	d, image := newDriver(t)
	task := newTask(image, "print", "up")
	task.Spec.Containers[0].Ulimits = []*agentapi.Ulimit{{Name: "fsize", Soft: 0, Hard: 0}}
	launch(t, d, task)
	if e, out := finish(t, d, task); e.Code != 0 || out != "up\n" {
		t.Errorf("%+v, %q", e, out)
	}
}

// The file is of the host's root alone.
func TestFilterFilesAreClosedToOthers(t *testing.T) {
	d, image := newDriver(t)
	task := newTask(image, "exit", "0")
	launch(t, d, task)
	finish(t, d, task)
	files, err := filepath.Glob(filepath.Join(d.cfg.Dir, "bin", "filters", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%q, %v", files, err)
	}
	st, err := os.Stat(files[0])
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

// The kept program is what is loaded: with another in its place, of the same rules, that one is.
func TestFilterComesFromItsFile(t *testing.T) {
	d, image := newDriver(t)
	refused := func() string {
		task := newTask(image, "refused")
		launch(t, d, task)
		_, out := finish(t, d, task)
		return out
	}
	if out := refused(); !strings.Contains(out, fmt.Sprintf("call %d %d\n", unix.SYS_KEYCTL, unix.EPERM)) {
		t.Fatalf("keyctl was not refused: %q", out)
	}
	files, err := filepath.Glob(filepath.Join(d.cfg.Dir, "bin", "filters", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%q, %v", files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	// A program begins by loading the architecture.
	begins := bytes.Index(text, []byte{unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, 0, 0, 0, 4, 0, 0, 0})
	if begins < 0 {
		t.Fatal("no program in the file")
	}
	allow, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 0x7fff0000}})
	if err != nil {
		t.Fatal(err)
	}
	text = text[:begins]
	text = binary.NativeEndian.AppendUint16(text, allow[0].Op)
	text = append(text, allow[0].Jt, allow[0].Jf)
	text = binary.NativeEndian.AppendUint32(text, allow[0].K)
	sum := fnv.New64a()
	sum.Write(text)
	if err := os.WriteFile(files[0], binary.NativeEndian.AppendUint64(text, sum.Sum64()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := refused(); strings.Contains(out, fmt.Sprintf("call %d %d\n", unix.SYS_KEYCTL, unix.EPERM)) {
		t.Error("the filter was compiled anew")
	}
}
