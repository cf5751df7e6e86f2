package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"heddle/ctl/config"
	"heddle/dataplane"
	"heddle/dataplane/tap"
	"heddle/nat"
	vswitch "heddle/switch"
	"heddle/tunnel"
)

// MaxWorkers bounds Options.Workers.
const MaxWorkers = dataplane.MaxWorkers

// Options is what a Daemon is made from.
type Options struct {
	// Version is what `swctl version` shows.
	Version string
	// Node is this host's name towards others; stable MACs derive from it.
	Node string
	// Socket is the path of the unix socket, SocketGroup the group that may
	// use it besides root; empty means root's only.
	Socket, SocketGroup string
	// StateDir is where the specs are saved.
	StateDir string
	// Config is the path of a file to apply at start; empty for none.
	Config string
	// Workers is the number of worker threads, CPUs what they are pinned to.
	Workers int
	CPUs    []int
	// IOUring has TAP ports move small frames by io_uring, where the kernel
	// allows it.
	IOUring bool
	// MaxMACs bounds the FDB over all networks; 0 means a million.
	MaxMACs int
	// MaxConns bounds NAT's connections; 0 means a million.
	MaxConns int
	// Metrics is the ADDR:PORT that serves Prometheus; empty for none.
	Metrics string
	// VTEP is where peers' frames are taken; the zero AddrPort is port 4789 of
	// all addresses of the family of the first peer.
	VTEP netip.AddrPort
	// MeshListen is where a mesh gossips, from the start; the zero AddrPort is
	// port 7946, from the first join on.
	MeshListen netip.AddrPort
	// MeshKeys is the path of a file of keys (config.ParseMeshKeys); empty for
	// none.
	MeshKeys string
	// Log takes what happens. Nil logs nothing.
	Log *zap.Logger
}

// Daemon is one swd. New makes it, Run serves until it is told to stop, Close
// gives back what is left. Its exported methods besides these are what the API
// does; they may be called from any goroutine between New and Close.
type Daemon struct {
	opts    Options
	log     *zap.Logger
	host    host
	engine  *dataplane.Engine
	sw      *vswitch.Switch
	nat     *nat.NAT
	events  *eventRing
	state   *state
	started time.Time
	locks   []*os.File
	life    context.Context // Done when the daemon is to stop.
	stop    context.CancelFunc

	listener *limitListener
	metrics  net.Listener // Nil without Options.Metrics.

	change sync.Mutex // One change at a time; before wiring.

	wiring  sync.Mutex       // Guards running, ends and who is attached as what; before mu.
	running []*activeCapture // The captures that run.
	ends    *tunnel.VTEP     // Whose ends are guarded; nil without a VTEP.

	mu       sync.RWMutex // Guards what follows, and the fields of the objects in it.
	networks map[string]*network
	ports    map[string]*port
	ids      [dataplane.MaxPorts]*port
	inside   [dataplane.MaxPorts]bool // The numbers that gateways and uplinks have.
	statics  staticTable
	uplinks  map[string]*uplink
	peers    map[string]config.Peer // The static ones.
	vtep     *vtep                  // Nil while there is nobody to reach.
	remotes  map[netip.Addr]*remote
	tunnelOf map[dataplane.PortID]*remote // By the number of a tunnel.
	vtepDown error                        // Why there is no VTEP though there is to be one.
	meshSpec config.Mesh
	meshLeft bool        // It was left by hand, until it is joined again.
	meshDown error       // Why there is no mesh though there is to be one.
	mesh     *membership // Nil while this host is in none.
	members  map[string]*member
	keys     *keyRing
	nats     map[string]*natRule
	stack    stack
	settings config.NATSettings
	locals   map[station]*port // Whose interface has the address; see setLocal.
	retired  dataplane.Totals  // Of ports that were removed.

	// change guards these.
	addressTrouble string
	joining        int       // Joins by hand that wait for an answer.
	meshNext       time.Time // When to try again to start the mesh.
	membersChanged bool
	portIndex      portIndex

	wirings     atomic.Uint64 // How often a port was attached, detached or changed.
	misplaced   atomic.Uint64 // Stations that members announced and that found no room.
	meshStirred chan struct{} // Wakes followMesh.
	background  sync.WaitGroup

	captures chan struct{} // A slot for each that runs.
	again    chan struct{} // Wakes retry.
	stirred  chan struct{} // Wakes followUplinks.
	engines  engineMemory
	starting *startup // New hasn't returned: nothing is to wait long. Guarded by change.
	ready    func()   // Called once Run serves; nil for nothing.
}

