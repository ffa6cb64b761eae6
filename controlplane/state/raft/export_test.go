package raft

// ApplyRaw has an entry committed as it is and returns what the machine made of it.
func (e *Engine) ApplyRaw(entry []byte) error {
	f := e.raft.Apply(seal(entry), 0)
	if err := f.Error(); err != nil {
		return err
	}
	err, _ := f.Response().(error)
	return err
}
