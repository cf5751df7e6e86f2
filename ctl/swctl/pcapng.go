package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// Blocks of pcapng (draft-ietf-opsawg-pcapng section 3.1): type, total length,
// body, total length again, in swd's byte order, which is little endian.
const (
	blockHeader = 8       // Bytes of the type and the first total length.
	blockMin    = 12      // Bytes of a block without a body.
	blockMax    = 1 << 20 // Bytes, above that of a 64 KB frame with options.
	blockFrame  = 6       // The enhanced packet block (section 4.3).
)

// captureMode is a new file's: what passed a network is nobody else's business.
const captureMode = 0o600

var errNotPcapng = errors.New("swd sent something that is no pcapng")

// blockWriter passes a pcapng stream on and knows how far it is whole.
type blockWriter struct {
	out    io.Writer
	whole  int64  // Bytes up to the end of the last block that was written whole.
	frames uint64 // Frames in them.

	kind    uint32
	header  [blockHeader]byte
	have    int   // Bytes of header.
	left    int64 // Bytes of the block behind them that are still to come.
	written int64
}

// Write passes b on. What out took before it failed is accounted for.
func (w *blockWriter) Write(b []byte) (int, error) {
	n, err := w.out.Write(b)
	if n < 0 || n > len(b) {
		n = 0
	}
	if walkErr := w.walk(b[:n]); walkErr != nil {
		return n, walkErr
	}
	return n, err
}

// walk follows the blocks through what was written.
func (w *blockWriter) walk(b []byte) error {
	for len(b) > 0 {
		if w.have < blockHeader {
			n := copy(w.header[w.have:], b)
			w.have, w.written, b = w.have+n, w.written+int64(n), b[n:]
			if w.have < blockHeader {
				return nil
			}
			w.kind = binary.LittleEndian.Uint32(w.header[:])
			length := int64(binary.LittleEndian.Uint32(w.header[4:]))
			if length < blockMin || length > blockMax || length%4 != 0 {
				return errNotPcapng
			}
			w.left = length - blockHeader
		}
		n := min(w.left, int64(len(b)))
		w.left, w.written, b = w.left-n, w.written+n, b[n:]
		if w.left == 0 {
			w.have, w.whole = 0, w.written
			if w.kind == blockFrame {
				w.frames++
			}
		}
	}
	return nil
}

// sink is where a capture goes.
type sink interface {
	io.Writer
	// finish ends it; whole is how many bytes of what was written are whole
	// blocks.
	finish(whole int64) error
}

// streamSink is stdout: what is written is written.
type streamSink struct{ w io.Writer }

// Write writes to the stream.
func (s *streamSink) Write(b []byte) (int, error) { return s.w.Write(b) }

func (s *streamSink) finish(int64) error { return nil }

// fileSink is a file that is made when the first bytes come, so that a capture
// that swd refuses neither makes nor empties one.
type fileSink struct {
	path string
	file *os.File
}

// Write writes to the file.
func (s *fileSink) Write(b []byte) (int, error) {
	if s.file == nil {
		f, err := os.OpenFile(s.path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, captureMode)
		if err != nil {
			return 0, err
		}
		s.file = f
	}
	return s.file.Write(b)
}

// finish cuts a regular file back to its whole blocks and closes it. One that
// holds none is removed.
func (s *fileSink) finish(whole int64) error {
	if s.file == nil {
		return nil
	}
	st, err := s.file.Stat()
	if err == nil && st.Mode().IsRegular() && st.Size() > whole {
		err = s.file.Truncate(whole)
	}
	if err == nil && st.Mode().IsRegular() && whole == 0 {
		err = os.Remove(s.path)
	}
	if err = errors.Join(err, s.file.Close()); err != nil {
		return fmt.Errorf("finish %s: %w", s.path, err)
	}
	return nil
}
