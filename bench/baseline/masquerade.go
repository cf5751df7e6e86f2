package baseline

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"heddle/bench/lab"
)

const conntrack = "/proc/sys/net/netfilter/nf_conntrack_"

// rules are what Docker makes for a network with a published port, in nft's
// own language, which costs less than iptables' in nft. The counters that it
// has at each rule stand where they tell what was translated.
const rules = `table ip docker {
	counter out { }
	counter in { }
	chain prerouting {
		type nat hook prerouting priority dstnat
		fib daddr type local jump published
	}
	chain output {
		type nat hook output priority -100
		ip daddr != 127.0.0.0/8 fib daddr type local jump published
	}
	chain published {
		iifname "br0" return
		tcp dport %[1]d counter name in dnat to %[2]s:%[1]d
	}
	chain postrouting {
		type nat hook postrouting priority srcnat
		ip saddr %[3]s oifname != "br0" counter name out masquerade
	}
	chain forward {
		type filter hook forward priority filter; policy drop
		oifname "br0" ct state related,established counter accept
		iifname != "br0" oifname "br0" ip daddr %[2]s tcp dport %[1]d counter accept
		iifname "br0" oifname != "br0" counter accept
		iifname "br0" oifname "br0" counter accept
	}
}
`

// NewMasquerade joins a container and the outside by the kernel's bridge,
// routing and NAT, as docker0 does.
//
//	A: eth0 ── veth ── port-a ── br0 .254, masquerade, DNAT, wan0 ── veth ── eth0 :B
func NewMasquerade(ctx context.Context, l *lab.Lab) (*Path, error) {
	if _, err := exec.LookPath("nft"); err != nil {
		return nil, fmt.Errorf("nft: %w (Debian package nftables)", ErrNotInstalled)
	}
	a, host, b, err := NewOutside(ctx, l, "masquerade")
	if err != nil {
		return nil, err
	}
	if err := l.Veth(host, portA, a, Interface); err != nil {
		return nil, err
	}
	if err := host.AddBridge("br0", portA); err != nil {
		return nil, err
	}
	if err := host.AddAddress("br0", Gateway+"/24"); err != nil {
		return nil, err
	}
	if err := addressInside(ctx, a); err != nil {
		return nil, err
	}
	if err := host.Sysctl("net/ipv4/ip_forward", "1"); err != nil {
		return nil, err
	}
	if _, err := host.Run(ctx, "nft", fmt.Sprintf(rules, PublishedPort, AddrA, Subnet)); err != nil {
		return nil, err
	}
	most, err := readNumber(host, conntrack+"max")
	if err != nil {
		return nil, err
	}
	flush := func(context.Context) error { return host.FlushConntrack() }
	return &Path{
		Name:  "masquerade",
		About: "kernel bridge, veth, nft masquerade and DNAT",
		A:     a, B: b,
		Server:   AddrOutside,
		External: AddrHost,
		Count:    func(ctx context.Context) (Counts, error) { return masqueradeCounts(ctx, host) },
		NAT: &NAT{
			MaxConns: most,
			Conns:    func(context.Context) (int, error) { return readNumber(host, conntrack+"count") },
			Flush:    flush,
			Renew:    flush,
			Memory:   func(context.Context) (uint64, error) { return conntrackMemory() },
		},
	}, nil
}

// masqueradeCounts reads the counters of the two interfaces and of the rules
// that translate, which the first packet of a connection passes.
func masqueradeCounts(ctx context.Context, host *lab.NetNS) (Counts, error) {
	c, err := countsAt(end{host, portA, false}, end{host, Uplink, false})
	if err != nil {
		return Counts{}, err
	}
	out, err := host.Run(ctx, "nft", "-j", "list", "counters", "table", "ip", "docker")
	if err != nil {
		return Counts{}, err
	}
	c.Conns, err = ruleHits(out.Stdout)
	return c, err
}

// ruleHits adds up the packets of all named counters in what `nft -j` prints
// (libnftables-json(5)).
func ruleHits(document string) (uint64, error) {
	var list struct {
		Objects []struct {
			Counter *struct {
				Packets uint64 `json:"packets"`
			} `json:"counter"`
		} `json:"nftables"`
	}
	if err := json.Unmarshal([]byte(document), &list); err != nil {
		return 0, fmt.Errorf("nft's JSON: %w", err)
	}
	var sum uint64
	counters := 0
	for _, o := range list.Objects {
		if o.Counter != nil {
			sum += o.Counter.Packets
			counters++
		}
	}
	if counters == 0 {
		return 0, fmt.Errorf("no counters in nft's JSON: %s", document)
	}
	return sum, nil
}

// conntrackMemory is what the kernel's connections take, of all namespaces,
// without their extensions and the hash table.
func conntrackMemory() (uint64, error) {
	b, err := os.ReadFile("/proc/slabinfo")
	if err != nil {
		return 0, fmt.Errorf("memory of connections: %w", err)
	}
	return slabMemory(string(b), "nf_conntrack")
}

// slabMemory finds a cache in /proc/slabinfo (slabinfo(5)): name, active
// objects, objects, size of one.
func slabMemory(slabinfo, name string) (uint64, error) {
	for line := range strings.Lines(slabinfo) {
		fields := strings.Fields(line)
		if len(fields) < 4 || fields[0] != name {
			continue
		}
		active, errActive := strconv.ParseUint(fields[1], 10, 64)
		size, errSize := strconv.ParseUint(fields[3], 10, 64)
		if errActive != nil || errSize != nil {
			return 0, fmt.Errorf("malformed line of slabinfo: %q", line)
		}
		return active * size, nil
	}
	return 0, fmt.Errorf("slabinfo has no %s", name)
}
