package prepare

import (
	"os"

	"github.com/xbstream/xbstream/format"
)

// readManifest reads a manifest as it lies in a restored directory. Of its
// files only those of tablespaces are kept, left out or not: nothing else is
// recovered.
func readManifest(path string) (*format.Manifest, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var files []format.File
	m, err := format.DecodeRestored(f, func(f *format.File) error {
		switch f.Kind {
		case format.KindSystem, format.KindUndo, format.KindTablespace, format.KindLeftOut:
			files = append(files, *f)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	m.Files = files
	return m, nil
}
