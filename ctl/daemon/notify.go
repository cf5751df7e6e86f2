package daemon

import (
	sd "github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"
)

// NotifySystemd has systemd told when the daemon serves and, by the function it
// returns, when it stops (sd_notify(3)). Without systemd it does nothing. It is
// called before Run, and takes OnReady's place in front of ready.
func (d *Daemon) NotifySystemd(ready func()) (stopping func()) {
	tell := func(state string) {
		if _, err := sd.SdNotify(false, state); err != nil {
			d.log.Warn("systemd can't be told", zap.String("state", state), zap.Error(err))
		}
	}
	d.OnReady(func() {
		tell(sd.SdNotifyReady)
		ready()
	})
	return func() { tell(sd.SdNotifyStopping) }
}
