package format

// SetPayload gives a frame that was made from something other than an archive
// of this format its payload. The frame owns b from then on, until Release.
func (f *Frame) SetPayload(b *Buffer) { f.buf, f.Len = b, int64(len(b.Bytes())) }
