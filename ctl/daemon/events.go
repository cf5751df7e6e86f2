package daemon

import (
	"context"
	"fmt"
	"sync"
	"time"

	"heddle/ctl/api"
)

// eventCapacity is how many events are kept: old ones give way to new ones.
const eventCapacity = 1024

// The kinds of event. They are part of the API: they never change meaning.
const (
	eventNetworkAdded    = "network-added"
	eventNetworkChanged  = "network-changed"
	eventNetworkRemoved  = "network-removed"
	eventPortAdded       = "port-added"
	eventPortChanged     = "port-changed"
	eventPortRemoved     = "port-removed"
	eventPortDown        = "port-down"
	eventPortUp          = "port-up"
	eventUplinkAdded     = "uplink-added"
	eventUplinkChanged   = "uplink-changed"
	eventUplinkRemoved   = "uplink-removed"
	eventUplinkDown      = "uplink-down"
	eventUplinkUp        = "uplink-up"
	eventNATAdded        = "nat-added"
	eventNATChanged      = "nat-changed"
	eventNATRemoved      = "nat-removed"
	eventPeerAdded       = "peer-added"
	eventPeerChanged     = "peer-changed"
	eventPeerRemoved     = "peer-removed"
	eventPeerDown        = "peer-down"
	eventPeerUp          = "peer-up"
	eventMeshJoined      = "mesh-joined"
	eventMeshLeft        = "mesh-left"
	eventMemberUp        = "member-up"
	eventMemberDown      = "member-down"
	eventAddressConflict = "address-conflict"
	eventMACFlapping     = "mac-flapping"
	eventsLost           = "events-lost"
)

// eventRing keeps the last eventCapacity events and wakes who follows them.
// Anybody may call its methods at any time; no caller waits for a follower.
type eventRing struct {
	mu   sync.Mutex
	ring [eventCapacity]api.Event
	next uint64        // How many events there ever were; the next one's number.
	more chan struct{} // Closed and replaced at each add.
}

func newEventRing() *eventRing { return &eventRing{more: make(chan struct{})} }

// add notes an event that happened now.
func (r *eventRing) add(kind, object, message string) {
	e := api.Event{Time: time.Now().Format(time.RFC3339Nano), Kind: kind, Object: object, Message: message}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ring[r.next%eventCapacity] = e
	r.next++
	close(r.more)
	r.more = make(chan struct{})
}

// since returns the events from number pos on, how many of them are lost, the
// number to go on with, and a channel that is closed when there are more.
func (r *eventRing) since(pos uint64) (events []api.Event, lost, next uint64, more <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next-pos > eventCapacity {
		lost = r.next - pos - eventCapacity
		pos += lost
	}
	for ; pos < r.next; pos++ {
		events = append(events, r.ring[pos%eventCapacity])
	}
	return events, lost, r.next, r.more
}

// kept returns the events that are kept, the oldest first.
func (r *eventRing) kept() []api.Event {
	events, _, _, _ := r.since(r.oldest())
	return events
}

// oldest returns the number of the oldest event that is kept.
func (r *eventRing) oldest() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return max(r.next, eventCapacity) - eventCapacity
}

// follow hands the kept events to f, and then each new one, until ctx is done
// or f fails; a follower that is too slow is told how many it missed.
func (r *eventRing) follow(ctx context.Context, f func([]api.Event) error) error {
	for pos := r.oldest(); ; {
		events, lost, next, more := r.since(pos)
		if lost > 0 {
			events = append([]api.Event{lostEvent(lost)}, events...)
		}
		if len(events) > 0 {
			if err := f(events); err != nil {
				return err
			}
		}
		pos = next
		select {
		case <-ctx.Done():
			return nil
		case <-more:
		}
	}
}

func lostEvent(n uint64) api.Event {
	return api.Event{
		Time: time.Now().Format(time.RFC3339Nano), Kind: eventsLost, Object: "events",
		Message: fmt.Sprintf("%d events were overwritten before they were read", n),
	}
}
