//go:build unix

package main

import (
	"syscall"
	"time"
)

// processCPU returns the CPU time that this process has taken, in user and kernel mode.
func processCPU() time.Duration {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
