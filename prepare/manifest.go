package prepare

import (
	"encoding/json"
	"os"

	"github.com/xbstream/xbstream/format"
)

// readManifest reads a manifest as it lies in a restored directory.
func readManifest(path string) (*format.Manifest, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var m struct {
		format.Manifest
		Files []format.File `json:"files"`
	}
	if err := json.NewDecoder(f).Decode(&m); err != nil {
		return nil, err
	}
	m.Manifest.Files = m.Files
	return &m.Manifest, nil
}
