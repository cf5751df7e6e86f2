package attach

import (
	"crypto/sha256"
	"encoding/base32"
	"net"
	"strings"
)

// StableMAC returns the address of a port that was given none: the same for
// the same node and port for ever. Two ports get the same one with a chance of
// 1 in 2^40. It is unicast and locally administered (IEEE 802, 8.2), and
// starts with 02.
func StableMAC(node, port string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(node + "\x00" + port))
	mac := net.HardwareAddr(sum[:6:6])
	mac[0] = 0x02
	return mac
}

// maxName is the longest interface name in bytes (IFNAMSIZ of linux/if.h
// without the terminating zero).
const maxName = 15

var hashText = base32.StdEncoding.WithPadding(base32.NoPadding)

// HostName returns the name of the host's end of a veth port: hd-PORT where
// that fits, else hd~, the port's first four letters and a hash. Two ports
// whose hashes collide are told apart by their alias, and the second is
// refused.
func HostName(port string) string {
	if len(port) <= maxName-3 {
		return "hd-" + port
	}
	sum := sha256.Sum256([]byte(port))
	return "hd~" + port[:4] + strings.ToLower(hashText.EncodeToString(sum[:5]))
}
