// Command prog is what the suite's containers run: a static program with one verb for each thing a test looks at.
// "then" joins verbs: prog print a then exit 3.
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	args := os.Args[1:]
	for len(args) > 0 {
		verb := args
		if i := slices.Index(args, "then"); i >= 0 {
			verb, args = args[:i], args[i+1:]
		} else {
			args = nil
		}
		if err := run(verb[0], verb[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "prog:", err)
			os.Exit(1)
		}
	}
}

func run(verb string, args []string) error {
	switch verb {
	case "print":
		fmt.Println(strings.Join(args, " "))
	case "warn":
		fmt.Fprintln(os.Stderr, strings.Join(args, " "))
	case "args":
		fmt.Printf("%q\n", os.Args)
	case "env":
		for _, e := range os.Environ() {
			fmt.Println(e)
		}
	case "id":
		groups, err := os.Getgroups()
		if err != nil {
			return err
		}
		slices.Sort(groups)
		fmt.Println(os.Getuid(), os.Getgid(), groups)
	case "pwd":
		wd, err := os.Getwd()
		if err != nil {
			return err
		}
		fmt.Println(wd)
	case "hostname":
		h, err := os.Hostname()
		if err != nil {
			return err
		}
		fmt.Println(h)
	case "cpus":
		fmt.Println(runtime.GOMAXPROCS(0))
	case "cat":
		b, err := os.ReadFile(args[0])
		if err != nil {
			return err
		}
		os.Stdout.Write(b)
	case "ls":
		entries, err := os.ReadDir(args[0])
		if err != nil {
			return err
		}
		for _, e := range entries {
			fmt.Println(e.Name())
		}
	case "stat":
		st, err := os.Stat(args[0])
		if err != nil {
			return err
		}
		owner := st.Sys().(*syscall.Stat_t)
		fmt.Println(st.Mode(), owner.Uid, owner.Gid)
	case "write":
		return os.WriteFile(args[0], []byte(args[1]+"\n"), 0o644)
	case "fill": // writes so many MiB to a file, and says how far it came and what stopped it
		return fill(args[0], args[1])
	case "bomb": // forks for ever; those that get no thread any more die, but for process 1, which needs none
		for {
			c := exec.Command("/proc/self/exe", "bomb")
			if os.Getpid() == 1 {
				_ = c.Run() // another follows
			} else if c.Start() == nil {
				go c.Wait()
			}
		}
	case "count": // how often it ran with this file
		f, err := os.OpenFile(args[0], os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.WriteString("x"); err != nil {
			return err
		}
		st, err := f.Stat()
		if err != nil {
			return err
		}
		fmt.Println(st.Size())
	case "child": // runs itself with these words, and waits
		c := exec.Command("/prog", args...)
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		return c.Run()
	case "processes":
		return processes()
	case "orphan": // leaves a process behind that ends at once
		return exec.Command("/prog", "sleep", "50ms").Start()
	case "sleep":
		d, err := time.ParseDuration(args[0])
		if err != nil {
			return err
		}
		time.Sleep(d)
	case "kill":
		pid, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		return syscall.Kill(pid, syscall.SIGTERM)
	case "open":
		f, err := os.OpenFile(args[0], os.O_RDWR, 0)
		if err == nil {
			f.Close()
		}
		fmt.Println("open:", err)
	case "readlink":
		to, err := os.Readlink(args[0])
		if err != nil {
			return err
		}
		fmt.Println(to)
	case "copy": // its input to its output, until that ends
		n, err := io.Copy(os.Stdout, os.Stdin)
		fmt.Fprintln(os.Stderr, "copied", n)
		return err
	case "lines-of-input": // each as it comes, until one is bye
		for in := bufio.NewScanner(os.Stdin); in.Scan() && in.Text() != "bye"; {
			fmt.Printf("got %q\n", in.Text())
		}
	case "terminal": // waits until its size is this
		size, err := terminalSize()
		for end := time.Now().Add(time.Minute); err == nil && size != args[0] && time.Now().Before(end); size, err = terminalSize() {
			time.Sleep(5 * time.Millisecond)
		}
		if err != nil {
			return err
		}
		fmt.Println("terminal of", size)
	case "terminal-changed": // hears of it that its size has become this
		changed := make(chan os.Signal, 1)
		signal.Notify(changed, syscall.SIGWINCH)
		fmt.Println("watching")
		for range changed {
			if size, err := terminalSize(); err != nil || size == args[0] {
				fmt.Println("now", size)
				return err
			}
		}
	case "stdin": // whether anything may still come
		n, err := 0, error(unix.EINTR)
		for err == unix.EINTR {
			n, err = unix.Poll([]unix.PollFd{{Fd: 0, Events: unix.POLLIN}}, 300)
		}
		if err != nil {
			return err
		}
		fmt.Println(map[bool]string{true: "input ended", false: "input open"}[n > 0])
	case "tty":
		var t syscall.Termios
		for _, f := range []*os.File{os.Stdin, os.Stdout, os.Stderr} {
			_, _, e := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), syscall.TCGETS, uintptr(unsafe.Pointer(&t)))
			fmt.Println(f.Name(), e == 0)
		}
	case "refused": // what becomes of system calls that make no sense
		refused()
	case "try-mount":
		fmt.Println(syscall.Mount("tmpfs", "/", "tmpfs", 0, ""))
	case "exit":
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		os.Exit(n)
	case "kill-self":
		// PID 1 is immune to signals it does not handle, KILL from within included: a fault is not.
		*(*int)(nil) = 0
	case "alloc":
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		b := make([]byte, n<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		fmt.Println("allocated", len(b)>>20)
	case "lines":
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		w := bufio.NewWriter(os.Stdout)
		for i := range n {
			fmt.Fprintf(w, "line %d\n", i)
		}
		return w.Flush()
	case "long":
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		fmt.Println(strings.Repeat("x", n))
	case "wait": // until the signal that args[0] names, default TERM; then says so
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
		fmt.Println("waiting")
		fmt.Println("got", <-c)
	case "ignore":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ignoring")
		time.Sleep(time.Hour)
	case "tick":
		for i := 0; ; i++ {
			fmt.Println("tick", i)
			time.Sleep(10 * time.Millisecond)
		}
	case "route": // as a router does whose configuration, in Fluent Bit's language, is this file: prints what comes, until the signal
		return route(args[0])
	case "proxy": // INGRESS EGRESS ports
		return proxy(args[0], args[1])
	case "serve": // HTTP that answers the text with the peer's address
		return serve(args[0], strings.Join(args[1:], " "))
	case "serve-udp":
		return serveUDP(args[0])
	case "get": // until an answer comes
		return get(args[0])
	case "reaches": // ADDRESS, within a second or the time that follows
		within, err := time.ParseDuration(append(args, "1s")[1])
		if err != nil {
			return err
		}
		conn, err := net.DialTimeout("tcp", args[0], within)
		if err != nil {
			fmt.Println("no")
			return nil
		}
		fmt.Println("yes")
		return conn.Close()
	default:
		return fmt.Errorf("unknown verb %s", verb)
	}
	return nil
}

