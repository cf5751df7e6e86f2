package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"

	"github.com/spf13/pflag"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"

	"heddle/ctl/config"
	"heddle/ctl/daemon"
)

// flags is the command line.
type flags struct {
	config, socket, socketGroup, stateDir string
	workers, maxMACs, maxConns            int
	logLevel, logFormat                   string
	metrics, node                         string
	vtep, meshListen, meshKey             string
	ioUring                               string
}

func (f *flags) define(s *pflag.FlagSet) {
	s.SortFlags = false
	s.StringVar(&f.config, "config", "", "apply this YAML `FILE` at start, on top of the saved state")
	s.StringVar(&f.socket, "socket", "/run/swd/swd.sock", "serve the API on the unix socket `PATH`")
	s.StringVar(&f.socketGroup, "socket-group", "", "let the members of group `NAME` use the socket, besides root")
	s.StringVar(&f.stateDir, "state-dir", "/var/lib/swd", "save what was asked for in `DIR`")
	s.IntVar(&f.workers, "workers", 0, "carry frames on `N` threads; 0 means half of the CPUs")
	s.StringVar(&f.ioUring, "io-uring", ioUringAuto, "move small frames of TAP ports many at a time by io_uring: `MODE` auto (where the kernel allows it) or off")
	s.IntVar(&f.maxMACs, "max-macs", 0, "know at most `N` MACs over all networks; 0 means a million")
	s.IntVar(&f.maxConns, "max-conns", 0, "track at most `N` connections of NAT; 0 means a million")
	s.StringVar(&f.logLevel, "log-level", "info", "log from `LEVEL` on: debug, info, warn, error")
	s.StringVar(&f.logFormat, "log-format", "console", "log as `FORMAT`: console or json")
	s.StringVar(&f.metrics, "metrics", "", "serve Prometheus metrics on `ADDR:PORT`")
	s.StringVar(&f.node, "node", "", "this host's `NAME`; its name by default")
	s.StringVar(&f.vtep, "vtep", "", "take peers' frames at `IP[:4789]`; by default at all addresses")
	s.StringVar(&f.meshListen, "mesh-listen", "", "be a member of a mesh from the start, gossiping at `IP[:7946]`")
	s.StringVar(&f.meshKey, "mesh-key", "", "encrypt gossip with the first key in `FILE`, and take the others in it")
}

// What --io-uring may be.
const (
	ioUringAuto = "auto"
	ioUringOff  = "off"
)

// fromEnvironment sets each flag that wasn't given from its SWD_ variable.
func fromEnvironment(s *pflag.FlagSet, lookup func(string) (string, bool)) error {
	var errs []error
	s.VisitAll(func(f *pflag.Flag) {
		if f.Changed || f.Name == "help" || f.Name == "version" {
			return
		}
		name := "SWD_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if v, ok := lookup(name); ok {
			if err := s.Set(f.Name, v); err != nil {
				var bad *pflag.InvalidValueError
				if errors.As(err, &bad) {
					err = config.NumberError(bad.Unwrap())
				}
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
			}
		}
	})
	return errors.Join(errs...)
}

// options is what the flags ask for.
func (f *flags) options() (daemon.Options, error) {
	log, err := logger(f.logLevel, f.logFormat)
	if err != nil {
		return daemon.Options{}, err
	}
	if f.socket == "" || f.stateDir == "" {
		return daemon.Options{}, errors.New("--socket and --state-dir need a path")
	}
	if f.maxMACs < 0 || f.maxMACs > config.MaxMACs {
		return daemon.Options{}, fmt.Errorf("--max-macs %d: want 0 to %d", f.maxMACs, config.MaxMACs)
	}
	if f.maxConns < 0 || f.maxConns > config.MaxConns {
		return daemon.Options{}, fmt.Errorf("--max-conns %d: want 0 to %d", f.maxConns, config.MaxConns)
	}
	if f.ioUring != ioUringAuto && f.ioUring != ioUringOff {
		return daemon.Options{}, fmt.Errorf("--io-uring %s: want %s or %s", f.ioUring, ioUringAuto, ioUringOff)
	}
	vtep, err := endpoint("--vtep", f.vtep, config.VXLANPort)
	if err != nil {
		return daemon.Options{}, err
	}
	meshListen, err := endpoint("--mesh-listen", f.meshListen, config.MeshPort)
	if err != nil {
		return daemon.Options{}, err
	}
	if meshListen.IsValid() && meshListen.Addr().IsUnspecified() && (!vtep.IsValid() || vtep.Addr().IsUnspecified()) {
		return daemon.Options{}, fmt.Errorf("--mesh-listen %s: which of this host's addresses others are to send to isn't said: give one instead, or --vtep", f.meshListen)
	}
	cpus, err := allowedCPUs()
	if err != nil {
		return daemon.Options{}, err
	}
	workers := f.workers
	if workers == 0 {
		workers = max(1, len(cpus)/2)
	}
	if workers < 1 || workers > daemon.MaxWorkers {
		return daemon.Options{}, fmt.Errorf("--workers %d: want 1 to %d, or 0", f.workers, daemon.MaxWorkers)
	}
	// Control code needs a thread beside the workers': they hold theirs.
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), workers+1))
	if f.node == "" {
		if f.node, err = os.Hostname(); err != nil {
			return daemon.Options{}, fmt.Errorf("this host has no name: give one by --node: %w", err)
		}
	}
	return daemon.Options{
		Version: version, Node: f.node,
		Socket: f.socket, SocketGroup: f.socketGroup, StateDir: f.stateDir, Config: f.config,
		Workers: workers, CPUs: last(cpus, workers), IOUring: f.ioUring == ioUringAuto, MaxMACs: f.maxMACs, MaxConns: f.maxConns,
		Metrics: f.metrics, VTEP: vtep, MeshListen: meshListen, MeshKeys: f.meshKey, Log: log,
	}, nil
}

// endpoint reads a flag that is an address of this host's; the zero AddrPort if
// it isn't given. 0.0.0.0 and [::] stand for all of a family.
func endpoint(flag, s string, port uint16) (netip.AddrPort, error) {
	if s == "" {
		return netip.AddrPort{}, nil
	}
	at, err := config.ParseListenAt(s, port)
	if err != nil {
		return at, fmt.Errorf("%s: %w", flag, err)
	}
	return at, nil
}

// allowedCPUs returns the CPUs that this process may run on, in order.
func allowedCPUs() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("sched_getaffinity: %w", err)
	}
	var cpus []int
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}

// last returns the last n CPUs: the first ones are where interrupts and most
// other programs are. With more workers than CPUs they share.
func last(cpus []int, n int) []int { return cpus[max(len(cpus)-n, 0):] }

// logger writes to stderr: stdout is for `ready`.
func logger(level, format string) (*zap.Logger, error) {
	at, err := zapcore.ParseLevel(level)
	if err != nil || at > zapcore.ErrorLevel {
		return nil, fmt.Errorf("--log-level %s: want debug, info, warn or error", level)
	}
	c := zap.NewProductionConfig()
	c.Level = zap.NewAtomicLevelAt(at)
	c.EncoderConfig.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	c.DisableStacktrace = true
	c.DisableCaller = true
	switch format {
	case "json":
	case "console":
		c.Encoding = "console"
		c.EncoderConfig.EncodeLevel = zapcore.CapitalLevelEncoder
	default:
		return nil, fmt.Errorf("--log-format %s: want console or json", format)
	}
	log, err := c.Build()
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	return log, nil
}
