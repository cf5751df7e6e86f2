// Package relay is the least that a program can do between two containers: it
// takes each frame from one port and gives it to the other, and looks at
// nothing. There is no FDB, no counter, no check and no batch that waits.
//
// A benchmark measures it beside Heddle in the same run. What a relay reaches
// is what the kernel's ports leave to a program in user space that asks for each
// frame as it does, one system call a frame at a TAP; Heddle may pass it where
// it asks otherwise (io_uring, super-frames written together). What Heddle falls
// short of it is what its own work costs.
//
// Every relay is one pinned thread that sleeps in epoll_wait(2) while neither
// port has frames, as Heddle's workers do.
package relay