// refused makes calls that a container's filter tells apart, with arguments that make no sense.
func refused() {
	const no = ^uintptr(0)
	for _, n := range []uintptr{
		syscall.SYS_MOUNT, syscall.SYS_UMOUNT2, syscall.SYS_PIVOT_ROOT, syscall.SYS_CHROOT, syscall.SYS_SWAPON, syscall.SYS_SWAPOFF, syscall.SYS_REBOOT,
		syscall.SYS_SETHOSTNAME, syscall.SYS_SETDOMAINNAME, syscall.SYS_INIT_MODULE, syscall.SYS_DELETE_MODULE, syscall.SYS_KEXEC_LOAD, syscall.SYS_QUOTACTL,
		syscall.SYS_UNSHARE, syscall.SYS_ADD_KEY, syscall.SYS_REQUEST_KEY, syscall.SYS_KEYCTL, syscall.SYS_PTRACE, syscall.SYS_PERSONALITY, syscall.SYS_ACCT,
		syscall.SYS_SETTIMEOFDAY, syscall.SYS_PERF_EVENT_OPEN, syscall.SYS_FANOTIFY_INIT, syscall.SYS_MBIND, syscall.SYS_MOVE_PAGES, syscall.SYS_MQ_OPEN,
		syscall.SYS_TIMER_CREATE, syscall.SYS_INOTIFY_ADD_WATCH, syscall.SYS_SYSLOG, syscall.SYS_NFSSERVCTL, syscall.SYS_CLOCK_SETTIME, syscall.SYS_GETPID,
		// The same on all architectures: pidfd_send_signal, io_uring_setup, open_tree, fsopen, fsmount, pidfd_open, clone3, mount_setattr, landlock, mseal, and none.
		424, 425, 428, 430, 432, 434, 435, 442, 444, 446, 462, 500, 511, 999,
	} {
		_, _, e := syscall.RawSyscall6(n, no, no, no, no, no, no)
		fmt.Println("call", n, int(e))
	}
	for _, family := range []int{syscall.AF_UNIX, syscall.AF_NETLINK, syscall.AF_PACKET, 38 /* AF_ALG */, 40 /* AF_VSOCK */} {
		fd, err := syscall.Socket(family, syscall.SOCK_DGRAM, 0)
		if err == nil {
			syscall.Close(fd)
		}
		fmt.Println("socket", family, err)
	}
}

func processes() error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		b, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if _, number := strconv.Atoi(e.Name()); number != nil || err != nil {
			continue
		}
		words := strings.ReplaceAll(strings.TrimRight(string(b), "\x00"), "\x00", " ")
		if words == "" {
			words = "(ended, or of the kernel)"
		}
		fmt.Println(e.Name(), words)
	}
	return nil
}

func serve(addr, text string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	go func() { <-c; os.Exit(0) }()
	fmt.Println("serving", l.Addr())
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s to %s", text, r.RemoteAddr)
	}))
}

func serveUDP(addr string) error {
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	fmt.Println("serving", pc.LocalAddr())
	b := make([]byte, 1500)
	for {
		n, from, err := pc.ReadFrom(b)
		if err != nil {
			return err
		}
		if _, err := pc.WriteTo(append([]byte("echo "), b[:n]...), from); err != nil {
			return err
		}
	}
}

func get(url string) error {
	c := &http.Client{Timeout: time.Second}
	for end := time.Now().Add(30 * time.Second); ; {
		res, err := c.Get(url)
		if err != nil && time.Now().Before(end) {
			time.Sleep(20 * time.Millisecond)
			continue
		} else if err != nil {
			return err
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			return err
		}
		fmt.Println(string(b))
		return nil
	}
}

func fill(path, mib string) error {
	n, err := strconv.Atoi(mib)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	for i := range n {
		if _, err = f.Write(block); err == nil {
			err = f.Sync()
		}
		if err != nil {
			fmt.Println("stopped at", i, err)
			return nil
		}
	}
	fmt.Println("wrote", n)
	return f.Close()
}

// terminalSize is that of the terminal that stdin is.
func terminalSize() (string, error) {
	var size struct{ rows, columns, x, y uint16 }
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, 0, syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size))); e != 0 {
		return "", e
	}
	return fmt.Sprintf("%d columns and %d rows", size.columns, size.rows), nil
}
