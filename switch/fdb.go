// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package vswitch

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"heddle/dataplane"
)

// fdb is the forwarding database of all networks of a Switch.
//
// # What
//
// One open-addressed table of 16-byte cells. The key is the MAC and the
// network's index in one word, so one load compares both; the value is port,
// flags and the second in which the MAC was last seen in another, so one store
// changes all of it. A MAC's home is the first cell of a cache line of four;
// from there cells are probed one after the other. The table doesn't wrap
// round: probeLimit spare cells stand behind the last home. Beside the cells,
// 8 bytes each, stand the links of lists that only learning uses.
//
// Each port has its dynamic entries in a doubly linked list in the order in
// which they were last seen (as Open vSwitch's mac-learning does), so its head
// is exactly the oldest: ageing pops heads that are too old, eviction pops the
// head of the port that holds most, which a heap knows. Neither ever searches.
// Static entries are in a list of their own and neither age nor are evicted, and
// so are announced ones, which control code was told of from elsewhere.
//
// # How it fills
//
// The table has 32/25 cells for each entry it may hold: 78% full at most, and
// 24 B · 32/25 = 30.7 B an entry. Memory becomes resident as it is used. Cells
// probed, and cache lines touched, with 1 M entries' room and random seeds:
//
//	full     hit: mean  lines  max     miss: mean  lines  max
//	25%           1.50   1.00   14           2.02   1.02   16
//	50%           2.10   1.05   47           3.56   1.23   59
//	60%           2.44   1.10   62           4.80   1.49   79
//	70%           2.94   1.19  139           7.37   2.08  177
//	78% (all)     3.61   1.33  276          12.3    3.29  292
//
// (BenchmarkFill prints it; the longest of three runs.)
//
// A MAC that finds no free cell within probeLimit is not learnt, and counted
// (Stats.Refused). The hash is two seeded rounds of multiply and fold; one
// round leaves sequential MACs in a lattice that fills either too well or
// badly. The seeds come from crypto/rand, so nobody outside can aim.
//
// # Complications
//
// Deleting leaves no tombstones: the entries behind are shifted back. Readers
// look on without a lock and must neither miss an entry that is being shifted
// nor take another's value for it. So:
//
//   - a new entry's value is stored before its key;
//   - a shifted entry is written whole to its new place, then the generation
//     of its home is bumped, then its old place is overwritten;
//   - a removed entry's key is overwritten with gone, which matches nothing,
//     then its generation is bumped, then its place is given away.
//
// A reader that finds the generation of its key's home as it was before has
// seen a true state. Else it looks again. One that met a removal findTries
// times in a row takes the address as unknown: the frame is flooded, which is
// never wrong. Readers don't wait: a writer that is descheduled half way holds
// nobody up.
//
// Seconds come from the workers' batches, whose clocks differ by a round. The
// table keeps the latest it was told (clock), which keeps the lists sorted.
//
// # Threads
//
// find is for anybody. Everything else needs mu. Workers TryLock and go on
// without learning when they don't get it: the next batch tries again. Control
// code locks, and holds it for chunk removals or a scan of scanCells at most.
// Lock order: Switch.mu, then fdb.mu.
type fdb struct {
	// Immutable after init.
	cells   []cell    // len = 4·homes + probeLimit.
	links   []link    // The list links of cells[i].
	homes   uint64    // Number of lines that are somebody's home.
	seeds   [4]uint64 // Secret, the second and fourth odd.
	maxMACs int       // Bound on count.

	// gen counts removals and shifts of entries by their home. Written with mu.
	gen [stripes]atomic.Uint32

	mu     sync.Mutex
	clock  uint32                       // The latest second a worker or Expire told.
	count  int                          // Entries, static and announced ones included.
	told   int                          // Announced entries.
	ports  [dataplane.MaxPorts]portList // By PortID.
	crowd  crowd                        // All ports, the one that holds most first.
	flaps  flapTable
	cursor dataplane.PortID // Where Expire goes on.
}

const (
	stripes    = 256
	lineCells  = 4   // Cells of 16 bytes in a cache line.
	probeLimit = 512 // Most cells from home to entry; a multiple of lineCells.
	findTries  = 16
	chunk      = 16   // Removals by control code under one hold of mu.
	scanCells  = 1024 // Cells that control code reads under one hold of mu, and to the next free one.
)

// cell is one place of the table. key 0 is free: no network has index 0.
type cell struct {
	key atomic.Uint64 // MAC<<16 | network index.
	val atomic.Uint64 // value
}

// gone is the key of a cell between two owners. No network has its index, so
// that nobody looks it up.
const gone = MaxNetworks

// keyOf makes a key of eight bytes of a frame that begin with a MAC.
func keyOf(eight uint64, network uint16) uint64 { return eight&^0xffff | uint64(network) }

// value is what an entry says, in one word. 0 is no entry.
//
//	63            32 31     18  17    16   15       0
//	+---------------+---------+----+------+----------+
//	| seen, seconds | hold ms |held|static| PortID   |
//	+---------------+---------+----+------+----------+
//
// A static and an announced entry are seen at the end of time.
type value uint64

const (
	staticBit value = 1 << 16
	heldBit   value = 1 << 17
	holdShift       = 18
	holdMask        = 1<<14 - 1
	holdBits        = holdMask<<holdShift | heldBit
	seenShift       = 32
	forever         = 1<<32 - 1
)

func newValue(port dataplane.PortID, seen uint32) value {
	return value(port) | value(seen)<<seenShift
}

func (v value) port() dataplane.PortID { return dataplane.PortID(v & 0xffff) }
func (v value) seen() uint32           { return uint32(v >> seenShift) }
func (v value) static() bool           { return v&staticBit != 0 }

// announced tells an entry that never ages but may move.
func (v value) announced() bool { return v.seen() == forever && !v.static() }

// live tells whether the entry is to be believed in the second sec. An entry
// lives for the ageing time and what is left of the second.
func (v value) live(sec, ageing uint32) bool {
	return uint64(v.seen())+uint64(ageing) >= uint64(sec)
}

// home returns the index of the first cell to look for key in, at 3 ns.
func (t *fdb) home(key uint64) uint32 {
	hi, lo := bits.Mul64(key^t.seeds[0], t.seeds[1])
	hi, lo = bits.Mul64(hi^lo^t.seeds[2], t.seeds[3])
	line, _ := bits.Mul64(hi^lo, t.homes)
	return uint32(line) * lineCells
}

// load brings the lines that find will look at first from memory. The loop is
// as short as can be so that all its loads are under way together: one after
// the other, at 100 ns each, they would be most of what a frame costs when the
// table is large.
func (t *fdb) load(runs []run) {
	for i := range runs {
		t.cells[runs[i].srcHome].key.Load()
		t.cells[runs[i].dstHome].key.Load()
	}
}

// find returns key's value, or 0. Anybody may call it at any time.
func (t *fdb) find(key uint64, home uint32) value {
	gen := &t.gen[home/lineCells%stripes]
	for range findTries {
		g := gen.Load()
		var v value
		cells := t.cells[home : home+probeLimit]
		for i := range cells {
			k := cells[i].key.Load()
			if k == key {
				v = value(cells[i].val.Load())
				break
			}
			if k == 0 {
				break
			}
		}
		if gen.Load() == g {
			return v
		}
	}
	return 0
}
