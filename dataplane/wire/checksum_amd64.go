// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package wire

import "unsafe"

// useAVX2 tells whether the processor has AVX2 and the kernel saves its
// registers (Intel SDM volume 1, 14.3).
var useAVX2 = hasAVX2()

func hasAVX2() bool {
	const osxsave, avx = 1 << 27, 1 << 28 // Leaf 1, ECX.
	const avx2 = 1 << 5                   // Leaf 7, EBX.
	const xmmAndYMM = 6                   // XCR0.
	highest, _, _, _ := cpuid(0, 0)
	if highest < 7 {
		return false
	}
	_, _, features, _ := cpuid(1, 0)
	if features&osxsave == 0 || features&avx == 0 || xgetbv()&xmmAndYMM != xmmAndYMM {
		return false
	}
	_, features, _, _ = cpuid(7, 0)
	return features&avx2 != 0
}

// sumAVX2 returns the sum of n bytes' 32-bit words in the machine's order; n is
// a multiple of 64 and not 0.
//
//go:noescape
func sumAVX2(p *byte, n int) uint64

// copySumAVX2 is sumAVX2 of src, which it copies to dst. They may overlap if
// dst begins first.
//
//go:noescape
func copySumAVX2(dst, src *byte, n int) uint64

// cpuid is the instruction, for a leaf and subleaf.
func cpuid(leaf, subleaf uint32) (eax, ebx, ecx, edx uint32)

// xgetbv returns the low half of XCR0.
func xgetbv() uint32

// sumBlocks returns the sum of b's whole blocks of 64 bytes, of which there is
// one at least.
func sumBlocks(b []byte) uint64 {
	if useAVX2 {
		return sumAVX2(unsafe.SliceData(b), len(b)&^63)
	}
	return sumBlocksGeneric(b)
}

// copySumBlocks is sumBlocks of src, and copies them to dst, which is as long.
func copySumBlocks(dst, src []byte) uint64 {
	if useAVX2 {
		return copySumAVX2(unsafe.SliceData(dst), unsafe.SliceData(src), len(src)&^63)
	}
	return copySumBlocksGeneric(dst, src)
}