// New makes a daemon: it takes the locks, restores what was saved, applies the
// config file and opens the socket. What can't be restored because the host
// lacks it (a namespace) is kept, shown down, and tried again; so is at first
// what may take long, as all that a container engine has to be asked for;
// files that can't be read or are wrong are errors. It ends early when ctx is
// done, which also ends a Run. On failure nothing is left open; interfaces that
// were made stay for the next start.
func New(ctx context.Context, o Options) (*Daemon, error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	m, err := openMachine(o.Log)
	if err != nil {
		return nil, err
	}
	if o.IOUring {
		if m.rings, err = tap.NewRings(o.Workers); err != nil {
			o.Log.Info("TAP ports read and write frames one by one", zap.Error(err))
		}
	}
	return newOn(ctx, o, m)
}

// natPause is for how long a flush of connections leaves them to the workers.
const natPause = 50 * time.Microsecond

// newOn is New on a host, which it closes in the end.
func newOn(ctx context.Context, o Options, h host) (_ *Daemon, err error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	d := &Daemon{
		opts:        o,
		log:         o.Log,
		host:        h,
		events:      newEventRing(),
		started:     time.Now(),
		networks:    make(map[string]*network),
		ports:       make(map[string]*port),
		uplinks:     make(map[string]*uplink),
		peers:       make(map[string]config.Peer),
		remotes:     make(map[netip.Addr]*remote),
		tunnelOf:    make(map[dataplane.PortID]*remote),
		members:     make(map[string]*member),
		meshStirred: make(chan struct{}, 1),
		nats:        make(map[string]*natRule),
		stirred:     make(chan struct{}, 1),
		statics:     newStaticTable(),
		locals:      make(map[station]*port),
		captures:    make(chan struct{}, maxCaptures),
		again:       make(chan struct{}, 1),
	}
	d.life, d.stop = context.WithCancel(ctx)
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	if err := d.takeLocks(); err != nil {
		return nil, err
	}
	if d.keys, err = openKeys(o.StateDir, o.MeshKeys); err != nil {
		return nil, err
	}
	saved, asked, err := d.readSpecs()
	if err != nil {
		return nil, err
	}
	d.sw = vswitch.New(o.Workers, o.MaxMACs)
	if d.nat, err = nat.New(nat.Config{Workers: o.Workers, MaxConns: o.MaxConns, Pause: func() { time.Sleep(natPause) }}); err != nil {
		return nil, err
	}
	d.engine, err = dataplane.NewEngine(dataplane.Config{Workers: o.Workers, CPUs: o.CPUs, Clock: d.now})
	if err != nil {
		return nil, err
	}
	if err := d.engine.Start(); err != nil {
		return nil, err
	}
	if err := d.restore(saved, asked); err != nil {
		return nil, err
	}
	if o.Metrics != "" {
		d.metrics, err = net.Listen("tcp", o.Metrics)
		if err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	l, err := listen(o.Socket, o.SocketGroup)
	if err != nil {
		return nil, err
	}
	d.listener = newLimitListener(l)
	return d, nil
}

// takeLocks makes sure that no other swd has the socket or the state.
func (d *Daemon) takeLocks() (err error) {
	if d.state, err = openState(d.opts.StateDir); err != nil {
		return err
	}
	for _, l := range []struct{ path, what string }{
		{d.opts.Socket + ".lock", "socket " + d.opts.Socket},
		{filepath.Join(d.opts.StateDir, "lock"), "state directory " + d.opts.StateDir},
	} {
		f, err := lockFile(l.path, l.what)
		if err != nil {
			return err
		}
		d.locks = append(d.locks, f)
	}
	return nil
}

// readSpecs reads the saved state and the config file; asked is nil without.
func (d *Daemon) readSpecs() (saved, asked *config.Config, err error) {
	if saved, err = d.state.load(); err != nil {
		return nil, nil, err
	}
	if d.opts.Config == "" {
		return saved, nil, nil
	}
	if asked, err = readConfig(d.opts.Config); err != nil {
		return nil, nil, fmt.Errorf("config: %w", err)
	}
	return saved, asked, nil
}

// startup is a New under way.
type startup struct {
	begun time.Time
	asked map[string][]config.Port // Those of both files, by name.
}

// restore makes what was saved, and then what the config file asks for, and
// removes what a killed swd made for ports that neither has.
func (d *Daemon) restore(saved, asked *config.Config) error {
	d.change.Lock()
	defer d.change.Unlock()
	s := &startup{begun: time.Now(), asked: make(map[string][]config.Port)}
	for _, c := range []*config.Config{saved, asked} {
		for i := 0; c != nil && i < len(c.Ports); i++ {
			s.asked[c.Ports[i].Name] = append(s.asked[c.Ports[i].Name], c.Ports[i])
		}
	}
	d.starting = s
	defer func() { d.starting = nil }()
	d.host.sweep(d.claims)
	if _, err := d.apply(d.life, saved, keepFailed, func() error { return nil }); err != nil {
		return fmt.Errorf("restore %s: %w", d.state.path, err)
	}
	if asked == nil {
		return nil
	}
	if _, err := d.apply(d.life, asked, keepFailed, d.save); err != nil {
		return fmt.Errorf("config: apply %s: %w", d.opts.Config, err)
	}
	return nil
}

// claims tells whether a port has, or is to have, an interface that carries its
// name. The caller holds change.
func (d *Daemon) claims(port, ifName string) bool {
	var specs []config.Port
	if p := d.ports[port]; p != nil {
		specs = append(specs, p.spec)
	}
	if d.starting != nil {
		specs = append(specs, d.starting.asked[port]...)
	}
	return slices.ContainsFunc(specs, func(s config.Port) bool { return hasLink(&s, ifName) })
}

// now is the engine's clock: monotonic nanoseconds since the start.
func (d *Daemon) now() int64 { return int64(time.Since(d.started)) }

// OnReady has f called once when Run serves. It is set before Run.
func (d *Daemon) OnReady(f func()) { d.ready = f }

// Run serves until ctx is done, and returns after the clients have been let
// go. It returns an error if serving failed.
func (d *Daemon) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, d.stop)()
	ctx = d.life
	api := d.newServer()
	api.BaseContext = func(net.Listener) context.Context { return ctx }
	servers := []*http.Server{api}
	failed := make(chan error, 2)
	var running sync.WaitGroup
	serve := func(s *http.Server, l net.Listener) {
		running.Go(func() {
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("serve %s: %w", l.Addr(), err)
			}
		})
	}
	serve(api, d.listener)
	if d.metrics != nil {
		m := d.newMetricsServer()
		servers = append(servers, m)
		serve(m, d.metrics)
	}
	running.Go(func() { d.age(ctx) })
	running.Go(func() { d.watch(ctx) })
	running.Go(func() { d.retry(ctx) })
	running.Go(func() { d.followUplinks(ctx) })
	running.Go(func() { d.followTunnels(ctx) })
	running.Go(func() { d.followMesh(ctx) })
	d.log.Info("serving", zap.String("socket", d.opts.Socket), zap.Int("workers", d.opts.Workers), zap.Ints("cpus", d.opts.CPUs))
	if d.ready != nil {
		d.ready()
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	d.stop() // Ends streams, changes and the control goroutines.
	grace, end := context.WithTimeout(context.Background(), shutdownTimeout)
	defer end()
	for _, s := range servers {
		if s.Shutdown(grace) != nil {
			_ = s.Close()
		}
	}
	running.Wait()
	return err
}

