package wire

const (
	// A TCP SYN from 198.18.0.1:40000 to 198.18.0.2:80 with an MSS option.
	tcpSYN4 = `
		02 00 00 00 00 02  02 00 00 00 00 01  08 00  # to ..:02, from ..:01, IPv4
		45 00 00 2c  12 34 40 00  40 06 9c 70        # IHL 5, 44 bytes, id 0x1234, DF, TTL 64, TCP, checksum
		c6 12 00 01  c6 12 00 02                     # 198.18.0.1 to 198.18.0.2
		9c 40 00 50  00 00 00 01  00 00 00 00        # 40000 to 80, seq 1, ack 0
		60 02 fa f0  74 7c 00 00                     # 24 bytes of header, SYN, window 64240, checksum
		02 04 05 b4                                  # MSS 1460`

	// The same as UDP in a service and a customer tag, without payload.
	udpQinQ = `
		02 00 00 00 00 02  02 00 00 00 00 01
		88 a8 00 64  81 00 60 0a  08 00              # S-tag VLAN 100, C-tag priority 3 VLAN 10, IPv4
		45 00 00 1c  00 00 00 00  40 11 ee a9
		c6 12 00 01  c6 12 00 02
		9c 40 00 50  00 08 d7 25                     # 40000 to 80, 8 bytes, checksum`

	// An ICMPv6 echo request behind hop-by-hop options.
	echo6Ext = `
		02 00 00 00 00 02  02 00 00 00 00 01  86 dd
		60 00 00 00  00 10 00 40                     # 16 bytes of payload, next: hop-by-hop, hop limit 64
		20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01
		20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 02
		3a 00 01 04 00 00 00 00                      # next: ICMPv6, 8 bytes, PadN
		80 00 24 40  00 07 00 01                     # echo request, id 7, seq 1`

	// The first and the second fragment of a UDP datagram.
	udpFrag4First = `
		02 00 00 00 00 02  02 00 00 00 00 01  08 00
		45 00 00 24  00 09 20 00  40 11 00 00        # more fragments, offset 0
		c6 12 00 01  c6 12 00 02
		9c 40 00 50  00 18 00 00  01 02 03 04 05 06 07 08`
	udpFrag4Later = `
		02 00 00 00 00 02  02 00 00 00 00 01  08 00
		45 00 00 1c  00 09 00 02  40 11 00 00        # no more, offset 16
		c6 12 00 01  c6 12 00 02
		09 0a 0b 0c 0d 0e 0f 10`

	// A later fragment of an IPv6 datagram.
	udpFrag6Later = `
		02 00 00 00 00 02  02 00 00 00 00 01  86 dd
		60 00 00 00  00 10 2c 40                     # 16 bytes of payload, next: fragment
		20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01
		20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 02
		11 00 00 11  00 00 00 09                     # next: UDP, offset 16, more
		00 00 00 00 00 00 00 00                      # payload that would be a bad extension header`

	// Who has 198.18.0.2? Tell 198.18.0.1.
	arpRequest = `
		ff ff ff ff ff ff  02 00 00 00 00 01  08 06
		00 01 08 00 06 04 00 01                      # Ethernet, IPv4, 6, 4, request
		02 00 00 00 00 01  c6 12 00 01
		00 00 00 00 00 00  c6 12 00 02`
)

var goldenFrames = []struct{ name, hex string }{
	{"tcp4", tcpSYN4}, {"udp in QinQ", udpQinQ}, {"echo6 behind options", echo6Ext},
	{"first fragment", udpFrag4First}, {"later fragment", udpFrag4Later},
	{"later fragment v6", udpFrag6Later}, {"arp", arpRequest},
}
