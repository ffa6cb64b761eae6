package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/seed-2f228079/neargate/internal/datadir"
)

// beganFile, in the folder of keys, says that a server of several has kept the state on its disk.
const beganFile = "state-began"

// checkBegan refuses to begin anew where a member's state is gone and its keys are not. Such a server would vote with an empty log: a majority could
// form of it and of one that lacks what was acknowledged, and that would be lost.
func checkBegan(dir *datadir.Dir) error {
	state := dir.State("main")
	_, began := os.Stat(filepath.Join(dir.Keys(), beganFile))
	_, err := os.Stat(filepath.Join(state, "log"))
	if began == nil && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is gone, which holds what this server, %s, has acknowledged: run `neargate operator remove %s` at another one, empty %s, and have it join anew, with a token",
			state, dir.ID(), dir.ID(), dir.Path())
	}
	return nil
}

// noteBegan is called once there is a state.
func noteBegan(dir *datadir.Dir) error {
	return datadir.WriteFile(filepath.Join(dir.Keys(), beganFile), []byte("the state of this server is in "+dir.State("main")+"\n"))
}
