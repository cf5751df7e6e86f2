// Package filter compiles a capture's filter, an expression as tcpdump takes
// it, and tells which frames it selects.
//
// # The language
//
// It is that of pcap-filter(7): host, net, port and portrange with src, dst and
// a protocol; protocols alone and by number; broadcast, multicast, vlan, less
// and greater; and, or, not and parentheses. As there, and and or bind equally
// and to the left, and not binds tighter. Byte expressions (tcp[13]) are
// refused, and so are host names: swd asks no name server.
//
// One thing differs: a primitive looks through up to two 802.1Q or 802.1ad
// tags, so that `tcp port 80` finds tagged frames too. `vlan [ID]` selects by
// tag, and shifts nothing for what is written behind it.
//
// # What is ours and what is the library's
//
// The expression is parsed here and becomes a tree of and, or and not; each
// primitive is a classic BPF program of its own, run by golang.org/x/net/bpf.
// github.com/packetcap/go-pcap compiles addresses, IPv4 networks, ports, tcp
// and udp. It gets one primitive at a time, in canonical form and with numbers
// only, because of what it does with more:
//
//   - and, or and not have no precedence there: `tcp or udp and port 80`
//     becomes `tcp and udp port 80`;
//   - a protocol that it doesn't know selects every frame, icmp for one, and
//     so does any portrange;
//   - the program of an IPv6 network that ends on a 32-bit word (/64) jumps
//     past its own end;
//   - less, greater, vlan and broadcast are not in its language;
//   - it asks DNS for names.
//
// Those (protocol numbers, sctp, ICMP, portrange, IPv6 networks) are assembled
// here. The test holds every kind of primitive against programs that libpcap
// made (testdata/filters.txt).
//
// # Who calls it
//
// The daemon: Compile when a client asks for a capture, Match in that capture's
// goroutine. Workers never do: an interpreted program per frame and primitive
// is too slow for the hot loop.
package filter
