// Package underlay sends and receives a tunnel's UDP datagrams in batches: floor
// 2, udp(7) and nothing of VXLAN.
package underlay
