package daemon

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"heddle/dataplane/capture"
)

// captureComment tells the reader of a file what to expect in it.
const captureComment = "Frames as they passed inside the switch: not yet segmented, so that they may be longer than the MTU, and with partial checksums where the sender left them to its device."

// pcapng writes records as a file (draft-ietf-opsawg-pcapng) to a client. Each
// port is two interfaces of its name, one for each direction.
type pcapng struct {
	out     *streamWriter
	ng      *pcapgo.NgWriter
	t       *activeCapture
	req     captureRequest
	base    time.Time // When the engine's clock was zero.
	faces   map[face]int
	written uint64 // Frames.
	left    uint64 // Frames until the count that was asked for.
	dirty   bool   // Something waits to be flushed.
}

// face is an interface of the file: a port and a direction.
type face struct {
	port string
	dir  capture.Direction
}

// newPcapng writes the file's header, and the interfaces of the ports that are
// mirrored now.
func newPcapng(d *Daemon, out *streamWriter, t *activeCapture, req captureRequest) (*pcapng, error) {
	p := &pcapng{
		out: out, t: t, req: req, left: req.count,
		base:  time.Now().Add(-time.Duration(d.now())),
		faces: make(map[face]int),
		dirty: true,
	}
	var ports []string
	t.mu.Lock()
	for _, name := range t.names {
		ports = append(ports, name)
	}
	t.mu.Unlock()
	slices.Sort(ports)
	for _, name := range append(ports, t.port) {
		for _, dir := range []capture.Direction{capture.In, capture.Out} {
			if name == "" {
				continue
			}
			if err := p.begin(d.opts.Version, name, dir); err != nil {
				return p, err
			}
		}
	}
	if p.ng == nil {
		// The library can't write a file without an interface. No frame is
		// ever of this one.
		return p, p.begin(d.opts.Version, t.network, capture.In)
	}
	return p, nil
}

// begin adds an interface, after the file's header if it is the first.
func (p *pcapng) begin(version, name string, dir capture.Direction) (err error) {
	if _, ok := p.faces[face{name, dir}]; ok {
		return nil
	}
	if p.ng != nil {
		_, err = p.face(name, dir)
		return err
	}
	p.ng, err = pcapgo.NewNgWriterInterface(p.out, p.describe(name, dir), pcapgo.NgWriterOptions{
		SectionInfo: pcapgo.NgSectionInfo{Application: "swd " + version, Comment: captureComment},
	})
	if err != nil {
		return fmt.Errorf("pcapng: %w", err)
	}
	p.faces[face{name, dir}] = 0
	return nil
}

func (p *pcapng) describe(name string, dir capture.Direction) pcapgo.NgInterface {
	what := "in: what came into the switch by the port"
	if dir == capture.Out {
		what = "out: what left the switch by the port"
	}
	return pcapgo.NgInterface{
		Name: name, Description: what, Filter: p.req.expr, OS: "linux",
		LinkType: layers.LinkTypeEthernet, SnapLength: uint32(p.req.snaplen), TimestampResolution: 9,
	}
}

// face returns the number of an interface in the file, which it adds if it is
// new.
func (p *pcapng) face(name string, dir capture.Direction) (int, error) {
	f := face{name, dir}
	if id, ok := p.faces[f]; ok {
		return id, nil
	}
	id, err := p.ng.AddInterface(p.describe(name, dir))
	if err != nil {
		return 0, fmt.Errorf("pcapng: %w", err)
	}
	p.faces[f] = id
	return id, nil
}

// record writes a frame if the filter selects it and more are wanted.
func (p *pcapng) record(rec capture.Record) error {
	if p.left == 0 || !p.req.filter.Match(rec.Data, rec.Len) {
		return nil
	}
	id, err := p.face(p.t.name(rec.Port), rec.Dir)
	if err != nil {
		return err
	}
	data := rec.Data
	if p.req.snaplen > 0 {
		data = data[:min(len(data), p.req.snaplen)]
	}
	err = p.ng.WritePacket(gopacket.CaptureInfo{
		Timestamp:      p.base.Add(time.Duration(rec.Time)),
		CaptureLength:  len(data),
		Length:         rec.Len,
		InterfaceIndex: id,
	}, data)
	if err != nil {
		return fmt.Errorf("pcapng: %w", err)
	}
	p.written++
	p.left--
	p.dirty = true
	return nil
}

// flush sends what was written.
func (p *pcapng) flush() error {
	if !p.dirty {
		return nil
	}
	p.dirty = false
	if err := p.ng.Flush(); err != nil {
		return fmt.Errorf("pcapng: %w", err)
	}
	return p.out.Flush()
}

// full tells whether the client has all the frames that it asked for.
func (p *pcapng) full() bool { return p.left == 0 }
