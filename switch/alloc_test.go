package vswitch

import (
	"testing"
	"time"
	"unsafe"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// TestPushAllocatesNothing gates every way through Push: known and unknown,
// learning, moving, flapping, evicting, dropping, too long.
func TestPushAllocatesNothing(t *testing.T) {
	n := benchNet(t, 4, 64, 0)
	var b dataplane.Batch
	fill(&b, mac, func(i int) wire.MAC { return mac(1000 + i) })
	i := 0
	allocs := testing.AllocsPerRun(2000, func() {
		for k := range b.Frames {
			f := &b.Frames[k]
			mac(i * 11 % 97).Put(f.Bytes())
			mac(i % 8).Put(f.Bytes()[wire.EthSrc:]) // They flap.
			if i%8 == 0 {
				mac(i * 7 % 89).Put(f.Bytes()[wire.EthSrc:])
			}
			switch i % 97 {
			case 1:
				wire.Broadcast.Put(f.Bytes())
			case 2:
				wire.MAC(0x0180c2000001).Put(f.Bytes())
			case 3:
				wire.MAC(0).Put(f.Bytes()[wire.EthSrc:])
			}
			i++
		}
		b.In = dataplane.PortID(1 + i/64%2)
		b.Now += int64(50 * time.Millisecond)
		n.Push(&b)
	})
	if allocs != 0 {
		t.Errorf("Push allocates %v times", allocs)
	}
	st := n.Stats()
	if st.Learned == 0 || st.Moves == 0 || st.Evicted == 0 || st.Held == 0 {
		t.Errorf("not every way was gone: %+v", st)
	}
}

func TestAMACTakesAtMost32Bytes(t *testing.T) {
	f := &New(1, DefaultMACs).fdb
	size := len(f.cells)*int(unsafe.Sizeof(cell{})) + len(f.links)*int(unsafe.Sizeof(link{}))
	if size > 32*DefaultMACs {
		t.Errorf("%d bytes for %d MACs, %.1f each", size, DefaultMACs, float64(size)/DefaultMACs)
	}
}

func TestExpireAllocatesNothing(t *testing.T) {
	n := benchNet(t, 2, 1000, 0)
	if err := n.Configure(NetworkConfig{Ageing: time.Second}); err != nil {
		t.Fatal(err)
	}
	now := int64(0)
	if allocs := testing.AllocsPerRun(100, func() {
		learnNext(n, 0, now)
		now += int64(time.Minute)
		n.sw.Expire(now, 1000)
	}); allocs != 0 {
		t.Errorf("learning and ageing 1,000 MACs allocates %v times", allocs)
	}
}