// shutdownTimeout bounds how long a stop waits for requests that are served.
const shutdownTimeout = 5 * time.Second

// Close drains and stops the workers and gives back everything but what is to
// survive on the host: TAPs and veths stay, with their addresses and routes,
// for the next start to take over. Run has returned, or was never called.
func (d *Daemon) Close() error {
	d.stop()
	d.change.Lock()
	defer d.change.Unlock()
	var errs []error
	if d.listener != nil {
		errs = append(errs, notClosed(d.listener.Close()))
	}
	if d.metrics != nil {
		errs = append(errs, notClosed(d.metrics.Close()))
	}
	d.background.Wait()
	d.stopMesh(leaveTimeout)
	if d.engine != nil {
		d.engine.Stop()
	}
	if d.vtep != nil {
		errs = append(errs, d.vtep.live.Close())
		d.vtep = nil
	}
	errs = append(errs, d.stopNAT())
	for _, p := range d.ports {
		if p.dev != nil {
			errs = append(errs, p.dev.release())
			p.dev = nil
		}
	}
	if d.host != nil {
		errs = append(errs, d.host.close())
		d.host = nil
	}
	for _, f := range d.locks {
		errs = append(errs, f.Close())
	}
	d.locks = nil
	return errors.Join(errs...)
}

// notClosed forgives a second close.
func notClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
