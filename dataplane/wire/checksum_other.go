// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

//go:build !amd64

package wire

// sumBlocks returns the sum of b's whole blocks of 64 bytes.
func sumBlocks(b []byte) uint64 { return sumBlocksGeneric(b) }

// copySumBlocks is sumBlocks of src, and copies them to dst, which is as long.
func copySumBlocks(dst, src []byte) uint64 { return copySumBlocksGeneric(dst, src) }
