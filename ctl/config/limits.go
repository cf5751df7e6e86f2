package config

import "time"

// Bounds of what a user may ask for. Validate holds specs against them.
const (
	// MaxFile is the longest config file and the longest apply, in bytes.
	MaxFile = 4 << 20
	// MaxPorts is the most ports: dataplane.MaxPorts without port 0.
	MaxPorts = 4095
	// MaxNetworks is the most networks; each of use has a port.
	MaxNetworks = MaxPorts
	// MaxStatics is the most static FDB entries.
	MaxStatics = 1 << 16

	// MaxName is the longest name of an object, in bytes.
	MaxName = 63
	// MaxVNI is the highest VXLAN network identifier: 24 bits (RFC 7348
	// section 5).
	MaxVNI = 1<<24 - 1
	// MinMTU is the shortest that IPv4 lives with (RFC 791 section 3.2).
	MinMTU = 68
	// MinMTU6 is the shortest that IPv6 lives with (RFC 8200 section 5).
	MinMTU6 = 1280
	// MaxMTU is the longest that an interface of every kind can be set to: a
	// TAP's bound, as 65535 bytes hold its Ethernet header too (Linux,
	// drivers/net/tun.c, MAX_MTU).
	MaxMTU = 65521
	// MinAgeing is below the 10 s of IEEE 802.1D table 7-5, so that a network
	// whose containers come and go fast can forget them as fast.
	MinAgeing = Duration(time.Second)
	// MaxAgeing is IEEE 802.1D's (table 7-5).
	MaxAgeing = Duration(1_000_000 * time.Second)
	// MaxMACs is the most that a network may ask for; swd's own bound may be
	// lower.
	MaxMACs = 1 << 24
	// MaxSubnets is the most subnets of a network.
	MaxSubnets = 16
	// MaxIPs is the most addresses of a port.
	MaxIPs = 64
	// MaxIfName is the longest interface name, in bytes: IFNAMSIZ without the
	// final NUL (linux/if.h).
	MaxIfName = 15
	// MaxPID is the kernel's PID_MAX_LIMIT on 64 bits (linux/threads.h).
	MaxPID = 1 << 22
	// MaxNetNS is the longest path, in bytes: PATH_MAX without the final NUL
	// (linux/limits.h).
	MaxNetNS = 4095
	// MaxContainer is the longest container name or id, in bytes.
	MaxContainer = 255

	// MaxUplinks is the most uplinks.
	MaxUplinks = 256
	// MaxAddresses is the most addresses of an uplink.
	MaxAddresses = 1024
	// MaxNAT is the most masquerades and publications: a publication to a port
	// may be one rule for each family, and NAT has 65535.
	MaxNAT = 1<<15 - 1
	// MinMappedPort is the lowest port of an uplink's range: those below are
	// well-known ones (RFC 6335 section 6), which are published, not mapped.
	MinMappedPort = 1024
	// MinLifetime is the shortest of NATSettings' lifetimes.
	MinLifetime = Duration(time.Second)
	// MaxLifetime is the longest, a year.
	MaxLifetime = Duration(365 * 24 * time.Hour)
	// MaxConns is the most connections that a swd may be told to hold.
	MaxConns = 1<<24 - 1
	// MaxContainerPorts is the most external ports of one container: all of one
	// address, in each protocol.
	MaxContainerPorts = 1 << 18

	// MaxPeers is the most static peers: each has a port for each network that
	// it shares.
	MaxPeers = MaxPorts
	// MaxJoin is the most members that are asked to be let in.
	MaxJoin = 64
)
