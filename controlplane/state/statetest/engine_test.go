package statetest_test

import (
	"testing"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
)

func TestEngine(t *testing.T) {
	statetest.RunEngine(t, func(string) (state.Engine, error) { return statetest.NewEngine(), nil })
}
