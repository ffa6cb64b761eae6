package main

import (
	"context"
	"errors"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/client"
)

func execCommand() *cobra.Command {
	var eo client.ExecOptions
	var interactive, tty bool
	cmd := &cobra.Command{
		Use: "exec TASK [-- COMMAND...]", Short: "Run a command in a container of a running task", Args: cobra.MinimumNArgs(1),
		Long: `Run a command in a container of a running task, as its root, and end with its exit code. Without a command it is a shell, /bin/sh.
The task must have been started with ECS Exec enabled (--enable-execute-command of the AWS CLI and of "neargate run" and "deploy").`,
		Example: "  neargate exec -it 4b1c\n  neargate exec 4b1c -- cat /etc/hosts\n  neargate exec -i --container db 4b1c -- psql < dump.sql",
	}
	cmd.Flags().BoolVarP(&interactive, "interactive", "i", false, "give the command this one's input")
	cmd.Flags().BoolVarP(&tty, "tty", "t", false, "give the command a terminal")
	cmd.Flags().StringVar(&eo.Container, "container", "", "which container (default: the task's only one)")
	return clientVerb(cmd, "", func(cmd *cobra.Command, args []string, c *client.Client, o *connection) error {
		t, err := c.FindTask(cmd.Context(), o.cluster, args[0])
		if err != nil {
			return err
		}
		eo.Command = args[1:]
		if len(eo.Command) == 0 {
			eo.Command = []string{"/bin/sh"}
		}
		eo.Stdout, eo.Stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
		if interactive {
			eo.Stdin = cmd.InOrStdin()
		}
		code, err := runExec(cmd.Context(), c, t, eo, tty)
		if err == nil && code != 0 {
			err = exitCode(code)
		}
		return err
	})
}

// runExec lends the command this process's terminal for as long as it runs, if it is to have one.
func runExec(ctx context.Context, c *client.Client, t client.Task, eo client.ExecOptions, tty bool) (int, error) {
	if !tty {
		return c.Exec(ctx, t, eo)
	}
	fd := int(os.Stdin.Fd())
	restore, err := rawTerminal(fd)
	if err != nil {
		return 0, errors.New("-t needs a terminal, which the input is not: leave it away to use pipes")
	}
	defer restore()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	eo.Terminal = &client.ExecTerminal{Sizes: terminalSizes(ctx, fd)}
	return c.Exec(ctx, t, eo)
}

// rawTerminal lets every key through to the other end: echo, editing and signals are the other terminal's.
func rawTerminal(fd int) (restore func(), err error) {
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	raw := *before
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return nil, err
	}
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, before) }, nil
}

// terminalSizes are the terminal's size and each one that it changes to.
func terminalSizes(ctx context.Context, fd int) <-chan client.TerminalSize {
	sizes, changed := make(chan client.TerminalSize), make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGWINCH)
	go func() {
		defer close(sizes)
		defer signal.Stop(changed)
		for {
			var size client.TerminalSize
			if w, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); err == nil {
				size = client.TerminalSize{Columns: uint32(w.Col), Rows: uint32(w.Row)}
			}
			select {
			case sizes <- size:
			case <-ctx.Done():
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return sizes
}
