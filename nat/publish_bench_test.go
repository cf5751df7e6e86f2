package nat

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"heddle/dataplane/wire"
)

// BenchmarkPublish is what the last of so many publications costs to add and
// to remove.
func BenchmarkPublish(b *testing.B) {
	for _, rules := range []int{10, 1000, 5000, 20000} {
		b.Run(fmt.Sprintf("%d publications", rules), func(b *testing.B) {
			l := newLab(b, options{})
			begun := time.Now()
			for i := range rules {
				l.mustPublish("p", wire.ProtoTCP, netip.Addr{}, one(uint16(1000+i)), hostA, 80)
			}
			b.ReportMetric(float64(time.Since(begun).Microseconds())/float64(rules), "µs/add-of-all")
			for b.Loop() {
				id := l.mustPublish("last", wire.ProtoTCP, netip.Addr{}, one(60000), hostA, 80)
				l.must(l.n.RemoveRule(id))
			}
		})
	}
}
