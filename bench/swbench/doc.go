// Swbench measures Heddle against what containers are joined by today, side by
// side in one run on one machine.
//
// Every contender has two namespaces of its own with the same names, addresses
// and settings. Some switch between two containers (kernel bridge, swd with TAP
// ports, swd with veth ports, Open vSwitch where it is installed); some translate
// between a container and the outside (kernel bridge, routing, masquerade and
// DNAT; swd with an uplink of its own or a shared one); some tunnel between
// containers on two hosts by VXLAN (the kernel's vxlan device; two swd with TAP
// ports or with veth ports; two Open vSwitch). docs/BENCH.md tells what each row
// does. All stand at the same time, and idle while another is measured. A round
// measures each row on each contender in turn, and rounds repeat, so that whatever
// else the machine does hits all alike. A figure is the median over the rounds,
// with the least and the most.
//
// A figure counts only if what was sent arrived, as it was sent, and the path's own
// counters (for swd, those of `swctl port show`, `uplink show`, `nat ls` and `peer
// show`) account for it and for nothing else: anything else is reported as an error,
// and the exit code is 1. Files content.go and verify.go have the checks, and
// docs/BENCH.md tells them for each row.
//
// # Where things run
//
// The same for all contenders. Nothing of the contenders themselves is pinned
// from outside: swd pins its workers, Open vSwitch's thread and the kernel's
// softirqs run where they choose, as in use. Only where two swd stand for two hosts
// is each confined to a half of the cores, as if it had a machine of its own.
//
//   - Bulk TCP, in two placements, since none suits all. Free: the scheduler
//     chooses; a bridge does its work on the core of whoever sends, and is best
//     like that. Pinned: senders on the first core, receivers on the second; a
//     switch in userspace has a third thread that two cores have to make room
//     for, and suffers most when the sender is put beside it. A target takes
//     each contender's better placement.
//   - TCP_CRR and ab: in the same two placements.
//   - TCP_RR: client and server on different cores, and once more both on the
//     same core. Wake-ups across cores are the cost here, so both are shown.
//   - 60 B frames: the sender alone on its core, since it never sleeps; the
//     receiver on another one, where it costs some 2%. A bridge forwards on the
//     sender's core, a userspace switch finds the other core free. Through NAT
//     they are for an address that only the receiver answers ARP for, so that B's
//     stack drops them at once there too.
//   - Latency under load: client and server on different cores.
//
// TCP uses CUBIC, the default of Linux, where the machine's own is another: a
// paced one (BBR) would be measured instead of the path.
package main
