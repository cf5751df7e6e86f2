package mesh

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"heddle/dataplane/wire"
)

// TestRandomOperations does anything at any time to a few hosts over a bad
// network, lets it settle now and then, and holds all of them against a slow
// model: who wants what, and who announced it last.
func TestRandomOperations(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { newScript(t, seed).run(12, 40) })
		})
	}
}

// script is a random sequence of operations and the model of what they should
// come to.
type script struct {
	*cluster
	rng  *rand.Rand
	keys []key
	want map[string]map[key]addrs // By host.
}

const scriptHosts = 7

func newScript(t *testing.T, seed uint64) *script {
	s := &script{cluster: newCluster(t), rng: rand.New(rand.NewPCG(seed, 9)), want: map[string]map[key]addrs{}}
	for i := range 30 {
		s.keys = append(s.keys, key{wire.MAC(0x020000000001 + i), uint32(100 + i%2)})
	}
	s.grow(scriptHosts)
	for i := range scriptHosts {
		s.want[testName(i)] = map[key]addrs{}
	}
	return s
}

// run does rounds of operations, each followed by peace.
func (s *script) run(rounds, ops int) {
	for round := range rounds {
		for range ops {
			s.step()
			time.Sleep(time.Duration(s.rng.IntN(300)) * time.Millisecond)
		}
		s.net.set(nil, 0)
		time.Sleep(failLimit) // Whoever is suspect may still fail, and its endpoints go to others that want them.
		s.within(healLimit, fmt.Sprintf("round %d settles", round), s.check)
		// One operation in peace has one outcome: who announces last has it.
		i, k := s.live(), s.keys[s.rng.IntN(len(s.keys))]
		if !s.announce(i, k) {
			continue
		}
		s.within(moveLimit+time.Second, fmt.Sprintf("round %d: a move is followed", round), func() error {
			return s.owned(Endpoint{VNI: k.vni, MAC: k.mac}, i)
		})
	}
}

// live picks a host that runs.
func (s *script) live() int {
	for {
		if i := s.rng.IntN(scriptHosts); s.node(i) != nil {
			return i
		}
	}
}

// announce tells whether it did: the endpoint may have moved too often.
func (s *script) announce(i int, k key) bool {
	ips := []netip.Addr{netip.AddrFrom4([4]byte{198, 18, byte(i), byte(s.rng.IntN(3))})}
	err := s.node(i).Announce(Endpoint{VNI: k.vni, MAC: k.mac, IPs: ips})
	if err == nil {
		s.want[testName(i)][k] = packAddrs(ips)
	} else if !errors.Is(err, ErrFlapping) {
		s.t.Error(err)
	}
	return err == nil
}

func (s *script) step() {
	i, k := s.live(), s.keys[s.rng.IntN(len(s.keys))]
	switch op := s.rng.IntN(100); {
	case op < 50:
		s.announce(i, k)
	case op < 75:
		_, had := s.want[testName(i)][k]
		if s.node(i).Withdraw(k.vni, k.mac) != had {
			s.t.Errorf("withdrawing %v at host %d is not %t", k.mac, i, had)
		}
		delete(s.want[testName(i)], k)
	case op < 80:
		if err := s.node(i).SetNetworks([]Network{{"red", 100}, {fmt.Sprintf("n%d", op), 101 + uint32(s.rng.IntN(3))}}); err != nil {
			s.t.Error(err)
		}
	case op < 85:
		s.net.set(half(1+s.rng.IntN(scriptHosts-1)), 0)
	case op < 88:
		s.net.set(nil, float64(s.rng.IntN(3))/10)
	case op < 91 && len(s.nodes) > 3:
		s.kill(i)
		s.want[testName(i)] = map[key]addrs{}
	case op < 96:
		for i := range scriptHosts {
			if s.node(i) == nil {
				s.start(i, func(c *Config) {
					for j := range scriptHosts {
						c.Known = append(c.Known, testAddr(j).String())
					}
				})
				break
			}
		}
	default:
		time.Sleep(time.Duration(s.rng.IntN(10)) * time.Second)
	}
}

// check is agree, and that what is announced is what hosts want: each endpoint
// that somebody wants is behind one that does, with that one's IPs.
func (s *script) check() error {
	if err := s.agree(); err != nil {
		return err
	}
	truth := s.truth()
	for name := range s.nodes {
		for k := range s.want[name] {
			if _, ok := truth[k]; !ok {
				return fmt.Errorf("%s wants %v, and it is nowhere", name, k.mac)
			}
		}
	}
	for k, p := range truth {
		if ips, ok := s.want[p.owner][k]; !ok || ips != p.ips {
			return fmt.Errorf("%v is behind %s with %v, which wants %v", k.mac, p.owner, p.ips.list(), ips.list())
		}
	}
	return nil
}
