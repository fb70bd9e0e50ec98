//go:build !unix

package cli

// reader and writer: a read or write of a pipe cannot be ended here.

func (p *Pipe) reader() func([]byte) (int, error) { return p.file.Read }

func (p *Pipe) writer() (write func([][]byte) (int, error), undo func(), err error) {
	return p.writeFile, func() {}, nil
}
