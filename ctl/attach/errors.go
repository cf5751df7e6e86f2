package attach

import "errors"

// The reasons that callers tell apart with errors.Is. The text of the error
// that wraps one names the object.
var (
	// ErrNoNamespace: the path or process doesn't exist, or has ended.
	ErrNoNamespace = errors.New("no such namespace")
	// ErrNotNamespace: the path is something else than a network namespace.
	ErrNotNamespace = errors.New("not a network namespace")
	// ErrMoved: the path or process leads to another namespace by now.
	ErrMoved = errors.New("leads to another namespace now")
	// ErrNoEngine: no container engine answers.
	ErrNoEngine = errors.New("no container engine can be reached")
	// ErrNoContainer: the engine knows no such container.
	ErrNoContainer = errors.New("no such container")
	// ErrNotRunning: the container has no process, and so no namespace.
	ErrNotRunning = errors.New("container is not running")
	// ErrSharedNetwork: the container uses the host's or another container's
	// namespace.
	ErrSharedNetwork = errors.New("container has no network namespace of its own")
	// ErrNoLink: there is no interface of that name.
	ErrNoLink = errors.New("no such interface")
	// ErrLinkExists: an interface of that name is there already.
	ErrLinkExists = errors.New("interface already exists")
	// ErrTaken: the interface is somebody else's.
	ErrTaken = errors.New("interface already taken")
	// ErrDefaultRoute: the namespace has a default route that isn't ours.
	ErrDefaultRoute = errors.New("namespace already has a default route")
	// ErrPortInUse: the host uses a port that Heddle is to have.
	ErrPortInUse = errors.New("port in use")
	// ErrNotUsable: the interface didn't come up in time.
	ErrNotUsable = errors.New("interface did not become usable")
)
